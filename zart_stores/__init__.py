"""The stores that come with Zart: memory, file, SQLite and PostgreSQL.

Rule 1: a store knows `zart_core.log`, `events` and `errors`, and nothing else of `zart_core`.
Rule 2: a store is found by the scheme of its URL through the entry point group `zart.stores`; each module has
        `open(url, *, durability=...) -> EventLog`, and importing one imports no driver that it does not need.
"""
