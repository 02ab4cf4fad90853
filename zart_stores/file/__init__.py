"""The file log: an append-only journal in a directory, for one process at a time."""
