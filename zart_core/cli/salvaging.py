"""`zart salvage`: bring the whole part of a damaged store into a new one, and say what was lost."""

from __future__ import annotations

import attrs

from zart_core.cli.exits import OK
from zart_core.cli.texts import as_json, columns, plain, say
from zart_core.errors import InvalidUse
from zart_core.hosts.ports import salvager_of


def salvage(url: str, to: str, json: bool) -> int:
    """Bring the whole part of a damaged store out, and say what was lost. Raises InvalidUse, StoreLocked."""
    if not url or not to:
        raise InvalidUse("name the damaged store and, with --to, the directory of the new one")
    scheme, _, _ = url.partition(":")
    brought = salvager_of(url)(url, to if to.startswith(f"{scheme}:") else f"{scheme}:{to}")
    if json:
        say(as_json(attrs.asdict(brought)))
        return OK
    kept = f"{brought.writes:,} writes, {brought.executions:,} executions and {brought.records:,} records"
    say(f"brought over: {kept}")
    if brought.damage is None:
        say("no damage: nothing is lost")
        return OK
    say(plain(f"damage: {brought.damage}"))
    whole = sum(brought.lost_writes.values())
    say(
        f"lost: {brought.lost_bytes:,} bytes, with {whole:,} whole writes of {len(brought.lost_writes):,} executions"
    )
    for line in columns((id, f"{count:,} writes") for id, count in sorted(brought.lost_writes.items())):
        say(f"  {line}")
    return OK
