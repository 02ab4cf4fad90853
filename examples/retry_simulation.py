"""A step that fails at first and is tried again a second later; every attempt is on record."""

from __future__ import annotations

import attrs

import zart_core as zart


@attrs.frozen
class Seen:
    attempt: int
    is_retry: bool
    max_retries: int


@zart.step("flaky-call", retry=zart.Retry.fixed(3, "1s"))
def flaky_call() -> Seen:
    here = zart.context()
    if here.attempt == 0:
        raise ConnectionError("simulated outage on attempt 0")
    return Seen(here.attempt, here.is_retry, here.max_retries)


@zart.workflow("retry-simulation")
def retry_simulation() -> zart.Flow[Seen]:
    return (yield from flaky_call())


def main() -> None:
    with zart.open("memory:", [retry_simulation]) as engine:
        handle = engine.start(retry_simulation)
        print("went well with", handle.result())
        for event in handle.history():
            if isinstance(event, zart.Retried):
                gap = event.retry_at - event.at
                print(
                    f"attempt {event.attempt} failed: {event.failure.message}; the next one {gap:.1f} s later"
                )


if __name__ == "__main__":
    main()
