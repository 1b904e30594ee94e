from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from types import ModuleType

    from cnnbench.registry import Registry


@pytest.fixture(scope="session")
def fakes() -> ModuleType:
    """``fake_techniques.py`` as a module: test files import nothing from each other under importlib mode."""
    spec = importlib.util.spec_from_file_location("fake_techniques", Path(__file__).with_name("fake_techniques.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["fake_techniques"] = module  # where annotations are looked up
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def fake_registry(fakes: ModuleType) -> Registry:
    """A registry of techniques that do nothing."""
    return fakes.make_registry()
