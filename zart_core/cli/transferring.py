"""`zart export`, `zart import` and `zart corpus`: executions as files, and back.

Rule 1: nothing is written into a store but by `import`, which refuses an id that is there.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from zart_core.cli.exits import OK
from zart_core.cli.reading import opened
from zart_core.cli.texts import as_json, columns, jsonable, plain, say
from zart_core.deploys.corpus import Choice, Corpus, Feature, corpus_of
from zart_core.deploys.histories import History, read_history, text_of, write_history
from zart_core.deploys.scrubbing import scrubbed
from zart_core.deploys.transfers import export_history, import_history
from zart_core.errors import InvalidUse


def export(ids: Sequence[str], url: str, folder: str, *, scrub: bool, keep: Sequence[str]) -> int:
    """Write executions as files, or one to stdout."""
    if keep and not scrub:
        raise InvalidUse("--keep says what --scrub leaves as it is; give both")
    if not folder and len(ids) > 1:
        raise InvalidUse("only one execution goes to stdout; give -o DIR for a file each")
    with opened(url) as log:
        for id in ids:
            history = cleaned(export_history(log, id), scrub, keep)
            if folder:
                say(plain(str(write_history(history, Path(folder)))))
            else:
                say(text_of(history).rstrip("\n"))
    return OK


def cleaned(history: History, scrub: bool, keep: Sequence[str]) -> History:
    """The history, without its data if so asked."""
    return scrubbed(history, keep) if scrub else history


def import_(places: Sequence[str], url: str, *, go_on: bool, json: bool) -> int:
    """Put executions from files into a store."""
    files = [file for place in places for file in files_of(Path(place))]
    histories = [read_history(file) for file in files]
    done: list[dict[str, Any]] = []
    with opened(url, new=True) as log:
        for history in histories:
            status = import_history(log, history, go_on=go_on)
            done.append({"id": history.id, "status": str(status), "events": sum(map(len, history.runs))})
            if not json:
                say(plain(f"{history.id}: {status}, {done[-1]['events']:,} events"))
    if json:
        say(as_json({"items": done}))
    return OK


def files_of(place: Path) -> list[Path]:
    """A file, or the .json files of a folder in the order of their names."""
    if not place.is_dir():
        return [place]
    files = sorted(place.glob("*.json"))
    if not files:
        raise InvalidUse(f"'{place}' holds no .json file; zart export -o writes some")
    return files


def corpus(url: str, folder: str, *, scrub: bool, keep: Sequence[str], json: bool) -> int:
    """Choose a small set of executions that covers all that was seen, and write it."""
    if keep and not scrub:
        raise InvalidUse("--keep says what --scrub leaves as it is; give both")
    with opened(url) as log:
        found = corpus_of(log)
        files = [
            str(write_history(cleaned(export_history(log, choice.id), scrub, keep), Path(folder)))
            for choice in found.choices
        ]
    if json:
        items = [choice_json(choice, file) for choice, file in zip(found.choices, files, strict=True)]
        say(as_json({"executions": found.executions, "unreadable": list(found.unreadable), "items": items}))
    else:
        show_corpus(found, files)
    return OK


def choice_json(choice: Choice, file: str) -> dict[str, Any]:
    """One choice as plain data."""
    adds = [{**jsonable(point), "outcome": outcome} for point, outcome in ordered(choice.adds)]
    return {"id": choice.id, "file": file, "events": choice.events, "adds": adds}


def ordered(features: frozenset[Feature]) -> list[Feature]:
    """Features in an order of their own: by workflow, then by place in the source."""
    return sorted(features, key=lambda feature: (feature[0].workflow, place(feature), feature[1]))


def place(feature: Feature) -> tuple[int, str, int, str]:
    """Where a feature stands; endings come last."""
    point, _ = feature
    site = point.site
    return (point.kind == "end", site.qualname if site else "", site.line if site else 0, point.name)


def show_corpus(found: Corpus, files: Sequence[str]) -> None:
    """Say what was chosen, and what each covers that those before it do not."""
    rows: list[tuple[str, ...]] = []
    for choice, file in zip(found.choices, files, strict=True):
        say(plain(f"{file}: {len(choice.adds)} more"))
        rows = [
            (
                f"  {point.workflow}" + (f" v{point.version}" if point.version > 1 else ""),
                point.kind,
                point.name,
                outcome,
                "" if point.site is None else str(point.site),
            )
            for point, outcome in ordered(choice.adds)
        ]
        for line in columns(rows):
            say(line.rstrip())
    points = {point for point, _ in found.features if point.kind != "end"}
    say(
        f"{len(found.choices):,} of {found.executions:,} executions cover all {len(points):,} yield points "
        f"and {len(found.features):,} outcomes seen"
    )
    if found.unreadable:
        say(plain(f"not looked at, since they cannot be read: {', '.join(found.unreadable)}"))
