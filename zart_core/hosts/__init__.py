"""Shells around the pure core: inline (synchronous) and engine (concurrent)."""
