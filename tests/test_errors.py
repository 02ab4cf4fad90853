"""Zart's own errors, as other libraries handle them."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest

import zart_core as zart
from zart_core import errors
from zart_core.events import Err, Failure, Ok, Site

FAILURE = Failure("error", "builtins.ValueError", "no")
FAILED = errors.StepFailed("charge", "ValueError", "no", "Traceback ...")
ERRORS = [
    FAILED,
    errors.RetryExhausted("charge", 3, FAILED),
    errors.StepTimedOut("charge"),
    errors.StepLost("charge", "it is gone"),
    errors.EventTimedOut("paid"),
    errors.EventRejected("paid", "expected int"),
    errors.ExecutionFailed("o-1", "it failed", FAILURE),
    errors.ExecutionConflict("o-1", "it is taken"),
    errors.UnknownExecution("o-1", "there is none"),
    errors.Diverged("it diverged", position=3, recorded="a", yielded="b", recorded_site=Site("m", "f", 1)),
    errors.LogCorrupt("it is damaged", where="here", expected="1", found="2"),
    errors.EncodeError("it cannot", path="result.x"),
    errors.DecodeError("it cannot", path="value.x"),
    errors.StoreUnavailable("not now"),
    errors.StepsFailed("some", [FAILED], [Ok(1), Err(FAILED)]),
    errors.DeadlineExceeded("too late"),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("copied", [lambda error: pickle.loads(pickle.dumps(error)), copy.copy])
def test_an_error_is_the_same_in_another_process(error: Any, copied: Callable[[Any], Any]) -> None:
    """A pool of processes whose work ends with one hands it on; it broke down, with all that it had to do."""
    found = copied(error)
    assert (type(found), str(found), vars(found).keys()) == (type(error), str(error), vars(error).keys())
    assert [str(value) for value in vars(found).values()] == [str(value) for value in vars(error).values()]


def test_every_error_is_tried() -> None:
    """Of each constructor of its own there is one above."""
    own = {cls.__init__ for cls in vars(errors).values() if isinstance(cls, type) and "__init__" in vars(cls)}
    assert own <= {type(error).__init__ for error in ERRORS} | {zart.StepError.__init__}
