"""Stores that keep their records in an SQL database."""
