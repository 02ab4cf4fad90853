"""A store of another package is found by the scheme of its URL, and keeps every promise of a log."""

from __future__ import annotations

import importlib
import itertools
import shutil
import tomllib
from pathlib import Path

import pytest

import zart_core as zart
from zart_core.testing import StoreContract

PACKAGE = Path(__file__).parent
names = itertools.count()


@zart.step("greet-{name}")
def greet(name: str) -> str:
    return f"hello {name}"


@zart.workflow("greeting")
def greeting(name: str) -> zart.Flow[str]:
    return (yield from greet(name))


@pytest.fixture(scope="session")
def site(tmp_path_factory):
    """A directory into which the package is installed, as `pip install --target` leaves it."""
    target = tmp_path_factory.mktemp("site")
    project = tomllib.loads((PACKAGE / "pyproject.toml").read_text())["project"]
    shutil.copy(PACKAGE / "zart_drawer.py", target)
    info = target / f"zart_drawer-{project['version']}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    )
    lines = [
        f"[{group}]\n" + "".join(f"{k} = {v}\n" for k, v in points.items())
        for group, points in project["entry-points"].items()
    ]
    (info / "entry_points.txt").write_text("\n".join(lines))
    return target


@pytest.fixture
def installed(site, monkeypatch):
    """The package is installed."""
    monkeypatch.syspath_prepend(site)
    importlib.invalidate_caches()


def test_unknown_before_it_is_installed():
    """Without the package its scheme is unknown."""
    with pytest.raises(zart.UnknownStore, match="no installed package offers a store for 'drawer:'"):
        zart.open_log("drawer:x")


@pytest.mark.usefixtures("installed")
def test_found_once_it_is_installed():
    """With it, `zart.open` finds it by the scheme alone."""
    url = f"drawer:{next(names)}"
    with zart.open(url, [greeting], durability="none") as engine:
        assert engine.run(greeting, "you") == "hello you"
        assert type(engine.engine.log).__name__ == "Drawer"
        assert engine.engine.log.writes > 0
    log = zart.open_log(url)
    assert [record.kind for record in log.records(log.list().items[0].id)][-1] == "Closed"
    log.close()


@pytest.mark.usefixtures("installed")
def test_its_own_errors():
    """What it refuses, it refuses by itself."""
    with pytest.raises(zart.InvalidUse, match="write drawer:NAME"):
        zart.open_log("drawer:")
    with pytest.raises(zart.UnknownStore, match="known schemes: drawer, file, memory, postgresql, sqlite"):
        zart.open_log("cupboard:x")


@pytest.mark.usefixtures("installed")
class TestDrawerContract(StoreContract):
    """Every promise, with the suite that ships with Zart."""

    durable = False

    @pytest.fixture(autouse=True)
    def place(self, installed):
        self.url = f"drawer:contract-{next(names)}"
        self.now = 1000.0

    def open(self):
        drawer = importlib.import_module("zart_drawer")
        return drawer.open(self.url, clock=lambda: self.now)

    def advance(self, seconds):
        self.now += seconds
