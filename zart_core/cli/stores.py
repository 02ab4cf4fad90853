"""How commands are told which store they use.

Rule 1: no password in the arguments of a process: everybody on the machine can read them (docs/rules.md).
"""

from __future__ import annotations

from urllib.parse import parse_qsl, urlsplit

import typer

from zart_core.errors import InvalidUse

PASSWORDS = frozenset({"password", "sslpassword"})
"""What a secret is called among the parameters of a URL."""


def no_secret(context: typer.Context, param: typer.CallbackParam, url: str) -> str:
    """Give the URL of a store as it was given. Raises InvalidUse for one with a password on the command line."""
    source = context.get_parameter_source(param.name or "")
    if source is not None and source.name == "COMMANDLINE" and has_password(url):
        raise InvalidUse(
            "the URL of the store holds a password, and everybody on this machine can read a command line: set "
            "ZART_STORE to this URL instead, or give the password as the database's own programs take it "
            "(PGPASSWORD, ~/.pgpass)"
        )
    return url


def has_password(url: str) -> bool:
    """Tell whether a URL holds a password, before its host or among its parameters; an empty one is none."""
    try:
        parts = urlsplit(url)
        return bool(parts.password) or any(name in PASSWORDS for name, _ in parse_qsl(parts.query))
    except ValueError:
        return False  # who opens it says what is wrong
