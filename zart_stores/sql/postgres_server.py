"""The PostgreSQL server of a log: its URL, its tables and their migrations, what it promises, what its errors mean.

Rule 1: all migrations that are missing are made in one transaction, under a lock of their own (F26).
Rule 2: what the server says about durability is read back; what cannot be had is refused (L4).
Rule 3: no message of ours carries a password or a payload.
"""

from __future__ import annotations

import functools
import hashlib
import re
import select
from collections.abc import Sequence
from typing import Any, TypeAlias
from urllib.parse import parse_qsl, quote, urlencode

import attrs
import psycopg
from psycopg.conninfo import conninfo_to_dict

from zart_core.errors import FormatTooNew, InvalidUse, LogCorrupt, StoreUnavailable, ZartError

Connection: TypeAlias = psycopg.Connection[tuple[Any, ...]]

IDENTIFIER = re.compile(r"[a-z_][a-z0-9_]{0,39}")
CHANNEL_CHARS_MAX = 63
VERSION_MIN = 130000
OURS = frozenset({"schema", "prefix", "prepare"})
"""The parameters of a URL that are the log's own and not the driver's."""


@attrs.frozen
class Address:
    """Where a log is: what the driver connects to, and which tables there are its own."""

    conninfo: str
    where: str
    """The same for people, without user and password."""
    schema: str = "zart"
    prefix: str = ""
    prepare: bool = True
    """Whether statements may be prepared; a pooler that hands connections from one to another may not like it."""

    def sql(self, text: str) -> bytes:
        """Give a statement: `{t}` is what stands before the name of a table, `?` a value."""
        return _statement(text, self.schema, self.prefix)

    @property
    def channel(self) -> str:
        """The channel of its notifications."""
        return _channel(f"zart_{self.schema}_{self.prefix}")


@functools.cache
def _statement(text: str, schema: str, prefix: str) -> bytes:
    return text.replace("{t}", f'"{schema}".{prefix}').replace("?", "%s").encode()


@functools.cache
def _channel(name: str) -> str:
    """A name that a channel may have: one that is too long is listened to cut off, and refused when it is notified."""
    if len(name) <= CHANNEL_CHARS_MAX:
        return name
    return f"zart_{hashlib.sha256(name.encode()).hexdigest()[:32]}"


def address_of(url: str) -> Address:
    """Read `postgresql://...?schema=zart&prefix=&prepare=yes`. Raises InvalidUse, without showing a password."""
    base, _, query = url.partition("?")
    if not base.startswith(("postgresql://", "postgres://")):
        raise InvalidUse("no URL of a PostgreSQL log; write postgresql://USER@HOST/DATABASE?schema=zart")
    given = parse_qsl(query.replace("+", "%2B"), keep_blank_values=True)  # libpq knows no plus for a blank
    own = {name: value for name, value in given if name in OURS}
    theirs = urlencode([(name, value) for name, value in given if name not in OURS], quote_via=quote)
    conninfo = f"{base}?{theirs}"
    try:
        known = conninfo_to_dict(conninfo)
    except psycopg.ProgrammingError:
        raise InvalidUse(
            "the URL of the PostgreSQL log cannot be read; write postgresql://USER@HOST:PORT/DATABASE?NAME=VALUE "
            f"with the parameters of libpq, or {', '.join(sorted(OURS))}"
        ) from None
    schema, prefix, prepare = own.get("schema", "zart"), own.get("prefix", ""), own.get("prepare", "yes")
    for what, text in (("schema", schema), ("prefix", prefix or "_")):
        if not IDENTIFIER.fullmatch(text):
            raise InvalidUse(
                f"{what}={text!a}: give at most 40 lower-case letters, digits and underscores, "
                "not beginning with a digit"
            )
    if prepare not in ("yes", "no"):
        raise InvalidUse(f"prepare={prepare!a}: write yes or no")
    host, port = known.get("host", "the local server"), known.get("port", 5432)
    where = f"PostgreSQL at {host}:{port}, database {known.get('dbname', '')!a}, schema {schema}"
    return Address(
        conninfo, f"{where}, prefix {prefix}" if prefix else where, schema, prefix, prepare == "yes"
    )


# ---------------------------------------------------------------- tables

MIGRATIONS: Sequence[Sequence[str]] = (
    (
        "CREATE SEQUENCE {t}execution_keys",
        """
        CREATE TABLE {t}executions (
            key int8 PRIMARY KEY,
            id text COLLATE "C" NOT NULL UNIQUE,
            workflow text COLLATE "C" NOT NULL,
            digest text COLLATE "C" NOT NULL,
            created_at float8 NOT NULL,
            status text COLLATE "C" NOT NULL,
            owner text COLLATE "C",
            wake float8,
            run int8 NOT NULL,
            position int8 NOT NULL,
            fence int8 NOT NULL,
            updated_at float8 NOT NULL,
            given bool NOT NULL,
            seen int8 NOT NULL,
            posted int8 NOT NULL,
            top int8 NOT NULL,
            unread int8 NOT NULL,
            reason text NOT NULL,
            build text NOT NULL,
            due float8,
            crc int8 NOT NULL
        ) WITH (fillfactor = 70)
        """,
        "CREATE INDEX {p}executions_by_status ON {t}executions (status, id)",
        "CREATE INDEX {p}executions_by_workflow ON {t}executions (workflow, id)",
        "CREATE INDEX {p}executions_due ON {t}executions (due) WHERE due IS NOT NULL",
        "CREATE INDEX {p}executions_free ON {t}executions (workflow, due) WHERE owner IS NULL AND due IS NOT NULL",
        "CREATE INDEX {p}executions_held ON {t}executions (owner, workflow, due) WHERE owner IS NOT NULL",
        """
        CREATE TABLE {t}records (
            execution int8 NOT NULL,
            run int8 NOT NULL,
            position int8 NOT NULL,
            kind text NOT NULL,
            at float8 NOT NULL,
            data bytea NOT NULL,
            crc int8 NOT NULL,
            PRIMARY KEY (execution, run, position)
        )
        """,
        """
        CREATE TABLE {t}ended_runs (
            execution int8 NOT NULL, run int8 NOT NULL, records int8 NOT NULL, PRIMARY KEY (execution, run)
        )
        """,
        """
        CREATE TABLE {t}messages (
            execution int8 NOT NULL,
            number int8 NOT NULL,
            kind text NOT NULL,
            name text NOT NULL,
            at float8 NOT NULL,
            key text,
            payload bytea NOT NULL,
            crc int8 NOT NULL,
            PRIMARY KEY (execution, number)
        )
        """,
        """
        CREATE TABLE {t}message_keys (
            execution int8 NOT NULL, key text COLLATE "C" NOT NULL, number int8 NOT NULL, PRIMARY KEY (execution, key)
        )
        """,
        """
        CREATE TABLE {t}workers (
            worker text COLLATE "C" PRIMARY KEY,
            token text NOT NULL,
            lease float8 NOT NULL,
            robbed bool NOT NULL DEFAULT false
        )
        """,
    ),
    (
        'ALTER TABLE {t}executions ADD COLUMN claimed_as text COLLATE "C"',
        "DROP INDEX {t}executions_free",
        "DROP INDEX {t}executions_held",
        "CREATE INDEX {p}executions_free ON {t}executions (coalesce(claimed_as, workflow), due) "
        "WHERE owner IS NULL AND due IS NOT NULL",
        "CREATE INDEX {p}executions_held ON {t}executions (owner, coalesce(claimed_as, workflow), due) "
        "WHERE owner IS NOT NULL",
    ),
)
"""What each version of the tables adds to the one before, from nothing on."""

FORMAT = len(MIGRATIONS)
"""The version of the tables that this code reads and writes."""


def version(db: Connection, address: Address) -> int:
    """The version of the log's tables; 0 when there are none."""
    # to_regclass would answer from a cache that does not know yet what was made while the lock was waited for
    query = "SELECT 1 FROM pg_catalog.pg_tables WHERE schemaname = %s AND tablename = %s"
    if db.execute(query, (address.schema, f"{address.prefix}migrations")).fetchone() is None:
        return 0
    ((number,),) = db.execute(address.sql("SELECT coalesce(max(version), 0) FROM {t}migrations")).fetchall()
    return int(number)


def migrate(
    db: Connection, address: Address, migrations: Sequence[Sequence[str]] = MIGRATIONS
) -> tuple[int, int]:
    """Bring the tables to the version of this code; gives the version before and after.

    Raises FormatTooNew when they are beyond it.
    """
    db.isolation_level = psycopg.IsolationLevel.READ_COMMITTED  # what is there now, not when it began to wait
    with db.transaction():
        db.execute("SELECT pg_advisory_xact_lock(hashtext(%s))", (address.channel,))
        before = version(db, address)
        refuse_newer(before, address, len(migrations))
        if before < len(migrations):
            _create_schema(db, address)
            db.execute(
                address.sql(
                    "CREATE TABLE IF NOT EXISTS {t}migrations "
                    "(version int PRIMARY KEY, at timestamptz NOT NULL DEFAULT now())"
                )
            )
        for number in range(before, len(migrations)):
            for statement in migrations[number]:
                db.execute(address.sql(statement.replace("{p}", address.prefix)))
            db.execute(address.sql("INSERT INTO {t}migrations (version) VALUES (?)"), (number + 1,))
    return before, len(migrations)


def _create_schema(db: Connection, address: Address) -> None:
    """Make the schema unless it is there: a role that may only use its own could not.

    Logs of other prefixes, whose migrations have locks of their own, make it too: one at a time.
    """
    db.execute("SELECT pg_advisory_xact_lock(hashtext(%s))", (f"zart schema {address.schema}",))
    found = db.execute("SELECT 1 FROM pg_namespace WHERE nspname = %s", (address.schema,)).fetchone()
    if found is None:
        db.execute(address.sql(f'CREATE SCHEMA "{address.schema}"'))


def refuse_newer(found: int, address: Address, known: int = FORMAT) -> None:
    """Raise FormatTooNew when the tables are of a version that this code does not know."""
    if found > known:
        raise FormatTooNew(
            f"{address.where}: its tables have version {found}; this zart reads versions up to {known}: upgrade zart",
            where=address.where,
            expected=str(known),
            found=str(found),
        )


def prepare(db: Connection, address: Address, *, power: bool) -> bool:
    """Check server and tables, and make the tables where there are none.

    Gives whether transactions have to ask for a synchronous commit, because the server would not wait by itself.
    Raises StoreUnavailable for a server that does not keep what it acknowledges; FormatTooNew.
    """
    settings: dict[str, str] = dict(
        db.execute(
            "SELECT name, setting FROM pg_settings WHERE name IN "
            "('server_version_num', 'server_encoding', 'fsync', 'full_page_writes', 'synchronous_commit')"
        ).fetchall()
    )
    if int(settings["server_version_num"]) < VERSION_MIN:
        raise StoreUnavailable(f"{address.where}: the server is older than PostgreSQL 13")
    if settings["server_encoding"] != "UTF8":
        raise StoreUnavailable(
            f"{address.where}: the database has the encoding {settings['server_encoding']}; make one with UTF8"
        )
    weak = [name for name in ("fsync", "full_page_writes") if settings[name] != "on"]
    if power and weak:
        raise StoreUnavailable(
            f"{address.where}: the server runs with {' and '.join(weak)} off, so what it acknowledges may go with the "
            "power; turn them on, or ask for durability='process'"
        )
    found = version(db, address)
    refuse_newer(found, address)
    if found == 0:
        migrate(db, address)
    elif found < FORMAT:
        raise StoreUnavailable(
            f"{address.where}: its tables have version {found}, and this zart wants {FORMAT}; run: zart db migrate"
        )
    return power and settings["synchronous_commit"] == "off"


def server_settings(db: Connection) -> dict[str, str | int]:
    """What of the server and of this connection matters for what the log promises, as it is in the transaction at hand.

    Somebody stands in between when the process behind the connection is not the one that answered when it was made.
    """
    query = (
        "SELECT current_setting('server_version'), current_user::text, current_setting('synchronous_commit'), "
        "current_setting('fsync'), current_setting('full_page_writes'), pg_backend_pid()"
    )
    ((server, role, waits, fsync, whole_pages, pid),) = db.execute(query).fetchall()
    return {
        "server": server,
        "role": role,
        "pooler": "no" if pid == db.info.backend_pid else "yes",
        "synchronous_commit": waits,
        "fsync": fsync,
        "full_page_writes": whole_pages,
    }


# ---------------------------------------------------------------- errors

AGAIN = ("40001", "40P01", "55P03", "23505", "25P03")
"""States after which the whole transaction is tried again: serialization, deadlock, lock timeout, a new id that
another transaction took first (F17), and a process that stood still for so long that the server let go of it (F24)."""
FULL = ("53100", "53200")
TOO_LARGE = "54000"
"""A name or a key of more bytes than a row of an index may have, some 2,700 that cannot be compressed."""
LAST_WORDS = ("FATAL", "PANIC")
"""The severity of errors after which the server ends the connection."""
DAMAGE = ("XX001", "XX002")
UNPREPARED = ("26000", "42P05")
"""What a server says of a prepared statement that it does not know, or knows already: it was prepared elsewhere."""
STRANGE = ("42703", "42P07", "42P16", "42809")
"""What making or reading tables says where there are others of the same names."""


def unopened(error: psycopg.Error, address: Address) -> ZartError:
    """Say why a log cannot be opened."""
    what = weather(error, address.where)
    if error.sqlstate in STRANGE:
        return InvalidUse(
            f"{what}: that is somebody else's; give the log a schema of its own (?schema=zart), "
            "or a prefix (&prefix=zart_)"
        )
    return what


def is_lost(error: psycopg.Error) -> bool:
    """Tell whether the connection is gone, so that nobody knows what the server did after all.

    Such as the last word of a server that could not sync its log: what was to be committed may be in there.
    """
    state = error.sqlstate
    if error.diag.severity_nonlocalized in LAST_WORDS and state not in AGAIN:
        return True
    return isinstance(error, psycopg.OperationalError) and (state is None or state.startswith(("08", "57P")))


def is_quiet(db: Connection) -> bool:
    """Tell whether the server has said nothing since it was asked last, such as good-bye."""
    poll = select.poll()
    poll.register(db.fileno(), select.POLLIN)
    return not poll.poll(0)


def is_read_only(db: Connection) -> bool:
    """Tell whether the server has said (since PostgreSQL 14) that a connection to it cannot write."""
    told = map(db.info.parameter_status, ("in_hot_standby", "default_transaction_read_only"))
    return "on" in told


def weather(error: psycopg.Error, where: str) -> ZartError:
    """Say in our words what the driver reports; of the server's text only what cannot hold a payload."""
    state = error.sqlstate
    text = (
        error.diag.message_primary
        if state
        else str(error).strip().splitlines()[0]
        if str(error).strip()
        else ""
    )
    what = f"{state}: {text}" if state else f"{type(error).__name__}: {text}"
    if state in DAMAGE:
        return LogCorrupt(
            f"{where} is damaged ({what})", where=where, expected="a whole database", found=what
        )
    if state in UNPREPARED:
        what += "; a pooler in between seems to hand connections over: add &prepare=no to the URL"
    return StoreUnavailable(f"{where}: {what}")
