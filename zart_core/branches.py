"""The generators of a run, their queue, and cancellation: the only file that touches a generator.

Rule 1: runnable branches form one queue, first in first out; a branch runs until it waits. `schedule` puts the new
        branch at the end and goes on. One fact wakes waiters in the order in which they began to wait.
Rule 2: a branch asks for things by putting a node into `wanted`; only the interpreter takes it out again.
Rule 3: cancellation strikes innermost branches first, newest first, each once, each owner after its own (R18);
        nothing that a branch started outlives it (R24).
"""

# What a workflow yields is of any type, and pyright takes what a `match` makes of Any for unknown.
# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false, reportUnknownVariableType=false

from __future__ import annotations

import dis
import functools
import inspect
from collections.abc import Callable, Iterable, Iterator, Sequence
from types import CodeType, GeneratorType
from typing import Any, Protocol, TypeAlias, cast

from zart_core import commands as c
from zart_core.empties import NO_ENTRIES, NO_ITEMS, added, put
from zart_core.errors import Cancelled, Defect, DuplicateName, InvalidUse, NotACommand
from zart_core.events import Issued, Site, Status
from zart_core.records import record
from zart_core.waiting import Wait

Where: TypeAlias = tuple[CodeType, int, dict[str, Any]]
"""Where a generator stood: code, instruction, globals. Turned into a Site only when somebody looks."""

COMMAND_CODE = c.Command.__iter__.__code__
OWN_CODE = frozenset((COMMAND_CODE, *(fn.__code__ for fn in (c.outcome, c.step_or, c.step_or_else))))
"""Generators that are no flow of an author's. To look one up takes 0.15 us: Python hashes all of its code."""
PASSES_THROUGH = (KeyboardInterrupt, SystemExit, GeneratorExit, MemoryError, Defect)
"""What leaves a workflow without ending its run: the process is stopping, or a developer has to act."""
CLOSE_ATTEMPTS_MAX = 100
DELEGATES = dis.opmap["GET_YIELD_FROM_ITER"]
"""The instruction that begins a `yield from`."""
LEFT_BEHIND = Cancelled("nobody waited for it any more")


@record
class Progress:
    """How far a step has come, as its log says. Replaced, never changed: most steps share FIRST_ATTEMPT."""

    attempt: int = 0
    """The attempt that runs, or is next to run, counted from 0."""
    began: bool = False
    """Whether that attempt's start is on record."""
    retry_at: float | None = None
    """When that attempt is due, after a failed one."""
    deadline: float | None = None
    """The GLOBAL deadline, fixed at the first start (R7)."""
    taken_over: bool = False
    """Whether the last start on record followed a crash."""
    crashes: int = 0
    """Crashes held against the step, as of the last start on record (R5)."""
    handed_over: bool = False
    """Whether the worker that started it gave it back on purpose."""
    elsewhere: bool = False
    """Whether it was put where any worker may take it; its own execution says how far it has come there."""


NOT_BEGUN = Progress()
FIRST_ATTEMPT = Progress(began=True)


class Node:
    """Something that may be waited for: one command, or one branch with its flow."""

    __slots__ = (
        "branch",
        "command",
        "dropping",
        "error",
        "issued",
        "kind",
        "name",
        "owner",
        "progress",
        "seq",
        "settled",
        "value",
        "waiters",
        "where",
    )
    issued: Issued
    """What its command became in the log; there from then on."""

    def __init__(self, command: Any, kind: str, name: str, owner: Branch | None, where: Where) -> None:
        self.command = command
        self.kind = kind
        self.name = name
        self.owner = owner
        self.where = where
        self.seq = -1
        """The number of its Issued; -1 until that is in the log."""
        self.settled = False
        self.value: Any = None
        self.error: BaseException | None = None
        self.waiters: list[Branch] = NO_ITEMS
        self.progress = NOT_BEGUN
        self.branch: Branch | None = None
        self.dropping = False
        """Whether it has been told to end."""

    @property
    def title(self) -> str:
        """What it is, for messages."""
        return f"{self.kind} '{self.name}'" if self.name else self.kind

    @property
    def shielded(self) -> bool:
        """Whether cancellation waits for it."""
        return self.branch is not None and self.branch.shielded


class Withdrawal:
    """A wanted decision: the command is cancelled."""

    __slots__ = ("node", "settled")

    def __init__(self, node: Node) -> None:
        self.node = node
        self.settled = False


class Taking:
    """A wanted decision: an event wait takes delivery n."""

    __slots__ = ("n", "node", "settled")

    def __init__(self, node: Node, n: int) -> None:
        self.node = node
        self.n = n
        self.settled = False


class Closing:
    """A wanted decision: the run ends."""

    __slots__ = ("error", "settled", "status", "value")

    def __init__(self, status: Status, value: Any = None, error: BaseException | None = None) -> None:
        self.status = status
        self.value = value
        self.error = error
        self.settled = False


Unwinding: TypeAlias = "Iterator[Unwinding]"
"""A way through branches that unwinds them; it gives what is to be done before it goes on."""
Want: TypeAlias = "Node | Withdrawal | Taking | Closing"
"""What the interpreter finds in `wanted`: a command to issue, or a decision to write down."""


class Branch:
    """One generator of a run, and what it waits for."""

    __slots__ = (
        "gen",
        "is_own",
        "live",
        "node",
        "owner",
        "prefix",
        "resume",
        "shielded",
        "strike",
        "struck",
        "then",
        "wait",
        "where",
    )

    def __init__(self, gen: GeneratorType[Any, Any, Any], node: Node, prefix: str, shielded: bool) -> None:
        self.gen = gen
        self.is_own = gen.gi_code in OWN_CODE
        """Whether it is a command in place of a flow, as in scope("a", step())."""
        self.node = node
        self.owner = node.owner
        self.prefix = prefix
        self.shielded = shielded
        self.live: dict[Node, None] = NO_ENTRIES
        """What it started beside itself and what has not ended, oldest first."""
        self.wait: Node | Wait | None = None
        self.then: Ending | tuple[Any, BaseException | None] | None = None
        """What follows an unwinding: to end, or to resume with this."""
        self.resume: tuple[Any, BaseException | None] | None = (None, None)
        """What it will be resumed with; None while it waits."""
        self.strike: Cancelled | None = None
        """A cancellation that a shield holds back."""
        self.struck = False
        self.where = node.where
        """Where it stood last: commands of one place, as in a loop, share it, since each name keeps its place."""

    def chain(self) -> Iterable[Branch]:
        """The branch, its owner, and so on up to the root."""
        branch: Branch | None = self
        while branch is not None:
            yield branch
            branch = branch.owner


class Ending:
    """A branch's outcome, kept until all that it started has unwound."""

    __slots__ = ("error", "value")

    def __init__(self, value: Any, error: BaseException | None) -> None:
        self.value = value
        self.error = error


class Suspend:
    """The type of WAITS."""


WAITS = Suspend()
"""What a command's performance gives when its branch has to wait."""


class Issuer(Protocol):
    """Knows what is on record: the interpreter."""

    workflow: Any
    """The Workflow that runs, whose module rests on this one."""

    def release(self, node: Node) -> None:
        """A leaf that is on record has to end."""
        ...


class Branches:
    """All branches of a run. `wanted` is what they ask for, in order; the interpreter empties it."""

    __slots__ = (
        "continued",
        "issuer",
        "names",
        "numbers",
        "open_branches",
        "queue",
        "root",
        "unobserved",
        "versions",
        "wanted",
    )

    def __init__(self, issuer: Issuer) -> None:
        self.queue: list[Branch] = NO_ITEMS
        self.wanted: list[Want] = []
        self.names: dict[str, Where] = {}
        self.numbers: dict[str, int] = NO_ENTRIES
        self.versions: dict[str, int] = NO_ENTRIES
        self.unobserved: dict[Node, None] = NO_ENTRIES
        """What failed while nobody waited for it."""
        self.open_branches: dict[GeneratorType[Any, Any, Any], Branch] = NO_ENTRIES
        """Branches beside the root that have not ended, oldest first."""
        self.issuer = issuer
        self.root: Branch | None = None
        self.continued: c.ContinueAsNew | None = None

    def alive(self) -> list[Branch]:
        """All branches that have not ended, oldest first. Costs O(n) in them."""
        root = () if self.root is None or self.root.node.settled else (self.root,)
        return [*root, *self.open_branches.values()]

    # ------------------------------------------------------------ running

    def open_root(self, gen: GeneratorType[Any, Any, Any], where: Where | None = None) -> Node:
        """Start the branch that the whole run is about; `where` is its place, where its own code is none."""
        node = self.open(gen, None, "", shielded=False, where=where)
        self.root = node.branch
        return node

    def open(
        self,
        gen: GeneratorType[Any, Any, Any],
        owner: Branch | None,
        prefix: str,
        *,
        shielded: bool,
        where: Where | None = None,
    ) -> Node:
        """Start a branch at the end of the queue."""
        if gen in self.open_branches or inspect.getgeneratorstate(gen) != inspect.GEN_CREATED:
            raise NotACommand(
                "a flow was given twice: call the generator function once for each time it should run"
            )
        if where is None:
            frame: Any = gen.gi_frame  # never None: it has not begun
            where = gen.gi_code, 0, frame.f_globals
        node = Node(None, "flow", gen.__name__, owner, where)
        node.branch = branch = Branch(gen, node, prefix, shielded)
        if owner is not None:
            self.open_branches = put(self.open_branches, gen, branch)
        self.queue = added(self.queue, branch)
        return node

    def run(self) -> None:
        """Run every branch that can, until all wait."""
        while self.queue:
            going, self.queue = self.queue, NO_ITEMS
            for branch in going:  # what they wake comes after all of them: first in, first out
                if branch.resume is not None:
                    value, error = branch.resume
                    branch.wait = branch.resume = None
                    self.drive(branch, value, error)

    def drive(self, branch: Branch, value: Any, error: BaseException | None) -> None:
        """Resume a branch and perform what it yields, until it waits or ends."""
        gen = branch.gen
        while True:
            try:
                command = gen.send(value) if error is None else gen.throw(error)
            except StopIteration as stop:
                return self.end(branch, stop.value, None)
            except PASSES_THROUGH:
                raise
            except BaseException as raised:  # noqa: BLE001  # whatever leaves a flow is its outcome
                refuse_delegation(raised)
                return self.end(branch, None, raised)
            if branch.strike is not None:
                forgo(command)
                strike, branch.strike = branch.strike, None
                return self.unwind(branch, list(reversed(branch.live)), (None, strike), strike)
            try:
                answer = self.perform(branch, command)
            except Defect:
                forgo(command)
                raise
            if answer is WAITS:
                return None
            value, error = answer

    def end(self, branch: Branch, value: Any, error: BaseException | None) -> None:
        """A branch's generator is through: what it left behind unwinds first (R24)."""
        self.unwind(branch, list(reversed(branch.live)), Ending(value, error))

    def wake(self, branch: Branch, value: Any, error: BaseException | None) -> None:
        """Put a branch at the end of the queue."""
        branch.wait = None
        branch.resume = (value, error)
        self.queue = added(self.queue, branch)

    # ------------------------------------------------------------ performing a command

    def perform(self, branch: Branch, command: Any) -> Any:
        """Carry out what a branch yielded: WAITS, or (value, error) to go on with at once."""
        inner, where = position(branch)
        if type(command) is c.Step and inner is None:  # the most frequent by far
            command.yielded = True  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]  # no part of its value
            branch.wait = node = self.leaf(branch, command, command.name, where)
            node.waiters = [branch]
            return WAITS
        if inner is not None:
            raise NotACommand(
                f"`yield from` over a {type(inner).__name__} at {site_of(where)}: it takes one command or flow; "
                "for several write `yield from zart.wait([...])`"
            )
        performance = PERFORMANCES.get(type(command))
        if performance is None:
            if type(command) is GeneratorType and command.gi_code in OWN_CODE:  # zart.outcome() and its like
                return self.perform_subflow(branch, command, where)
            raise NotACommand(f"{refusal(command)} (yielded at {site_of(where)})")
        c.mark_used(command)
        return performance(self, branch, command, where)

    def leaf(self, branch: Branch, command: Any, name: str, where: Where) -> Node:
        """Want a command of the outside."""
        if branch.prefix:
            name = branch.prefix + name
        if name in self.names:
            raise self.duplicate(name, where)
        self.names[name] = where
        node = Node(command, command.kind, name, branch, where)
        self.wanted.append(node)
        return node

    def duplicate(self, name: str, where: Where) -> DuplicateName:
        """The error that shows both places and proposes a name (R3)."""
        number = 2
        while f"{name}-{number}" in self.names:
            number += 1
        first = self.names[name]
        return DuplicateName(
            f"the name '{name}' is used twice in this run: first at {site_of(first)}, again at {site_of(where)}. "
            "A name is what a result is kept under: give the second one a name of its own, "
            f"such as .named('{name}-{number}'), "
            "put an argument into the step's name, as in 'fetch-{index}', or wrap the flow in zart.scope(...)"
        )

    def numbered(self, branch: Branch, base: str) -> str:
        """The next name of a series: shipment-ready[1], shipment-ready[2] (R2)."""
        key = branch.prefix + base
        number = self.numbers.get(key, 0) + 1
        self.numbers = put(self.numbers, key, number)
        return f"{base}[{number}]"

    def start(self, branch: Branch, target: Any, where: Where) -> Node:
        """Start something beside the branch, if it was not started yet."""
        match target:
            case c.Step():  # the most frequent by far
                c.mark_used(target)
                node = self.leaf(branch, target, target.name, where)
            case c.Task():
                return self.own(target, where)
            case c.Schedule():
                c.mark_used(target)
                return self.start(branch, target.target, where)
            case c.SubFlow() | GeneratorType():
                node = self.subflow(branch, target, where)
            case c.Sleep() | c.WaitForEvent() | c.Child():
                c.mark_used(target)
                node = self.leaf(branch, target, self.name_of(branch, target), where)
            case _:
                raise NotACommand(
                    f"only tasks, steps, sleeps, event waits, children and flows can be waited for beside others: "
                    f"{refusal(target)} (at {site_of(where)})"
                )
        branch.live = put(branch.live, node, None)
        return node

    def own(self, task: c.Task[Any], where: Where) -> Node:
        """What a task of this run stands for. Raises NotACommand for that of another one."""
        if task.branches is not self:
            raise NotACommand(
                f"{task!r} was started by another run (at {site_of(where)}): something outside of the workflow keeps "
                "it, such as a default argument; give each run a list of its own"
            )
        return task.node

    def subflow(self, branch: Branch, target: Any, where: Where) -> Node:
        """Start a flow as a branch of its own."""
        if isinstance(target, c.SubFlow):
            c.mark_used(target)
            prefix = f"{branch.prefix}{target.prefix}/" if target.prefix else branch.prefix
            flow: Any = target.flow
            return self.open(flow, branch, prefix, shielded=target.shielded, where=where)
        return self.open(target, branch, branch.prefix, shielded=False, where=where)

    def name_of(self, branch: Branch, command: Any) -> str:
        """The name of a leaf, without prefix."""
        match command:
            case c.WaitForEvent(name=None):
                return self.numbered(branch, command.event)
            case c.Child(name=None) | c.Spawn(name=None):
                return self.numbered(branch, command.workflow.name)
            case _:
                return str(command.name)

    def perform_leaf(self, branch: Branch, command: Any, where: Where) -> Any:
        """Want one command and wait for it."""
        return self.wait_for(branch, self.leaf(branch, command, self.name_of(branch, command), where))

    def perform_subflow(self, branch: Branch, command: Any, where: Where) -> Any:
        """Run a flow as a branch and wait for it."""
        return self.wait_for(branch, self.subflow(branch, command, where))

    def perform_schedule(self, branch: Branch, command: c.Schedule[Any], where: Where) -> Any:
        """Start something and go on."""
        return c.Task[Any](self.start(branch, command.target, where), self), None

    def perform_wait(self, branch: Branch, command: c.Wait[Any], where: Where) -> Any:
        """Start what was not started, and wait as the mode says."""
        if command.mode not in ("any", "race") and any(
            type(target) is c.Task and target.node is branch.node for target in command.targets
        ):
            return None, InvalidUse(
                "a flow that waits for itself would wait for ever: leave its own task out"
            )
        nodes = [self.start(branch, target, where) for target in command.targets]
        wait = Wait(command.mode, nodes)
        if wait.begin():
            return self.conclude(branch, wait)
        self.suspend(branch, wait, nodes)
        return WAITS

    def perform_cancel(self, branch: Branch, command: c.CancelTask, where: Where) -> Any:
        """Cancel a task and wait until it has unwound."""
        node = self.own(command.task, where)
        if node.settled:
            return False, None
        if node.branch is not None and node.branch in branch.chain():
            return None, InvalidUse("a flow cannot cancel itself or what it is part of; return instead")
        self.unwind(branch, [node], (True, None))
        return WAITS

    def perform_version(self, branch: Branch, command: c.Version[Any], where: Where) -> Any:
        """Answer a version marker, or want it on record (R23)."""
        name = branch.prefix + command.name
        known = self.versions.get(name)
        if known is not None:
            return known, None
        node = Node(command, "version", name, branch, where)
        self.wanted.append(node)
        return self.wait_for(branch, node)

    def perform_continue(self, branch: Branch, command: c.ContinueAsNew, where: Where) -> Any:
        """End the run; the interpreter opens the next one."""
        if branch is not self.root:
            raise NotACommand(
                f"continue_as_new belongs into the root branch, not into a flow beside it (at {site_of(where)})"
            )
        name, own = command.workflow.name, self.issuer.workflow.name
        if name != own:
            raise NotACommand(
                f"continue_as_new of workflow '{name}' in a run of '{own}' (at {site_of(where)}): a run goes on as "
                "what it is; start another workflow with zart.child(...) or zart.spawn(...)"
            )
        self.continued = command
        shut(branch.gen)
        self.end(branch, None, None)
        return WAITS

    # ------------------------------------------------------------ waiting

    def wait_for(self, branch: Branch, node: Node) -> Any:
        """Suspend a branch until one node settles."""
        node.waiters = added(node.waiters, branch)
        branch.wait = node
        return WAITS

    def suspend(self, branch: Branch, wait: Wait, nodes: Sequence[Node]) -> None:
        """Suspend a branch on several nodes."""
        branch.wait = wait
        for node in dict.fromkeys(nodes):
            if not node.settled:
                if branch in node.waiters:  # left over from an earlier wait that did not need it
                    node.waiters.remove(branch)
                node.waiters = added(node.waiters, branch)

    def settle(self, node: Node, value: Any, error: BaseException | None) -> None:
        """A node has ended: wake who waited for it, in the order in which they began to."""
        node.settled = True
        node.value = value
        node.error = error
        owner = node.owner
        if owner is not None and owner.live:
            owner.live.pop(node, None)
        if error is not None and not (
            node.dropping and (node.branch is None or isinstance(error, Cancelled))
        ):
            self.unobserved = put(self.unobserved, node, None)
        for branch in node.waiters:
            wait = branch.wait
            if wait is node:
                if error is not None:
                    self.unobserved.pop(node, None)
                branch.resume = (value, error)  # it still waits until it runs: a shield is still one
                self.queue = added(self.queue, branch)
            elif isinstance(wait, Wait) and wait.note(node):
                self.go_on(branch, wait)

    def go_on(self, branch: Branch, wait: Wait) -> None:
        """What a branch waited for has come: resume it, or let it end, once the losers have unwound."""
        then = branch.then
        if wait.mode != "unwind":
            answer = self.conclude(branch, wait)
            if answer is not WAITS:
                self.wake(branch, *answer)
        elif isinstance(then, Ending):
            self.close_branch(branch, then)
        else:
            assert then is not None
            branch.then = None
            self.wake(branch, *then)

    def conclude(self, branch: Branch, wait: Wait) -> Any:
        """The answer of a wait; WAITS while losers unwind (race, fail_fast)."""
        answer = wait.answer()
        nodes = cast("list[Node]", wait.nodes)  # every Awaited here is a Node
        for node in nodes:
            self.unobserved.pop(node, None)
        if not wait.cancels():
            return answer
        losers = [node for node in reversed(nodes) if not node.settled]
        self.unwind(branch, losers, answer)
        return WAITS

    # ------------------------------------------------------------ ending and cancelling

    def unwind(
        self,
        branch: Branch,
        nodes: Iterable[Node],
        then: Ending | tuple[Any, BaseException | None],
        strike: Cancelled = LEFT_BEHIND,
    ) -> None:
        """End these nodes by `strike`, and do `then` when all of them have."""
        walk(self.unwinding(branch, nodes, then, strike))

    def unwinding(
        self,
        branch: Branch,
        nodes: Iterable[Node],
        then: Ending | tuple[Any, BaseException | None],
        strike: Cancelled,
    ) -> Unwinding:
        """As `unwind`."""
        going = list(dict.fromkeys(nodes))
        branch.wait = branch.resume = None
        branch.then = then
        yield from self.dropping(going, strike)
        if branch.then is not then:  # the end of one of them has let somebody strike the branch itself
            return
        left = [node for node in going if not node.settled]
        wait = Wait("unwind", left)
        if left:
            self.suspend(branch, wait, left)
        else:
            self.go_on(branch, wait)

    def close_branch(self, branch: Branch, ending: Ending) -> None:
        """A branch has ended and all that it started with it."""
        branch.wait = None
        self.open_branches.pop(branch.gen, None)
        self.settle(branch.node, ending.value, ending.error)

    def dropping(self, nodes: Iterable[Node], strike: Cancelled) -> Unwinding:
        """Tell nodes to end: a flow unwinds, a command is withdrawn, one that was not issued is forgotten (R24)."""
        for node in nodes:
            if node.settled or node.dropping or node.shielded:
                continue
            node.dropping = True
            if node.branch is not None:
                yield self.interrupting(node.branch, type(strike)(strike.reason))
            elif node.seq < 0:
                self.settle(node, None, Cancelled("it was never issued"))
            else:
                self.issuer.release(node)

    def withdraw(self, node: Node) -> None:
        """Want a command's cancellation on record."""
        self.wanted.append(Withdrawal(node))

    def interrupt(self, branch: Branch, strike: Cancelled) -> None:
        """Throw into a branch where it waits, once, after all of its own has unwound (R18)."""
        walk(self.interrupting(branch, strike))

    def interrupting(self, branch: Branch, strike: Cancelled) -> Unwinding:
        """As `interrupt`."""
        if branch.struck or isinstance(branch.then, Ending):
            return
        branch.struck = True
        awaited = branch.wait
        own = list(reversed(branch.live))
        if isinstance(awaited, Node) and awaited.owner is branch and awaited not in branch.live:
            if awaited.shielded:
                branch.strike = strike
                yield from self.dropping(own, strike)
                return
            own.insert(0, awaited)
        yield self.unwinding(branch, own, (None, strike), strike)

    def close(self) -> None:
        """Close every generator, innermost first; plain `finally` code runs, commands yielded then are ignored."""
        for branch in reversed(self.alive()):
            shut(branch.gen)
        self.open_branches.clear()


PERFORMANCES: dict[type[Any], Callable[[Branches, Branch, Any, Where], Any]] = {
    c.Step: Branches.perform_leaf,
    c.Sleep: Branches.perform_leaf,
    c.WaitForEvent: Branches.perform_leaf,
    c.Capture: Branches.perform_leaf,
    c.Now: Branches.perform_leaf,
    c.Child: Branches.perform_leaf,
    c.Spawn: Branches.perform_leaf,
    c.Version: Branches.perform_version,
    c.Schedule: Branches.perform_schedule,
    c.Wait: Branches.perform_wait,
    c.SubFlow: Branches.perform_subflow,
    c.CancelTask: Branches.perform_cancel,
    c.ContinueAsNew: Branches.perform_continue,
}


def walk(first: Unwinding) -> None:
    """Do what a way through branches does, and each way that it leads to before it goes on: flows nest to any depth."""
    ways = [first]
    while ways:
        inner = next(ways[-1], None)
        if inner is None:
            ways.pop()
        else:
            ways.append(inner)


def shut(gen: GeneratorType[Any, Any, Any]) -> None:
    """Close a generator, what it delegates to first, again while it still yields, a bounded number of times.

    From the outside in, an inner one that yields once more would be left to the garbage collector, which complains.
    One that runs cannot be closed: it is its own code that asks for it.
    """
    attempts = 0
    while gen.gi_frame is not None and not gen.gi_running and attempts < CLOSE_ATTEMPTS_MAX:
        inner: GeneratorType[Any, Any, Any] = gen
        while type(inner.gi_yieldfrom) is GeneratorType and inner.gi_yieldfrom.gi_frame is not None:
            inner = inner.gi_yieldfrom
        try:
            inner.close()
        except RuntimeError:  # it yielded a command while closing
            attempts += 1
        except PASSES_THROUGH:
            raise
        except BaseException:  # noqa: BLE001, S110  # an effect-free workflow has nobody to tell
            pass


def forgo(command: Any) -> None:
    """A command was yielded and is not performed: it and what it is about are no forgotten ones."""
    match command:
        case c.Wait():
            for target in command.targets:
                forgo(target)
        case c.Schedule():
            forgo(command.target)
        case c.SubFlow():
            forgo(command.flow)
        case GeneratorType() if command.gi_code in OWN_CODE and command.gi_frame is not None:
            for given in command.gi_frame.f_locals.values():  # what it was to ask for
                forgo(given)
        case _:
            pass
    if isinstance(command, c.Command):
        c.mark_used(command)


# ---------------------------------------------------------------- where, and what instead


def position(branch: Branch) -> tuple[object, Where]:
    """What the innermost flow delegates to, if that is no command and no flow; and where it stands."""
    gen = branch.gen
    flow = None if branch.is_own else gen
    while True:
        inner = gen.gi_yieldfrom
        if type(inner) is not GeneratorType:
            break
        code = inner.gi_code
        if code is COMMAND_CODE:
            inner = None
            break
        gen = inner
        if code not in OWN_CODE:  # else it is `outcome` or the like: what it tries may be a flow in turn
            flow = gen
    if flow is None:
        return inner, branch.node.where
    frame: Any = flow.gi_frame  # never None: it has just yielded
    code, instruction, names = frame.f_code, frame.f_lasti, frame.f_globals
    where = branch.where
    if where[1] != instruction or where[0] is not code or where[2] is not names:
        branch.where = where = (code, instruction, names)
    return inner, where


def site_of(where: Where) -> Site:
    """A position as something to store and to show."""
    code, instruction, names = where
    return site_in(code, instruction, str(names.get("__name__", "?")))


@functools.lru_cache(maxsize=4096)
def site_in(code: CodeType, instruction: int, module: str) -> Site:
    """The line of an instruction; kept, because the same few lines are asked for again and again."""
    line = next((line for start, end, line in code.co_lines() if start <= instruction < end and line), None)
    return Site(module, code.co_qualname, (line or code.co_firstlineno) - code.co_firstlineno)


def refuse_delegation(error: BaseException) -> None:
    """Raise NotACommand if the error comes from a `yield from` over something that cannot be iterated (R12)."""
    trace = error.__traceback__
    if type(error) is not TypeError or trace is None:
        return
    while trace.tb_next is not None:
        trace = trace.tb_next
    code = trace.tb_frame.f_code
    if code.co_code[trace.tb_lasti] == DELEGATES:
        where = site_of((code, trace.tb_lasti, trace.tb_frame.f_globals))
        raise NotACommand(
            f"a `yield from` at {where} cannot work: {error}; {delegation_remedy(str(error))}"
        ) from None


def delegation_remedy(message: str) -> str:
    """What to write instead, by the type that Python's own message names."""
    if "'StepFunction'" in message:
        return "the step was not called: write `yield from my_step(...)`"
    if "'Workflow'" in message:
        return "call the workflow to run it inline, or write `yield from zart.child(my_workflow, input)`"
    if "'Task'" in message:
        return "wait for a task with `yield from zart.wait([task])`"
    if "coroutine" in message or "async" in message:
        return "flows are plain generators and only steps may be async: decorate the function with @zart.step"
    return "it takes a step, another command or a flow, and a plain value needs no `yield from`"


def refusal(thing: object) -> str:
    """What is wrong with a yielded object, and the fix (R12)."""
    name = type(thing).__name__
    match thing:
        case None:
            return "the workflow yielded None: a bare `yield` gives nothing to do; write `yield from some_step(...)`"
        case GeneratorType():
            return (
                f"the workflow yielded the flow {thing.__name__}(); write `yield from {thing.__name__}(...)`"
            )
        case c.Task():
            return f"{thing!r} is a task, not a command; wait for it with `yield from zart.wait([task])`"
        case c.Command():
            return f"{c.describe(thing)} cannot stand here; make a flow of it: zart.scope('a-name', ...)"
        case _ if hasattr(thing, "policy") or hasattr(thing, "input_type"):
            return f"{thing!r} was yielded without being called; write `yield from name(...)`"
        case _ if hasattr(thing, "cr_code") or hasattr(thing, "ag_code"):
            return (
                f"the workflow yielded a {name}; flows are plain generators and only steps may be async: "
                "decorate the function with @zart.step"
            )
        case _:
            return (
                f"the workflow yielded a {name}, which is no command; `yield from` takes a step, another command "
                "or a flow, and a plain value needs no yield"
            )
