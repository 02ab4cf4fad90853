"""The promises of a log as checks: subclass `StoreContract` for your own store and let pytest collect it.

    class TestMyStore(StoreContract):
        @pytest.fixture(autouse=True)
        def place(self, tmp_path):
            self.url = f"mystore:{tmp_path}/log"

        def open(self):
            return mystore.open(self.url)

Without pytest: `print(check_store(lambda place: mystore.open(f"mystore:{place}/log")))`.

Rule 1: each check's docstring states one promise, with its number (`zart_core.log`); its failure shows what
        was done and wanted beside what was found.
Rule 2: only the protocol is used; no check knows a store.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import SkipTest

from zart_core.errors import InvalidUse
from zart_core.log import EventLog
from zart_core.testing.contract_claims import ClaimChecks
from zart_core.testing.contract_edge import EdgeChecks
from zart_core.testing.contract_faults import FaultChecks
from zart_core.testing.contract_messages import MessageChecks
from zart_core.testing.contract_report import CheckResult, ContractReport, cases_of, stated
from zart_core.testing.contract_transactions import TransactionChecks
from zart_core.testing.contract_turns import TurnChecks
from zart_core.testing.contract_views import ViewChecks
from zart_core.testing.contract_writes import (
    LEASE_S,
    claimed,
    expect,
    new,
    post,
    receipts,
    records,
    refused,
    standing,
    state,
    together,
    turn,
    write,
)


class StoreContract(
    TurnChecks, EdgeChecks, MessageChecks, ClaimChecks, ViewChecks, FaultChecks, TransactionChecks
):
    """What every EventLog promises. A subclass gives `open`; each check runs on an object of its own.

    Say `durable = False` or `shared = False` for a store that is not. Override `advance` where leases run by a clock of
    the test's, and `damage`, `full`, `unreadable` and `newer` where a test can bring the store into such a state, and
    `connect` where it shares transactions (`Transactional`); what is not given is left out, and said so.
    """


def check_store(
    factory: Callable[[Path], EventLog],
    *,
    durable: bool = True,
    shared: bool = True,
    contract: type[StoreContract] = StoreContract,
    only: str = "",
) -> ContractReport:
    """Hold a store to its promises, without pytest; `print(report)` shows a table and each failure.

    Args:
        factory: opens the store that is kept in a directory, which is empty at first; a second call with the same
            directory opens the same log.
        durable: whether what it holds outlives its process.
        shared: whether several log objects may have it open at a time.
        contract: a subclass with more abilities, such as `advance` and `damage`; its `place` is the directory.
        only: a part of the names of the checks that are wanted; all by default.

    Every check has a directory and a log of its own. Without `advance` it takes about a minute: leases then run out in
    real time. Raises InvalidUse when no check is called so.
    """

    class Checked(contract):  # type: ignore[valid-type, misc]  # a class that is given
        place: Path

        def open(self) -> EventLog:
            return factory(self.place)

    Checked.durable, Checked.shared = durable, shared
    results: list[CheckResult] = []
    for name, title, arguments in all_checks(Checked):
        if only in title:
            with tempfile.TemporaryDirectory(prefix="zart-contract-") as place:
                checked = Checked()
                checked.place = Path(place)
                results.append(result_of(checked, name, title, arguments))
    if not results:
        raise InvalidUse(f"no check of the contract has {only!r} in its name")
    return ContractReport(tuple(results))


def all_checks(contract: type[StoreContract]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Every check with every case: its method, its name, its arguments."""
    for name in dir(contract):
        if name.startswith("test_"):
            for case, arguments in cases_of(getattr(contract, name)):
                yield name, f"{name}[{case}]" if case else name, arguments


def result_of(contract: StoreContract, name: str, title: str, arguments: dict[str, Any]) -> CheckResult:
    """Carry out one check."""
    check = getattr(contract, name)
    promises, _ = stated(check.__doc__)
    try:
        check(**arguments)
    except SkipTest as reason:
        return CheckResult(title, promises, "not shown", str(reason))
    except AssertionError as broken:
        return CheckResult(title, promises, "broken", str(broken))
    return CheckResult(title, promises, "kept")


__all__ = [
    "LEASE_S",
    "ContractReport",
    "StoreContract",
    "check_store",
    "claimed",
    "expect",
    "new",
    "post",
    "receipts",
    "records",
    "refused",
    "standing",
    "state",
    "together",
    "turn",
    "write",
]
