"""An execution of a log that is taken up by a host, brought as far as it goes by itself, and given back."""

from __future__ import annotations

from typing import Any

import zart_core as zart
from zart_core.hosts.inline import Inline
from zart_core.log import EventLog
from zart_core.testing import VirtualClock


def hosted(log: EventLog, workflow: zart.Workflow[Any, Any], id: str, now: float) -> zart.Status:
    """Take it up with this code, as after a restart, and give its status then; time stands still."""
    inline = Inline(log, zart.Registry(workflow), clock=VirtualClock(now))
    inline.take_tree(id)
    run = inline.runs[id]
    for seq in list(run.suspects):
        run.try_suspect(seq, alone=True, now=now)
    inline.advance(run)
    while inline.work():
        pass
    for held in inline.runs.values():
        held.drop()
    log.release(inline.worker)
    summary = log.summary(id)
    assert summary is not None
    return summary.status
