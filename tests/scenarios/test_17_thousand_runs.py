"""Scenario 17 at scale: a thousand running executions, and a deploy that breaks half of them."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

import zart_core as zart
from zart_core.cli import app
from zart_core.testing import check_deploy

COUNT = 1000


@zart.step("prepare")
def prepare(n: int) -> int:
    return n


@zart.step("{side}")
def turn(side: str) -> str:
    return side


@zart.step("finish")
def finish(n: int) -> int:
    return 10 * n


def version(left: str, marker: bool = False) -> zart.Workflow[int, int]:
    """What even numbers do is named `left`; odd ones do the same in every version."""

    @zart.workflow("order")
    def order(n: int) -> zart.Flow[int]:
        yield from prepare(n)
        if n % 2:
            yield from turn("right")
        elif marker and (yield from zart.version("side", 2)) == 1:
            yield from turn("left")
        else:
            yield from turn(left)
        yield from zart.wait_for_event("go")
        return (yield from finish(n))

    return order


V1, BROKEN, MENDED = version("left"), version("gauche"), version("gauche", marker=True)


def ids(which: Any = range(COUNT)) -> set[str]:
    return {f"order-{n:04}" for n in which}


async def begin(url: str) -> None:
    """A thousand executions of v1, all of which wait for an event."""
    async with zart.serve(url, [V1]) as engine:
        await asyncio.gather(*(engine.start(V1, n, id=f"order-{n:04}") for n in range(COUNT)))
        while (await engine.stats())[zart.Status.WAITING] < COUNT:
            await asyncio.sleep(0.02)


async def deploy(url: str, workflow: Any, *, go: bool, until: Any) -> dict[zart.Status, int]:
    """An engine with this code, until it has come to a standstill; `go` sends everybody the event."""
    async with zart.serve(url, [workflow]) as engine:
        if go:
            await asyncio.gather(*(engine.send(id, "go", None) for id in sorted(ids())))
        while not until(stats := await engine.stats()):
            await asyncio.sleep(0.02)
        return {status: n for status, n in stats.items() if n}


def status_of(url: str) -> dict[str, zart.Summary]:
    """Every execution by its id."""
    log = zart.open_log(url)
    page = log.list(limit=2 * COUNT)
    log.close()
    return {summary.id: summary for summary in page.items}


def test_the_other_half_goes_on_and_the_mended_code_finishes_all(tmp_path, monkeypatch, capsys):
    """Half is parked with reasons, exactly those that the check had listed; none is ended; the mended code ends all."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    url = f"sqlite:{tmp_path / 'orders.db'}"
    asyncio.run(begin(url))

    (tmp_path / "broken.py").write_text("from tests.scenarios.test_17_thousand_runs import BROKEN\n")
    assert app.main(["check", "broken.py", "--store", url, "--json"]) == 5
    found = json.loads(capsys.readouterr().out)
    assert found["counts"] == {"fits": COUNT // 2, "diverges": COUNT // 2}
    listed = {item["id"] for item in found["executions"] if item["kind"] != "fits"}
    assert check_deploy(url, [V1]).fits and check_deploy(url, [MENDED]).fits

    status = deploy(
        url,
        BROKEN,
        go=True,
        until=lambda stats: stats[zart.Status.PARKED] + stats[zart.Status.COMPLETED] == COUNT,
    )
    assert asyncio.run(status) == {zart.Status.PARKED: COUNT // 2, zart.Status.COMPLETED: COUNT // 2}
    after = status_of(url)
    parked = {id for id, summary in after.items() if summary.status is zart.Status.PARKED}
    assert parked == listed == ids(range(0, COUNT, 2))
    for id in parked:
        assert after[id].reason.startswith("Diverged: ") and "recorded: step 'left'" in after[id].reason
        assert "yielded:  step 'gauche'" in after[id].reason
    assert {id for id, summary in after.items() if summary.status is zart.Status.COMPLETED} == ids(
        range(1, COUNT, 2)
    )

    done = deploy(url, MENDED, go=False, until=lambda stats: stats[zart.Status.COMPLETED] == COUNT)
    assert asyncio.run(done) == {zart.Status.COMPLETED: COUNT}
    log = zart.open_log(url)
    for n in (0, 1, COUNT - 1):
        *_, closed = zart.Codec().decode_events(log.records(f"order-{n:04}"))
        assert closed.payload == str(10 * n).encode()
    log.verify()
    log.close()
