"""Fan out and in: results in the order of the input, whatever the order of completion; flows side by side."""

from __future__ import annotations

import asyncio
import tempfile
from typing import Literal

import attrs

import zart_core as zart


@attrs.frozen
class Health:
    service: str
    status: Literal["healthy", "degraded", "unknown"]
    latency_ms: int | None = None
    note: str | None = None


KNOWN = {
    "auth-api": Health("auth-api", "healthy", 42),
    "payments": Health("payments", "degraded", 156, "high latency detected"),
    "users-db": Health("users-db", "healthy", 28),
}


@zart.step("check-{service}", retry=zart.Retry.fixed(2, "1s"), timeout="10s")
async def check(service: str) -> Health:
    health = KNOWN.get(service, Health(service, "unknown"))
    await asyncio.sleep((health.latency_ms or 0) / 1000)
    return health


@zart.step("summarize")
def summarize(results: list[Health]) -> list[str]:
    return [health.service for health in results if health.status != "healthy"]


@zart.step("page-{service}")
async def page_somebody(service: str) -> None:
    """Nothing to give back: None is a result like any other."""


@zart.step("drain-{service}")
def drain(service: str) -> int:
    return len(service)


@zart.step("restart-{service}")
def restart(service: str, drained: int) -> str:
    return f"{service} restarted, {drained} requests moved"


def mend(service: str) -> zart.Flow[str]:
    drained = yield from drain(service)
    return (yield from restart(service, drained))


@zart.workflow("parallel-checks")
def parallel_checks(services: list[str]) -> zart.Flow[tuple[list[Health], list[str]]]:
    results = yield from zart.wait(check(service) for service in services)
    sick = yield from summarize(results)
    yield from zart.wait(page_somebody(service) for service in sick)
    mended = yield from zart.wait(mend(service) for service in sick)
    return results, mended


def main() -> None:
    with tempfile.TemporaryDirectory() as place, zart.open(f"file:{place}", [parallel_checks]) as engine:
        results, mended = engine.run(parallel_checks, ["auth-api", "payments", "users-db", "printer"])
        for health in results:
            print(f"{health.service:10} {health.status:10} {health.latency_ms} {health.note or ''}")
        print(*mended, sep="\n")


if __name__ == "__main__":
    main()
