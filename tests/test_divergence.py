"""Where code and log part ways: both sides, both places, and the nearest change that mends it (R21)."""

from __future__ import annotations

from typing import Any

import pytest

import zart_core as zart
from zart_core import wording
from zart_core.branches import Closing, Node, Taking, Withdrawal, site_of
from zart_core.divergence import nearest_fit, replay_explained


@zart.step("do-{what}")
def do(what: str) -> Any:
    return what


def sequence(*names: str) -> zart.Workflow[Any, Any]:
    """A workflow that does these, one after the other; a name in parentheses begins without waiting."""

    @zart.workflow("w")
    def w():
        for name in names:
            if name.startswith("v:"):
                yield from zart.version(name[2:], 2)
            elif name.startswith("nap"):
                yield from zart.sleep(name, 1)
            else:
                yield from do(name)

    return w


def log_of(play: Any, *names: str, done: int | None = None) -> list[zart.Event]:
    """The log of a sequence of which so many were done; all by default."""
    run = play(sequence(*names)).start()
    for name in names[:done]:
        run.done(name if name.startswith("nap") else f"do-{name}")
    return run.log


def explained(events: list[zart.Event], *names: str) -> zart.Diverged:
    """What is said about a log and other code."""
    with pytest.raises(zart.Diverged) as caught:
        replay_explained(sequence(*names), events)
    return caught.value


def test_code_and_log_side_by_side(play):
    """R21: the recorded command and the yielded one, where both stand, the event number, the remedy."""
    diverged = explained(log_of(play, "a", "b"), "a", "nap")
    assert (diverged.position, diverged.recorded, diverged.yielded) == (3, "step 'do-b'", "sleep 'nap'")
    assert str(diverged.recorded_site) == "test_divergence.sequence.<locals>.w, line +8"
    assert str(diverged.yielded_site) == "test_divergence.sequence.<locals>.w, line +6"
    lines = str(diverged).splitlines()
    assert lines[0] == "execution 'an-id' (run 0) of workflow 'w' diverged at event 3"
    assert lines[1] == "  recorded: step 'do-b'   at test_divergence.sequence.<locals>.w, line +8"
    assert lines[2] == "  yielded:  sleep 'nap'   at test_divergence.sequence.<locals>.w, line +6"
    assert "zart.version(...)" in lines[-1]


@pytest.mark.parametrize(
    ("recorded", "code", "position", "nearest"),
    [
        ("abc", "axbc", 3, "'do-x' is taken out here, or guarded with zart.version(...)"),
        ("abc", "xabc", 1, "'do-x' is taken out here, or guarded with zart.version(...)"),
        ("abc", "abcx", 7, "'do-x' is taken out here, or guarded with zart.version(...)"),
        ("abc", "ac", 3, "'do-b' is put back before 'do-c'"),
        ("abcd", "ad", 3, "'do-b', 'do-c' is put back before 'do-d'"),
        ("abc", "ab", 5, "'do-c' is put back here"),
        ("abc", "axc", 3, "'do-x' is called 'do-b' again, for example by .named('do-b')"),
        ("abc", "abx", 5, "'do-x' is called 'do-c' again, for example by .named('do-c')"),
        ("abc", "acb", 3, "'do-b' is put back before 'do-c'"),
    ],
)
def test_the_nearest_change_that_mends_it(play, recorded, code, position, nearest):
    """R21: insert, remove, rename and reorder are told apart."""
    diverged = explained(log_of(play, *recorded), *code)
    assert (diverged.position, diverged.nearest) == (position, nearest)
    assert f"\n  It fits again if {nearest}.\n" in str(diverged)


def test_left_over_history_and_a_log_that_ends_too_early_count(play):
    """P6: code that ends before its log, and code that wants more than a complete log holds."""
    waiting = log_of(play, "a", "b", done=1)
    left_over = explained(waiting, "a")
    assert (left_over.recorded, left_over.yielded) == ("step 'do-b'", "the end of the run (completed)")
    assert left_over.nearest == "'do-b' is put back here"

    @zart.workflow("w")
    def wider():
        yield from do("a")
        yield from zart.gather(do("b"), do("new"))

    with pytest.raises(zart.Diverged) as caught:
        replay_explained(wider, waiting)
    assert (caught.value.position, caught.value.recorded) == (4, "nothing more: the log ends here")
    assert caught.value.nearest == "'do-new' is taken out here, or guarded with zart.version(...)"


def test_the_end_of_the_run_is_compared_as_well(play):
    """Completed is not failed; and a run that goes on has not ended."""

    @zart.workflow("w")
    def fails():
        yield from do("a")
        raise ValueError

    with pytest.raises(zart.Diverged) as caught:
        replay_explained(fails, log_of(play, "a"))
    assert (caught.value.recorded, caught.value.yielded) == (
        "the end of the run (completed)",
        "the end of the run (failed)",
    )
    goes_on = explained(log_of(play, "a"), "a", "b")
    assert (goes_on.recorded, goes_on.yielded) == ("the end of the run (completed)", "step 'do-b'")


def test_a_guarded_change_is_none(play):
    """R23: the marker that the message proposes works."""
    assert replay_explained(sequence("v:x", "a", "b"), log_of(play, "a", "b")).status is zart.Status.COMPLETED


def test_an_error_that_says_itself_what_to_do_is_left_alone(play):
    """A changed type is no command out of place."""

    @zart.step("do-{what}")
    def typed(what: str) -> int:
        return 1

    @zart.workflow("w")
    def w():
        yield from typed("a")

    log = log_of(play, "a", "b")
    log[2] = zart.Resolved(0, zart.Done(b'"text"'), 1.0)
    with pytest.raises(zart.Diverged, match="no longer decodes to") as caught:
        replay_explained(w, log)
    assert caught.value.nearest == ""


def test_made_up_answers_that_do_not_suit_say_nothing(play):
    """The explanation never gets in the way of the error itself."""

    @zart.workflow("w")
    def w():
        yield from do("a")
        answer = yield from do("x")
        yield from do(answer["key"])

    diverged = None
    try:
        replay_explained(w, log_of(play, "a", "b", "c"))
    except zart.Diverged as error:
        diverged = error
    assert diverged is not None
    assert (diverged.yielded, diverged.nearest) == ("step 'do-x'", "")


def test_made_up_answers_that_lead_to_a_defect_say_nothing(play):
    """The made-up answer may bring out another mistake of the code: the first error is still the one that is told."""

    @zart.workflow("w")
    def w():
        yield from do("a")
        yield from do("x")
        yield from do("a")

    with pytest.raises(zart.Diverged) as caught:
        replay_explained(w, log_of(play, "a", "b", "c"))
    assert (caught.value.yielded, caught.value.nearest) == ("step 'do-x'", "")


def test_a_decision_that_is_missing_is_no_command_to_take_out(play):
    """Where the code first wants a loser cancelled, no command stands in the log's way."""

    def w(last):
        @zart.workflow("w")
        def w():
            first = yield from zart.schedule(do("a"))
            yield from zart.gather(first_of(first), beside(first, last))

        return w

    def first_of(first):
        yield from zart.race(first, do("b"))

    def beside(first, last):
        yield from zart.wait([first])
        yield from do(last)

    run = play(w("c")).start().done("do-a")
    assert run.history[-2:] == ["do-b cancelled", "step do-c"]
    log = [*run.log[:-2], run.log[-1]]
    with pytest.raises(zart.Diverged) as caught:
        replay_explained(w("x"), log)
    assert (caught.value.yielded, caught.value.nearest) == ("the cancellation of step 'do-b'", "")


def test_each_event_and_each_want_has_words():
    """R21: both sides are named whatever they are, and only a command has a place in the source."""
    where = (test_names_alone_tell_much.__code__, 0, globals())
    node = Node(None, "step", "do-a", None, where)
    node.seq = 4
    site = site_of(where)
    failure = zart.Failure("error", "E", "m")
    recorded = {
        "step 'do-a'": zart.Issued(4, "step", "do-a", 1.0),
        "the outcome of command 4 (Done)": zart.Resolved(4, zart.Done(b"1"), 1.0),
        "delivery 2 of event 'e'": zart.Delivered(2, "e", b"1", 1.0),
        "an interruption (deadline)": zart.Interrupted("deadline", 1.0),
        "the end of the run (failed)": zart.Closed(zart.Status.FAILED, 1.0, failure=failure),
        "Retried": zart.Retried(4, 0, failure, 2.0, 1.0),
        "nothing more: the log ends here": None,
    }
    yielded = {
        "step 'do-a'": (node, site),
        "the cancellation of step 'do-a'": (Withdrawal(node), site),
        "step 'do-a' taking delivery 2": (Taking(node, 2), site),
        "the end of the run (completed)": (Closing(zart.Status.COMPLETED), None),
    }
    for words, event in recorded.items():
        error = wording.diverged("it", 7, event, node, [])
        assert (error.position, error.recorded, error.recorded_site) == (7, words, None)
    for words, (want, place) in yielded.items():
        error = wording.diverged("it", 7, None, want, [])
        assert (error.yielded, error.yielded_site) == (words, place)
    assert wording.diverged("it", 7, None, None, []).yielded == "nothing"
    waiting = wording.diverged("it", 7, None, None, [node] * 4)
    assert waiting.yielded == "nothing: it waits for step 'do-a', step 'do-a', step 'do-a'"


def test_names_alone_tell_much():
    """The pure part: recorded names from here on, and wanted ones."""
    assert nearest_fit([], []) == ""
    assert nearest_fit(["a"], ["a"]) == ""
    assert nearest_fit(["a", "b"], ["b", "a"]) == "'a' comes before 'b' again"
    assert nearest_fit(["a", "b", "c", "d", "e"], ["e"]) == "'a', 'b', 'c' and 1 more is put back before 'e'"
    assert nearest_fit(["a"], ["x", "a"]) == "'x' is taken out here, or guarded with zart.version(...)"


def test_a_defect_of_the_code_is_no_divergence(play):
    """A name used twice is told as such, also in a replay."""
    with pytest.raises(zart.DuplicateName):
        replay_explained(sequence("a", "a"), log_of(play, "a", done=1) and log_of(play, "a", "b"))


@pytest.mark.parametrize(
    ("names", "recorded", "yielded", "said"),
    [
        (["payload"], {"payload": b'[1,"a"]'}, {"payload": b'[2,"a"]'}, "the arguments differ (cents)"),
        (["payload"], {"payload": b'[1,"a"]'}, {"payload": b'[2,"b"]'}, "the arguments differ (cents, to)"),
        (["payload"], {"payload": b"[1]"}, {"payload": b'[2,"a"]'}, "the arguments differ"),
        (["payload"], {"payload": b"\xff sealed"}, {"payload": b"[2]"}, "the arguments differ"),
        (
            ["until"],
            {"until": 65.0},
            {"until": None},
            "the times differ (0:01:00 recorded, no time limit yielded)",
        ),
        (
            ["child", "until"],
            {"child": "a", "until": 6.0},
            {"child": "b", "until": 7.5},
            "the ids of the executions and the times differ "
            "('a' recorded, 'b' yielded; 0:00:01 recorded, 0:00:02.500000 yielded)",
        ),
    ],
)
def test_what_differs_is_named(names, recorded, yielded, said):
    """Both sides of what may be shown, and of arguments, which are nobody's to read, which of them (R21)."""

    @zart.step("pay")
    def pay(cents: int, to: str) -> int:
        return cents

    old, new = (zart.Issued(0, "step", "pay", at=5.0, **fields) for fields in (recorded, yielded))
    (command,) = pay(1, "a")
    assert wording.differences(names, old, new, command) == said
