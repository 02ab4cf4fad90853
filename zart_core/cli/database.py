"""`zart db status` and `zart db migrate`: the version of a store's tables, and how it is raised.

Rule 1: a store whose tables have versions offers `migrate(url, dry)` in the entry point group `zart.migrations`.
"""

from __future__ import annotations

from typing import Annotated

import typer

from zart_core.cli.exits import OK, STORE
from zart_core.cli.stores import no_secret
from zart_core.cli.texts import as_json, say
from zart_core.errors import InvalidUse
from zart_core.hosts.ports import offered

app = typer.Typer(help="Look after the tables of a store in a database.", rich_markup_mode=None)

Store = Annotated[
    str,
    typer.Option(
        "--store",
        envvar="ZART_STORE",
        callback=no_secret,
        help="The store, such as postgresql://me@host/orders.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]


@app.command()
def status(store: Store = "", json: Json = False) -> int:
    """Print the version of the store's tables and the one that this zart wants; code 4 when they differ."""
    found, wanted = versions(store, dry=True)
    if json:
        say(as_json({"version": found, "wanted": wanted}))
    elif found == wanted:
        say(f"version {found}, as it should be")
    elif found == 0:
        say(f"there are no tables yet; zart db migrate makes them, in version {wanted}")
    elif found > wanted:
        say(f"version {found}; this zart knows versions up to {wanted}: upgrade zart")
    else:
        say(f"version {found}; this zart wants {wanted}: run zart db migrate")
    return OK if found == wanted else STORE


@app.command()
def migrate(store: Store = "", json: Json = False) -> int:
    """Bring the store's tables to the version that this zart wants, in one transaction."""
    before, after = versions(store, dry=False)
    if json:
        say(as_json({"before": before, "after": after}))
    else:
        say(f"version {after} already" if before == after else f"version {before} is now {after}")
    return OK


def versions(url: str, *, dry: bool) -> tuple[int, int]:
    """The version that is found, and the one that is wanted; both are the same after a migration."""
    if not url:
        raise InvalidUse("no store is given; add --store URL, or set ZART_STORE")
    offer = offered("zart.migrations", url)
    if offer is None:
        raise InvalidUse(
            f"the store of '{url.partition(':')[0]}:' has no tables to migrate: it looks after its format by itself"
        )
    found, wanted = offer(url, dry=dry)
    return int(found), int(wanted)
