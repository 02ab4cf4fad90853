"""Forty breaks of one line each, and the generic harnesses that have to notice them."""
