"""A loop over a list that a step fetched: each round is a step, and a restart goes on in the middle."""

from __future__ import annotations

import tempfile

import attrs

import zart_core as zart


@attrs.frozen
class Report:
    quarter: str
    value: float


@attrs.frozen
class Processed:
    quarter: str
    score: int
    flagged: bool


@attrs.frozen
class Summary:
    total: int
    flagged: int
    scores: list[int]


SOURCE = [Report("Q1", 84.5), Report("Q2", 91.2), Report("Q3", 72.0), Report("Q4", 110.8)]


@zart.step("fetch-reports")
def fetch_reports() -> list[Report]:
    return list(SOURCE)


@zart.step("process-report-{index}")
def process_report(index: int, report: Report) -> Processed:
    return Processed(report.quarter, int(report.value * 10), report.value < 80)


@zart.step("notify")
async def notify(quarter: str) -> None:
    print(f"  {quarter} is below its target")


@zart.workflow("durable-loops")
def durable_loops() -> zart.Flow[Summary]:
    reports = yield from fetch_reports()
    processed: list[Processed] = []
    for index, report in enumerate(reports):
        result = yield from process_report(index, report)
        if result.flagged:
            yield from notify(result.quarter).named(f"notify-{index}")
        processed.append(result)
    flagged = sum(result.flagged for result in processed)
    return Summary(len(processed), flagged, [result.score for result in processed])


def main() -> None:
    with (
        tempfile.TemporaryDirectory() as place,
        zart.open(f"file:{place}/reports", [durable_loops]) as engine,
    ):
        handle = engine.start(durable_loops)
        print(handle.result())
        print("steps:", *(event.name for event in handle.history() if isinstance(event, zart.Issued)))


if __name__ == "__main__":
    main()
