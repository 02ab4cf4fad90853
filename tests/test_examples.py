"""Every example runs as its reader would run it, and prints what it promises."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"
LINES_MAX = 80

SAYS = {
    "approval": [
        "-> 120 paid to ada",
        "-> rejected by grace",
        "-> nobody decided in time",
        "-> execution 'nobody's' ended as failed: __main__.InvalidRequest: the requester is empty",
    ],
    "brewery_finder": ["Alt (pub)", "Zwickl (micro)", "/zip/97209", "/zip/97209", "/breweries/portland"],
    "children": ["100 children: 328350"],
    "counter": ["2000 events counted", "events in the history of the last run"],
    "dask_cluster": ["7837 primes below 80000", "counted elsewhere: True"],
    "deploy": [
        "diverges at 8 cuts, the first after event 4 (step 'charge')",
        "marker 'screening' answers 1 at 8 cuts, 2 at 9 cuts; it is needed",
        "parked, not failed: 'screen' is taken out here, or guarded with zart.version(...)",
        "goes on: txn-42 1Z999",
    ],
    "durable_loops": ["Q3 is below its target", "Summary(total=4, flagged=1", "notify-2 process-report-3"],
    "durable_sleep": ["sleeps (nap)", "slept 1."],
    "error_handling": [
        "charged 1999, 8001 left",
        "10000 cents are missing",
        "refunded sku-3; no luck in 3 attempts",
    ],
    "injected_dependency": ["document 4 after 1 call of the model", "no trace of the model"],
    "order_fulfilment": ["Receipt(order='42', txn='txn-42', tracking='1Z999')", "already done"],
    "parallel_checks": ["auth-api", "high latency detected", "payments restarted, 8 requests moved"],
    "race": ["somebody says because", "nobody knows", "the machine says 4"],
    "retry_simulation": ["went well with Seen(attempt=1", "the next one 1.0 s later"],
    "saga": ["['flight-ada', 'hotel-ada', 'car-ada']", "['no car-bob', 'no hotel-bob', 'no flight-bob']"],
    "transactions": ["order-1 paid, 30 left", "order-2 refused: 40 cents", "('order-2', 'refused')"],
    "hosts/list_host": ["the gist is"],
    "hosts/queue_host": ["paid", "refunded"],
    "hosts/jsonl_host": ["invocation", "42"],
}


@pytest.mark.parametrize("name", SAYS)
def test_it_runs(name, tmp_path):
    """It ends well without a warning, within seconds, and says what it should, in this order."""
    ran = subprocess.run(
        [sys.executable, "-W", "error", EXAMPLES / f"{name}.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    place = 0
    for words in SAYS[name]:
        place = ran.stdout.find(words, place)
        assert place >= 0, f"{words!r} is missing, or out of order, in:\n{ran.stdout}"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "path", [path for path in EXAMPLES.rglob("*.py") if "corpus" not in path.name], ids=str
)
def test_it_is_short(path):
    """An example is read in one sitting, and none is forgotten here."""
    assert len(path.read_text().splitlines()) < (100 if path.parent.name == "hosts" else LINES_MAX)
    assert path.relative_to(EXAMPLES).with_suffix("").as_posix() in SAYS
