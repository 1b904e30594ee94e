"""Fixtures that several test modules share."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

Install = Callable[[str, str], None]


@pytest.fixture(autouse=True)
def same_draws() -> None:
    """Every test draws the same from torch's global generator, whatever ran before it in its process."""
    torch = sys.modules.get("torch")
    if torch is not None:  # a test of what must work without it has not imported it
        torch.manual_seed(0)


@pytest.fixture(autouse=True)
def forgotten_plugins() -> Iterator[None]:
    """What a test has imported as a plugin that is not installed is forgotten after it, as another process would."""
    before = list(sys.path)
    yield
    marked = [
        module for module in list(sys.modules.values()) if "__cnnbench_digest__" in getattr(module, "__dict__", {})
    ]
    folders = {Path(str(module.__file__)).parents[module.__name__.count(".")] for module in marked}
    folders |= {Path(folder) for folder in sys.path if folder not in before and Path(folder).is_absolute()}
    sys.path[:] = before
    for name, module in list(sys.modules.items()):
        if any(Path(getattr(module, "__file__", None) or "/").is_relative_to(folder) for folder in folders):
            del sys.modules[name]


def installer(site: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Makes ``install(name, source)``, which leaves a plugin in ``site`` as pip would."""
    site.mkdir()
    monkeypatch.syspath_prepend(str(site))

    def install(name: str, source: str) -> None:
        (site / f"{name}.py").write_text(source, encoding="utf-8")
        meta = site / f"{name}-1.0.dist-info"
        meta.mkdir()
        (meta / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n", encoding="utf-8")
        (meta / "entry_points.txt").write_text(f"[cnnbench]\n{name} = {name}\n", encoding="utf-8")
        monkeypatch.delitem(sys.modules, name, raising=False)

    return install


@pytest.fixture
def install_plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Installs a third-party plugin for one test: a module with an entry point in group ``cnnbench``, as pip leaves it.

    Workers get the parent's ``sys.path``, so they find it as well.
    """
    return installer(tmp_path / "site-packages", monkeypatch)


@pytest.fixture(scope="module")
def install_module_plugin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Install]:
    """The same for all tests of a module."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        yield installer(tmp_path_factory.mktemp("plugins") / "site-packages", monkeypatch)


def pytest_make_parametrize_id(config: pytest.Config, val: object, argname: str) -> str | None:
    """A name without an address, so that every process that runs tests collects the same ones."""
    return argname if callable(val) and not isinstance(val, type) and " at 0x" in repr(val) else None
