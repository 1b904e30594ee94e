"""Techniques that break the kit's rules: every ``bad_*.py`` of this folder, loaded as modules of their own."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from cnnbench.plugins import PluginHost
from cnnbench.testing import check, entry_of, subject_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

    from cnnbench.registry import Registry
    from cnnbench.testing import Finding


HERE = Path(__file__).parent

sys.path.append(str(Path(__file__).parent))  # where a process that reads a model finds its classes


def load(path: Path) -> ModuleType:
    """A file as a module, where annotations and worker processes look it up."""
    if path.stem not in sys.modules:
        spec = importlib.util.spec_from_file_location(path.stem, path)
        assert spec is not None
        assert spec.loader is not None
        sys.modules[path.stem] = module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return sys.modules[path.stem]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """``broken`` is each rule of ``bad_training.py`` with who breaks it, ``good`` each that keeps all."""
    if "broken" in metafunc.fixturenames:
        module = load(HERE / "bad_training.py")
        cases = [*((rule, *case) for rule, case in module.BAD.items()), *module.MORE]
        metafunc.parametrize("broken", cases, ids=[f"{rule}-{cls.__name__}" for rule, cls, _ in cases])
    if "good" in metafunc.fixturenames:
        good = load(HERE / "bad_training.py").GOOD
        metafunc.parametrize("good", good, ids=[cls.__name__ for cls in good])


@pytest.fixture(scope="session")
def bad_rules() -> set[str]:
    """Names of the rules that some ``bad_*.py`` breaks."""
    return {rule for path in HERE.glob("bad_*.py") for rule in load(path).BAD}


@pytest.fixture(scope="session")
def known() -> Registry:
    """Every technique that is installed."""
    return PluginHost.discover().registry


@pytest.fixture
def findings(known: Registry, tmp_path: Path) -> Callable[[type[Any]], list[Finding]]:
    """What the kit finds of a class."""
    registry = known.copy()

    def found(cls: type[Any]) -> list[Finding]:
        return list(check(subject_of(entry_of(cls, registry), registry, tmp_path)))

    return found
