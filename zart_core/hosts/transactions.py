"""Transactions of the user's in which the log writes too."""

from __future__ import annotations

from typing import Any

from zart_core import log as stored
from zart_core.errors import InvalidUse, StoreUnavailable
from zart_core.events import Ok
from zart_core.hosts.inline import conflict


def transactional(log: stored.EventLog) -> stored.Transactional:
    """The log as one that shares its transactions. Raises InvalidUse when it has none."""
    if not isinstance(log, stored.Transactional):
        raise InvalidUse(
            f"the store ({type(log).__name__}) has no transactions to share; "
            "keep the log in SQLite or PostgreSQL, in the database of the tables that are to go with it"
        )
    return log


def create_within(log: stored.EventLog, connection: Any, new: stored.New) -> bool:
    """Create an execution in the transaction that is open on a connection; False when this very one is there (R15).

    Raises ExecutionConflict, InvalidUse, StoreUnavailable; the transaction can go on then, unless it says otherwise.
    """
    match transactional(log).create_within(connection, new):
        case Ok(receipt):
            return receipt.created
        case stored.Rejected(reason) if reason.startswith("conflict"):
            raise conflict(new.id)
        case stored.Rejected(reason) if reason.startswith(("too-large", "invalid")):
            raise InvalidUse(f"execution '{new.id}' cannot be created: {reason}")
        case stored.Rejected(reason) | stored.Unknown(reason):
            raise StoreUnavailable(f"execution '{new.id}' was not created: {reason}")
