"""The commands and their options. What they do stands in `running`, `reading` and `show`."""

from __future__ import annotations

import importlib.metadata
import sys
from pathlib import Path
from typing import Annotated

import typer

from zart_core.cli import (
    checking,
    database,
    debugging,
    forking,
    pictures,
    reading,
    running,
    salvaging,
    transferring,
)
from zart_core.cli import show as shown
from zart_core.cli.exits import EXIT_CODES, OK, USAGE, Ended
from zart_core.cli.stores import no_secret
from zart_core.cli.texts import as_json, plain, say
from zart_core.deploys.versions import versions_in
from zart_core.errors import InvalidUse, LogCorrupt
from zart_core.events import Status
from zart_core.hosts.engine import status_of
from zart_core.hosts.offers import page_of
from zart_core.interpreter import CODEC
from zart_core.log import EventLog, MessageKind
from zart_core.queues import queues_of

app = typer.Typer(
    name="zart",
    help="Run durable workflows, and look after them.",
    epilog=EXIT_CODES,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

app.add_typer(database.app, name="db")

Store = Annotated[
    str,
    typer.Option(
        "--store",
        envvar="ZART_STORE",
        callback=no_secret,
        help="Where executions are kept, such as sqlite:orders.db.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
Id = Annotated[str, typer.Argument(metavar="ID", help="The execution's id.")]
IdOrFile = Annotated[
    str, typer.Argument(metavar="ID_OR_FILE", help="The execution's id, or a .json file of zart export.")
]
NewId = Annotated[str | None, typer.Option("--id", help="The execution's id; a new one by default.")]
Target = Annotated[
    str,
    typer.Argument(
        metavar="MODULE_OR_FILE[:WORKFLOW]", help="Where the workflow is, by dotted path or file."
    ),
]
Input = Annotated[
    str | None,
    typer.Argument(metavar="[INPUT_JSON]", help="The workflow's input as JSON; - reads it from stdin."),
]
Reason = Annotated[str, typer.Option("--reason", help="Why; it is recorded.")]

Modules = Annotated[list[str], typer.Argument(metavar="MODULE_OR_FILE...", help="Where the workflows are.")]
Run = Annotated[int | None, typer.Option("--run", help="Which run; the current one by default.")]
Hide = Annotated[
    list[str] | None,
    typer.Option(
        "--hide",
        metavar="NAME",
        help="Hide values: of this variable, field, key or step, and what events hold without a name.",
    ),
]


def invoke(arguments: list[str]) -> int | None:
    """Run one command; gives its exit code, or raises what went wrong."""
    code: int | None = typer.main.get_command(app).main(
        arguments or ["--help"], prog_name="zart", standalone_mode=False
    )
    return code


def print_version(wanted: bool) -> None:
    """Print the version and end."""
    if wanted:
        say(f"zart {importlib.metadata.version('zart')}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=print_version, is_eager=True, help="Print the version and end."),
    ] = False,
) -> None:
    """Take the options that stand before a command."""


@app.command()
def run(
    target: Target,
    input: Input = None,
    store: Store = "",
    id: NewId = None,
    concurrency: Annotated[int, typer.Option(min=1, help="Steps that run at once.")] = 64,
    json: Json = False,
) -> int:
    """Run an execution to its end, or attach to it and resume it.

    Without INPUT_JSON an execution that exists is resumed by its --id. The last line is the result, as JSON.
    Other unfinished executions of the module's workflows go on meanwhile. Ctrl-C ends it within a second, and
    nothing is lost.
    """
    return running.run(target, input, store, id, concurrency, json)


@app.command()
def worker(
    modules: Annotated[
        list[str], typer.Argument(metavar="MODULE_OR_FILE...", help="Where the workflows are.")
    ],
    store: Store = "",
    concurrency: Annotated[int, typer.Option(min=1, help="Steps that run at once.")] = 64,
    lease: Annotated[
        str,
        typer.Option(metavar="DURATION", help="How long what it holds stays its own when it falls silent."),
    ] = "30s",
    queue: Annotated[
        list[str],
        typer.Option(
            "--queue", help="Whose steps run here; may be given again. Without 'default' nothing but steps."
        ),
    ] = ["default"],  # noqa: B006  # typer reads it, nobody changes it
    queue_limit: Annotated[
        list[str] | None,
        typer.Option(
            metavar="QUEUE=N",
            help="How many steps of a queue run at once, over all workers that say so; may be given again.",
        ),
    ] = None,
    queue_rate: Annotated[
        list[str] | None,
        typer.Option(
            metavar="QUEUE=N/TIME",
            help="How many begin in a time, over all workers that say so, such as gpu=10/s; may be given again.",
        ),
    ] = None,
) -> int:
    """Take up executions of these modules' workflows, for ever, beside any number of other workers.

    SIGTERM and Ctrl-C hand over what runs and end within a second, with code 0; nothing is lost. What a worker that
    was killed had taken is taken up by others: at once on one machine, after its lease on several.
    """
    queues = queues_of(queue, queue_limit or [], queue_rate or [])
    return running.work(modules, store, concurrency, lease, queues)


@app.command()
def start(
    target: Target, input: Input = None, store: Store = "", id: NewId = None, json: Json = False
) -> int:
    """Record an execution durably, without running it; print its id."""
    return running.start(target, input, store, id, json)


@app.command()
def send(
    id: Id,
    event: Annotated[str, typer.Argument(metavar="EVENT", help="The event's name.")],
    payload: Annotated[
        str, typer.Argument(metavar="[JSON]", help="The payload; - reads it from stdin.")
    ] = "null",
    store: Store = "",
    key: Annotated[str | None, typer.Option(help="The same key again has no effect.")] = None,
    json: Json = False,
) -> int:
    """Deliver an event to an execution; it is kept until the execution waits for it."""
    text = running.read_text(payload) or "null"
    value = CODEC.decode(text.encode(errors="surrogateescape"), object, "payload")
    with reading.opened(store) as log:
        created = reading.send(log, id, event, value, key)
    said = "sent" if created else "this key was sent before; nothing changes"
    say(as_json({"id": id, "event": event, "accepted": True, "new": created}) if json else said)
    return OK


@app.command("list")
def list_(
    store: Store = "",
    status: Annotated[str | None, typer.Option(help="Only those of this status.")] = None,
    workflow: Annotated[str | None, typer.Option(help="Only those of this workflow.")] = None,
    prefix: Annotated[str | None, typer.Option(help="Only those whose id begins so.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many at the most.")] = 100,
    after: Annotated[str | None, typer.Option(help="Begin after this id.")] = None,
    versions: Annotated[
        bool, typer.Option("--versions", help="What still runs on which version of its workflow, instead.")
    ] = False,
    json: Json = False,
) -> int:
    """List executions in the order of their ids."""
    if versions:
        if status or workflow or prefix or after:
            raise InvalidUse("--versions looks at every unfinished execution; leave the other filters out")
        with reading.opened(store) as log:
            shown.show_versions(versions_in(log), json)
        return OK
    wanted = None if status is None else status_of(status)
    with reading.opened(store) as log:
        page = page_of(log, status=wanted, workflow=workflow, id_prefix=prefix, limit=limit, after=after)
        reasons = {item.id: shown.reason_for(log, item) for item in page.items}
    shown.show_list(page, reasons, json)
    return OK


@app.command()
def show(id: Id, store: Store = "", json: Json = False) -> int:
    """Show an execution: status, steps with attempts and durations, what it waits for and at which line."""
    with reading.opened(store) as log:
        shown.show(log, id, json)
    return OK


@app.command()
def explain(id: Id, store: Store = "", json: Json = False) -> int:
    """Say what an execution waits for: at which line, since when, until when, and who can end the wait.

    A wait that nobody will end as things stand is said to be one. For one that failed: what failed, and in which line.
    """
    with reading.opened(store) as log:
        shown.explain(log, id, store, json)
    return OK


@app.command()
def history(
    id: Id,
    store: Store = "",
    run: Annotated[int | None, typer.Option(help="Which run; the current one by default.")] = None,
    json: Json = False,
) -> int:
    """Print the events of an execution."""
    with reading.opened(store) as log:
        shown.history(log, id, run, json)
    return OK


@app.command()
def check(
    modules: Annotated[
        list[str], typer.Argument(metavar="MODULE_OR_FILE...", help="Where the workflows of the deploy are.")
    ],
    store: Store = "",
    relaxed: Annotated[
        bool, typer.Option("--relaxed", help="Compare kinds and names only, as a running engine does.")
    ] = False,
    junit: Annotated[
        str, typer.Option("--junit", metavar="FILE", help="Write JUnit XML to this file, too.")
    ] = "",
    json: Json = False,
) -> int:
    """Replay every unfinished execution against the code at hand, and say which would be parked.

    Nothing is claimed or written, and workers may go on meanwhile. The exit code is 5 when something would be parked.
    """
    return checking.check(modules, store, relaxed=relaxed, junit=junit, json=json)


@app.command()
def debug(
    id: IdOrFile,
    modules: Modules,
    store: Store = "",
    run: Run = None,
    at: Annotated[
        str | None, typer.Option(metavar="K", help="Show the moment after K events (or first, last) and end.")
    ] = None,
    hide: Hide = None,
    json: Json = False,
) -> int:
    """Go through a run event by event, forward and back: its code, its variables, what changed.

    Works for runs that have ended, wait or are parked, also while workers run: nothing is claimed or written. Values
    are shown. Commands are read from a pipe, too; help lists them. With --json one moment is printed, the last by
    default.
    """
    return debugging.debug(id, modules, store, run, at, hide or [], json)


Scrub = Annotated[
    bool, typer.Option("--scrub", help="Replace the leaves of payloads; types, names and ids stay.")
]
Keep = Annotated[
    list[str] | None, typer.Option("--keep", metavar="FIELD", help="A field that --scrub leaves as it is.")
]


@app.command()
def export(
    ids: Annotated[list[str], typer.Argument(metavar="ID...", help="The executions.")],
    store: Store = "",
    output: Annotated[
        str,
        typer.Option("-o", "--output", metavar="DIR", help="A folder for a file each, in place of stdout."),
    ] = "",
    scrub: Scrub = False,
    keep: Keep = None,
) -> int:
    """Write executions as readable JSON, all their runs and events; workers may go on meanwhile."""
    return transferring.export(ids, store, output, scrub=scrub, keep=keep or [])


@app.command("import")
def import_(
    files: Annotated[
        list[str], typer.Argument(metavar="FILE_OR_DIR...", help="What zart export wrote, or folders of it.")
    ],
    store: Store = "",
    go_on: Annotated[
        bool,
        typer.Option("--go-on", help="Let unfinished ones go on here: steps without an outcome run again."),
    ] = False,
    json: Json = False,
) -> int:
    """Put exported executions into a store, event for event; an id that is there is refused.

    Unfinished ones are paused, unless they are told to go on.
    """
    return transferring.import_(files, store, go_on=go_on, json=json)


@app.command()
def corpus(
    output: Annotated[str, typer.Option("-o", "--output", metavar="DIR", help="Where the files go.")],
    store: Store = "",
    scrub: Scrub = False,
    keep: Keep = None,
    json: Json = False,
) -> int:
    """Pick a small set of executions that covers every yield point and kind of outcome in a store, and export it."""
    return transferring.corpus(store, output, scrub=scrub, keep=keep or [], json=json)


@app.command()
def fork(
    id: IdOrFile,
    modules: Modules,
    store: Store = "",
    run: Run = None,
    at: Annotated[
        int | None,
        typer.Option(metavar="K", help="How many events to keep; fewer where a turn may not end there."),
    ] = None,
    set: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="NAME=JSON", help="The outcome of a step or event; NAME=- reads it from stdin."
        ),
    ] = None,
    fail: Annotated[
        list[str] | None,
        typer.Option("--fail", metavar="NAME=TEXT", help="Let a step fail, or a wait time out."),
    ] = None,
    new_id: NewId = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Write nothing; say what would follow.")] = False,
    steps: Annotated[
        str,
        typer.Option("--steps", metavar="MODULE:NAME", help="For --dry-run: a mapping of steps to fakes."),
    ] = "",
    send: Annotated[
        list[str] | None,
        typer.Option("--send", metavar="EVENT=JSON", help="For --dry-run: an event that comes at once."),
    ] = None,
    json: Json = False,
) -> int:
    """Copy a run up to an event, with other outcomes if wanted, and let the copy go on from there.

    The copy is a new execution, which a worker takes up and runs for real; the original is not touched. With --dry-run
    nothing is written and no step runs: it goes on in virtual time with the outcomes given, and says what it would
    call next. Without --at it is cut before the first outcome that is replaced.
    """
    wish = forking.Wish(at, set or [], fail or [], steps, send or [])
    return forking.fork(id, modules, store, run, wish, new_id, dry_run=dry_run, json=json)


@app.command()
def timeline(
    id: IdOrFile,
    modules: Annotated[
        list[str] | None,
        typer.Argument(metavar="[MODULE_OR_FILE...]", help="Where its workflow is: to nest steps by flow."),
    ] = None,
    store: Store = "",
    run: Run = None,
    out: Annotated[
        str,
        typer.Option(
            "-o", "--output", metavar="FILE", help="An .svg or .html file; SVG on stdout by default."
        ),
    ] = "",
) -> int:
    """Draw a run over time: attempts, retries, waits, flows, takeovers. One file, no scripts, for light and dark."""
    return pictures.draw_timeline(id, modules or [], store, run, out)


@app.command()
def graph(
    workflow: Annotated[
        str,
        typer.Argument(
            metavar="WORKFLOW_OR_FILES",
            help="The workflow's name; or a .json file of zart export, or a folder/ of them.",
        ),
    ],
    store: Store = "",
    limit: Annotated[int, typer.Option(min=1, help="How many executions at the most.")] = 1000,
    out: Annotated[
        str,
        typer.Option(
            "-o", "--output", metavar="FILE", help="An .svg, .mmd or .md file; else Mermaid on stdout."
        ),
    ] = "",
) -> int:
    """Draw the tree of steps that runs of a workflow have taken, with counts and outcomes."""
    return pictures.draw_graph(workflow, store, limit, out)


@app.command()
def cancel(id: Id, store: Store = "", reason: Reason = "", json: Json = False) -> int:
    """Ask an execution to cancel: it unwinds, and compensates where it says so."""
    with reading.opened(store) as log:
        return request(log, id, "cancel", reason, json)


@app.command()
def terminate(
    id: Id,
    store: Store = "",
    reason: Reason = "",
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    json: Json = False,
) -> int:
    """End an execution at once, without its code: nothing is unwound or compensated. Asks first."""
    with reading.opened(store) as log:
        reading.summary_of(log, id)
        if not yes:
            confirm(id)
        return request(log, id, "terminate", reason, json)


@app.command()
def lint(
    targets: Annotated[
        list[str],
        typer.Argument(metavar="PATH_OR_MODULE...", help="Files, folders, dotted names of modules."),
    ],
    select: Annotated[
        list[str] | None, typer.Option(help="Only these rules: ZT101, or ZT1 for all that begin so.")
    ] = None,
    ignore: Annotated[list[str] | None, typer.Option(help="Not these rules.")] = None,
    format: Annotated[str, typer.Option("--format", help="text, json, github or sarif.")] = "text",
) -> int:
    """Find in the source of workflows what would not come out the same twice; nothing of it is imported or run.

    Looks through functions decorated with @zart.workflow, the flows they run and the functions they call, in other
    modules too. A comment `# zart: ignore[ZT101] why` silences a finding. Exits with 1 when there is one.
    """
    from zart_core.cli import linting  # here, so that other commands start sooner

    return linting.lint(targets, select or [], ignore or [], format)


@app.command()
def perturb(
    targets: Annotated[
        list[str],
        typer.Argument(metavar="MODULE_OR_FILE...", help="Where the workflows are, by dotted path or file."),
    ],
    store: Store = "",
    id: Annotated[
        list[str] | None, typer.Option(help="Only this execution; may be given several times.")
    ] = None,
    history: Annotated[
        list[str] | None,
        typer.Option(metavar="FILE_OR_FOLDER", help="Histories that zart export wrote, in place of a store."),
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, help="How many perturbed processes.")] = 3,
    kind: Annotated[
        list[str] | None, typer.Option(help="Only this perturbation; several times for several.")
    ] = None,
    json: Json = False,
) -> int:
    """Replay histories in processes with another clock, hash seed, random numbers, environment, folder, locale, zone.

    What the code then decides otherwise is printed with its event, its line, both sides and the cause. Nothing is
    written and no step runs. Exits with 5 when there is a difference.
    """
    from zart_core.cli import perturbing  # here, so that other commands start sooner

    return perturbing.perturb(targets, store, id or [], history or [], rounds, kind, json)


@app.command()
def doctor(
    place: Annotated[
        str,
        typer.Argument(metavar="[STORE]", callback=no_secret, help="The store's URL, in place of --store."),
    ] = "",
    store: Store = "",
    directory: Annotated[
        Path | None, typer.Option(help="Examine this directory's disk, not the one that the store is on.")
    ] = None,
    power_loss: Annotated[
        bool, typer.Option("--power-loss", help="Record the store's system calls, and lose power at each.")
    ] = False,
    states: Annotated[int, typer.Option(min=1, help="With --power-loss: states to try.")] = 1000,
    json: Json = False,
) -> int:
    """Say what a store promises on this machine, and whether the machine lets it keep that.

    Looks at level and settings, the file system, syncs, locks between processes, room and clock. There need not be
    a store yet. --power-loss needs strace: a small workload is recorded in a directory beside the store, the files
    that a loss of power may leave are rebuilt, opened and compared with what had been acknowledged. Exits with 4
    when the promise cannot be kept.
    """
    from zart_core.cli.doctor import doctor as examine  # here, so that other commands start sooner

    return examine(place or store, directory, power_loss, states, json)


@app.command()
def salvage(
    place: Annotated[
        str,
        typer.Argument(metavar="[STORE]", callback=no_secret, help="The damaged store, in place of --store."),
    ] = "",
    to: Annotated[
        str,
        typer.Option(
            callback=no_secret,
            help="The new directory, or a URL of the same scheme; it must not be there yet.",
        ),
    ] = "",
    store: Store = "",
    json: Json = False,
) -> int:
    """Bring every whole write before the first damage of a store out into a new one; list what was lost.

    Nothing of the damaged store is changed. What lies behind the damage is not brought over: it was written in the
    knowledge of what is lost.
    """
    return salvaging.salvage(place or store, to, json)


@app.command()
def verify(
    place: Annotated[
        str,
        typer.Argument(metavar="[STORE]", callback=no_secret, help="The store's URL, in place of --store."),
    ] = "",
    store: Store = "",
    json: Json = False,
) -> int:
    """Read a whole store and check it: print counts, or where it is damaged."""
    try:
        with reading.opened(place or store) as log:
            counts = log.verify()
    except LogCorrupt as damage:
        if json:
            found = {"where": damage.where, "expected": damage.expected, "found": damage.found}
            say(as_json({"ok": False, "damage": {"message": str(damage), **found}}))
        raise
    say(
        as_json({"ok": True, **counts})
        if json
        else "no damage; " + ", ".join(f"{n:,} {what}" for what, n in counts.items())
    )
    return OK


def confirm(id: str) -> None:
    """Ask before what cannot be undone. Raises Ended."""
    if not sys.stdin.isatty():
        raise Ended(
            USAGE, f"terminate ends '{id}' without unwinding it; add --yes to do it without being asked"
        )
    print(f"End '{plain(id)}' at once, without unwinding it? [y/N] ", end="", file=sys.stderr, flush=True)  # noqa: T201
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise Ended(USAGE, "nothing was done")


def request(log: EventLog, id: str, kind: MessageKind, reason: str, json: bool) -> int:
    """Ask for the end of an execution, and say when it takes effect."""
    accepted = reading.request(log, id, kind, reason)
    summary = reading.summary_of(log, id)
    if json:
        say(as_json({"id": id, "accepted": accepted, "held": summary.owner is not None}))
    elif not accepted:
        say(f"it had ended before: {summary.status}")
    elif summary.status is Status.PAUSED:
        say(f"asked to {kind}; it is paused, and no process takes it up while it is")
    elif summary.owner is None:
        say(f"asked to {kind}; no process runs it now, so this takes effect when one does")
    else:
        say(f"asked to {kind}")
    return OK
