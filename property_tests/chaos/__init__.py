"""Several worker processes on one PostgreSQL under kills, pauses, restarts and lost connections."""
