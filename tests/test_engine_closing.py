"""Closing the engine: whoever asks for it, however often, and whatever happens meanwhile."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest
from engines import PATIENCE_S, Ledger, kinds, until, url_of

import zart_core as zart
from zart_core.codec import Codec
from zart_core.hosts.ports import open_log


@zart.step(max_crashes=1)
async def lingers() -> None:
    """Takes a moment to end when it is told to."""
    try:
        await asyncio.sleep(30)
    except asyncio.CancelledError:
        await asyncio.sleep(0.1)
        raise


@zart.workflow("stays")
def stays(_: None) -> zart.Flow[None]:
    yield from lingers()


def test_a_close_that_is_cancelled_lets_go_of_the_log(tmp_path: Path) -> None:
    """It can be opened again in the same process, and who waits for a result is told."""
    url = url_of("file", tmp_path)

    async def run() -> None:
        engine = await (opening := zart.serve(url, [stays])).__aenter__()
        handle = await engine.start(stays, id="a")
        waiting = asyncio.create_task(handle.result())
        until_begun = asyncio.get_running_loop().time() + PATIENCE_S
        while engine.attempts.running == 0 and asyncio.get_running_loop().time() < until_begun:
            await asyncio.sleep(0)
        closing = asyncio.create_task(opening.__aexit__(None, None, None))
        await asyncio.sleep(0)
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing
        with pytest.raises(zart.InvalidUse, match="closed"):
            await asyncio.wait_for(waiting, PATIENCE_S)
        open_log(url).close()

    asyncio.run(run())


def test_who_asks_again_waits_for_the_same_end(tmp_path: Path) -> None:
    """After any close of it has returned the engine is closed."""
    url = url_of("file", tmp_path)

    async def run() -> None:
        async with zart.serve(url, [stays]) as engine:
            await engine.start(stays, id="a")
            first = asyncio.create_task(engine.close())
            await asyncio.sleep(0)
            assert not first.done()
            await engine.close()
            open_log(url).close()
            await first

    asyncio.run(run())


class Locked:
    """A seal whose key is out of reach for one execution."""

    def __init__(self) -> None:
        self.without: bytes | None = None

    def seal(self, data: bytes, associated: bytes) -> bytes:
        """See Seal."""
        if self.without is not None and self.without in associated:
            raise ConnectionError("the key cannot be had")
        return data

    def open(self, data: bytes, associated: bytes) -> bytes:
        """See Seal."""
        return data


def test_what_cannot_be_written_at_the_end_hinders_no_other(tmp_path: Path) -> None:
    """I8: one execution cannot be sealed; the other is handed over, and the log can be opened again."""
    seal, url = Locked(), url_of("file", tmp_path)
    with zart.open(url, [stays], codec=Codec(seal=seal)) as engine:
        for id in ("poor", "rich"):
            engine.start(stays, id=id)
        until(lambda: engine.engine.attempts.running == 2)
        seal.without = b"poor"
    with zart.open(url, [], codec=Codec(seal=seal)) as engine:
        assert "Noted" not in kinds(engine.get("poor").history())
        assert kinds(engine.get("rich").history())[-1] == "Noted"
