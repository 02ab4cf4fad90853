"""Columns as binary arrays: the server reads what was meant."""

import psycopg
import pytest

from tests.postgres import running
from zart_stores.sql.postgres_arrays import column, register

VALUES = {
    "int8": [0, 1, -1, (1 << 63) - 1, -(1 << 63), None],
    "float8": [0.0, 1.5, -1e300, 5e-324, float("inf"), None],
    "bool": [True, False, None],
    "text": ["", "NULL", 'a"b\\c,{d}', "é\u2028\U0001f600", "x" * 100_000, None],
    "bytea": [b"", b"\0\xff\\", b"x" * 100_000, None],
}


@pytest.fixture(scope="module")
def db():
    with running() as server, psycopg.connect(server.dsn, autocommit=True) as connection:
        register(connection.adapters)
        yield connection


@pytest.mark.parametrize("kind", VALUES)
@pytest.mark.parametrize("null", [True, False])
def test_a_column_comes_back(db, kind, null):
    """Every type, with and without NULL, none and many, alike or not: as it was given, and of that very type."""
    values = [value for value in VALUES[kind] if null or value is not None]
    query = f"SELECT value, pg_typeof(%s)::text FROM unnest(%s::{kind}[]) AS given (value)"
    for some in (values, values[:1], [], values[1:2] * 3, values[-1:] * 3, values[-1:]):
        sent = column(kind, some)
        found = db.execute(query, (sent, sent)).fetchall()
        assert found == [
            (
                value,
                {"int8": "bigint", "float8": "double precision", "bool": "boolean"}.get(kind, kind) + "[]",
            )
            for value in some
        ]
