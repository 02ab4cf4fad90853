"""For testers: run a workflow in virtual time, crash it at every point, break its store, check a store.

Rule 1: nothing is imported before it is used: the pytest plugin lives here, and `strategies` needs Hypothesis.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zart_core.deploys.checking import DeployReport, Verdict, check_deploy
    from zart_core.deploys.histories import History, read_history, write_history
    from zart_core.deploys.replaying import misfits_of
    from zart_core.deploys.transfers import export_history, import_history
    from zart_core.deploys.upgrading import Cut, UpgradeReport, check_upgrade
    from zart_core.testing import strategies
    from zart_core.testing.clock import VirtualClock
    from zart_core.testing.contract import ContractReport, StoreContract, check_store
    from zart_core.testing.crashes import ALL_POINTS, explore_crashes
    from zart_core.testing.faulty import FaultyStore, seeded
    from zart_core.testing.filesystem import SimulatedFileSystem
    from zart_core.testing.orders import OrderReport, explore_orders
    from zart_core.testing.perturbation import Difference, PerturbedReport, perturbed, perturbed_histories
    from zart_core.testing.relay import Relay
    from zart_core.testing.report import CrashReport, Violation
    from zart_core.testing.runner import ScriptedRunner
    from zart_core.testing.running import RunResult, run
    from zart_core.testing.simulation.faults import Faults
    from zart_core.testing.simulation.report import SimulationReport
    from zart_core.testing.simulation.simulate import simulate
    from zart_core.testing.witness import Played, Point
    from zart_core.testing.world import Cancel, Place, Reopened, SimulatedCrash, TearingPlace, Terminate

__all__ = [
    "ALL_POINTS",
    "Cancel",
    "ContractReport",
    "CrashReport",
    "Cut",
    "DeployReport",
    "Difference",
    "Faults",
    "FaultyStore",
    "History",
    "OrderReport",
    "PerturbedReport",
    "Place",
    "Played",
    "Point",
    "Relay",
    "Reopened",
    "RunResult",
    "ScriptedRunner",
    "SimulatedCrash",
    "SimulatedFileSystem",
    "SimulationReport",
    "StoreContract",
    "TearingPlace",
    "Terminate",
    "UpgradeReport",
    "Verdict",
    "Violation",
    "VirtualClock",
    "check_deploy",
    "check_store",
    "check_upgrade",
    "explore_crashes",
    "explore_orders",
    "export_history",
    "import_history",
    "misfits_of",
    "perturbed",
    "perturbed_histories",
    "read_history",
    "run",
    "seeded",
    "simulate",
    "strategies",
    "write_history",
]

MODULES = {
    "ALL_POINTS": "crashes",
    "Cancel": "world",
    "ContractReport": "contract",
    "CrashReport": "report",
    "check_store": "contract",
    "Cut": ".deploys.upgrading",
    "DeployReport": ".deploys.checking",
    "Difference": "perturbation",
    "Faults": "simulation.faults",
    "FaultyStore": "faulty",
    "History": ".deploys.histories",
    "OrderReport": "orders",
    "PerturbedReport": "perturbation",
    "Place": "world",
    "Played": "witness",
    "Point": "witness",
    "Relay": "relay",
    "Reopened": "world",
    "RunResult": "running",
    "ScriptedRunner": "runner",
    "SimulatedCrash": "world",
    "SimulatedFileSystem": "filesystem",
    "SimulationReport": "simulation.report",
    "StoreContract": "contract",
    "TearingPlace": "world",
    "Terminate": "world",
    "UpgradeReport": ".deploys.upgrading",
    "Verdict": ".deploys.checking",
    "Violation": "report",
    "VirtualClock": "clock",
    "check_deploy": ".deploys.checking",
    "check_upgrade": ".deploys.upgrading",
    "explore_crashes": "crashes",
    "explore_orders": "orders",
    "export_history": ".deploys.transfers",
    "import_history": ".deploys.transfers",
    "misfits_of": ".deploys.replaying",
    "perturbed": "perturbation",
    "perturbed_histories": "perturbation",
    "read_history": ".deploys.histories",
    "run": "running",
    "seeded": "faulty",
    "simulate": "simulation.simulate",
    "strategies": "strategies",
    "write_history": ".deploys.histories",
}
"""Where each public name lives: one named like its module is the module; a module whose name begins with a dot stands
beside this package."""


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used."""
    if name not in MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = importlib.import_module(f".{MODULES[name]}", __name__)
    value = module if MODULES[name] == name else getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """The public names."""
    return __all__
