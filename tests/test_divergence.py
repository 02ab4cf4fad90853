"""Where code and log part ways: both sides, both places, and the nearest change that mends it (R21)."""

from __future__ import annotations

from typing import Any

import pytest

import zart_core as zart
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
