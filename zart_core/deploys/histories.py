"""A recorded history as a readable JSON file, and back: all runs of an execution, event for event.

Rule 1: what is read back encodes to the very bytes of the log: a payload that is no JSON of our own is kept as text.
Rule 2: whatever the file, reading gives a history, InvalidUse or FormatTooNew; nothing is imported because of it.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, cast
from urllib.parse import quote

import attrs
import msgspec

from zart_core import wire
from zart_core.deploys.private import private_and_ours
from zart_core.errors import FormatTooNew, InvalidUse, LogCorrupt
from zart_core.events import Event, Started, Status
from zart_core.log import Message, Record
from zart_core.records import record

FORMAT = 1
"""The number of this file format."""
NAME_CHARS_MAX = 120


@record
class History:
    """All there is of one execution."""

    id: str
    workflow: str
    status: Status
    reason: str
    runs: Sequence[Sequence[Event]]
    """The events of each run, from run 0 on."""
    inbox: Sequence[Message] = attrs.field(factory=list[Message])
    """Messages that no turn has consumed."""
    scrubbed: bool = False
    """Whether the leaves of its payloads were replaced."""


class EventLine(msgspec.Struct, omit_defaults=True, forbid_unknown_fields=True):
    """One event in a file. One of `payload`, `text` and `base64` is there, or none where the event has no payload."""

    event: str
    at: float
    fields: dict[str, Any]
    payload: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    text: str | None = None
    base64: str | None = None


class MessageLine(msgspec.Struct, omit_defaults=True, forbid_unknown_fields=True):
    """One message of the inbox in a file."""

    number: int
    kind: str
    name: str
    at: float
    key: str | None = None
    payload: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    text: str | None = None
    base64: str | None = None


class HistoryFile(msgspec.Struct, omit_defaults=True, forbid_unknown_fields=True):
    """A whole file."""

    zart_history: int
    id: str
    workflow: str
    status: Status
    runs: list[list[EventLine]]
    reason: str = ""
    scrubbed: bool = False
    inbox: list[MessageLine] = []


class Head(msgspec.Struct):
    """What tells whether it is a history at all."""

    zart_history: int


# ---------------------------------------------------------------- to text


def text_of(history: History) -> str:
    """The history as JSON: one event a line."""
    head = {
        "zart_history": FORMAT,
        "id": history.id,
        "workflow": history.workflow,
        "status": str(history.status),
        "reason": history.reason,
        "scrubbed": history.scrubbed,
    }
    lines = [f"  {quoted(name)}: {quoted(value)}," for name, value in head.items()]
    runs = [bracketed([event_line(event) for event in run], "    ") for run in history.runs]
    inbox = bracketed([message_line(message) for message in history.inbox], "  ")
    text = "\n".join(["{", *lines, f'  "runs": {bracketed(runs, "  ")},', f'  "inbox": {inbox}', "}", ""])
    return text if text.isascii() and "\x7f" not in text else "".join(map(escaped, text))


def event_line(event: Event) -> str:
    """One event as a line of JSON."""
    (record,) = wire.encode_events([event])
    line, newline, payload = record.data.partition(b"\n")
    parts = [f'"event": {quoted(record.kind)}', f'"at": {number(record.at)}', f'"fields": {spaced(line)}']
    return "{" + ", ".join([*parts, *(payload_of(payload) if newline else [])]) + "}"


def message_line(message: Message) -> str:
    """One message as a line of JSON."""
    parts = [
        f'"number": {message.number}',
        f'"kind": {quoted(message.kind)}',
        f'"name": {quoted(message.name)}',
        f'"at": {number(message.at)}',
        *([f'"key": {quoted(message.key)}'] if message.key is not None else []),
    ]
    return "{" + ", ".join([*parts, *payload_of(message.payload)]) + "}"


def payload_of(data: bytes) -> list[str]:
    """A payload as JSON where that gives the same bytes again, else as text, else as base64."""
    try:
        if msgspec.json.encode(msgspec.json.decode(data)) == data:
            return [f'"payload": {spaced(data)}']
    except (msgspec.MsgspecError, ValueError, RecursionError):
        pass
    try:
        return [f'"text": {quoted(data.decode())}']
    except UnicodeDecodeError:
        return [f'"base64": {quoted(base64.b64encode(data).decode())}']


def quoted(value: object) -> str:
    """A plain value as JSON."""
    return json.dumps(value, ensure_ascii=False)


def number(at: float) -> str:
    """A time as JSON that reads back as the same float."""
    return msgspec.json.encode(at).decode()


def spaced(data: bytes) -> str:
    """Compact JSON with spaces, for people; the values stay byte for byte."""
    return msgspec.json.format(data, indent=0).decode()


def escaped(character: str) -> str:
    """A character that no terminal minds; what is not printable stands in strings only, and may be escaped there."""
    if character.isprintable() or character == "\n":
        return character
    return json.dumps(character)[1:-1] if character > "\x7f" else f"\\u{ord(character):04x}"


def bracketed(items: Sequence[str], margin: str) -> str:
    """Items in brackets, each on lines of its own."""
    if not items:
        return "[]"
    inner = f",\n{margin}  ".join(items)
    return f"[\n{margin}  {inner}\n{margin}]"


# ---------------------------------------------------------------- from text


def history_of(text: str | bytes, where: str = "the text") -> History:
    """The history of a file's text. Raises InvalidUse for what is none, and FormatTooNew."""
    data = text.encode(errors="surrogateescape") if isinstance(text, str) else text
    try:
        format = msgspec.json.decode(data, type=Head).zart_history
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise InvalidUse(f"{where} is no history that zart export wrote: {error}") from None
    if format != FORMAT:
        raise FormatTooNew(f"{where} has format {format}; this version knows {FORMAT}")
    try:
        file = msgspec.json.decode(data, type=HistoryFile)
        runs = [events_of(lines, file.id, run) for run, lines in enumerate(file.runs)]
        inbox = [message_of(line) for line in file.inbox]
    except FormatTooNew:
        raise
    except (msgspec.MsgspecError, LogCorrupt, ValueError, RecursionError) as error:
        raise InvalidUse(f"{where} cannot be read: {error}") from None
    history = History(file.id, file.workflow, file.status, file.reason, runs, inbox, file.scrubbed)
    refuse_mixed(history, where)
    return history


def refuse_mixed(history: History, where: str) -> None:
    """Raise InvalidUse unless each run begins as a run of this execution does."""
    if not history.runs:
        raise InvalidUse(f"{where} holds no run")
    for number, run in enumerate(history.runs):
        first = run[0] if run else None
        if not isinstance(first, Started) or (first.id, first.run) != (history.id, number):
            raise InvalidUse(f"{where}: run {number} does not begin with its Started event")


def events_of(lines: Iterable[EventLine], id: str, run: int) -> list[Event]:
    """The events of a run."""
    return wire.decode_events([record_of(line) for line in lines], id, run)


def record_of(line: EventLine) -> Record:
    """The record of an event, byte for byte as it stood in a log."""
    head = msgspec.json.encode(line.fields)
    payload = bytes_of(line)
    return Record(line.event, line.at, head if payload is None else head + b"\n" + payload)


def message_of(line: MessageLine) -> Message:
    """A message of the inbox."""
    kinds = ("event", "child", "cancel", "terminate")
    if line.kind not in kinds:
        raise ValueError(f"a message is one of {', '.join(kinds)}, not {line.kind!r}")
    return Message(line.number, cast("Any", line.kind), line.name, bytes_of(line) or b"", line.at, line.key)


def bytes_of(line: EventLine | MessageLine) -> bytes | None:
    """The payload's bytes."""
    if line.text is not None:
        return line.text.encode()
    if line.base64 is not None:
        return base64.b64decode(line.base64, validate=True)
    if isinstance(line.payload, msgspec.UnsetType):
        return None
    return msgspec.json.encode(msgspec.json.decode(line.payload))


# ---------------------------------------------------------------- files


def file_name(id: str) -> str:
    """A file name for an execution, whatever its id: nothing in it is a path."""
    name = quote(id, safe="")
    if len(name) > NAME_CHARS_MAX:
        digest = hashlib.blake2b(id.encode(errors="surrogatepass"), digest_size=8).hexdigest()
        name = f"{name[:NAME_CHARS_MAX]}-{digest}"
    return f"{name}.json"


def read_history(path: Path | str) -> History:
    """The history in a file. Raises InvalidUse for what is none, and FormatTooNew."""
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise InvalidUse(f"'{path}' cannot be read: {error.strerror}") from error
    return history_of(data, f"'{path}'")


def write_history(history: History, folder: Path) -> Path:
    """Write a history into a folder, in place of an older one of the same execution. Raises InvalidUse.

    It holds payloads: the file's mode is 0600, that of a folder which is made 0700.
    """
    path = folder / file_name(history.id)
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with open(path, "w", encoding="utf-8", opener=private_and_ours) as file:
            file.write(text_of(history))
    except OSError as error:
        raise InvalidUse(f"'{path}' cannot be written: {error.strerror}") from error
    return path
