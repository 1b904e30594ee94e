from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
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


def suite_text(arms: dict[str, str] | None = None, /, metrics: tuple[str, ...] = ("accuracy",), **top: Any) -> str:
    """A suite that takes seconds: a tiny network, one epoch on 200 digits.

    Args:
        arms: TOML of the changes by name, in order.
        metrics: what it measures.
        top: keys at its top, as JSON values.
    """
    top = {"question": "Does it work?", "seeds": 1, "device": "cpu", **top}
    lines = [f"{key} = {json.dumps(value)}" for key, value in top.items()]
    lines += ['dataset = { name = "digits", train_size = 200, test_size = 100 }']
    lines += ['model = { name = "resnet", depth = 8, width = 4 }']
    lines += ["[recipe]", "epochs = 1", "batch_size = 64", "[measure]", f"metrics = {json.dumps(metrics)}", "[arms]"]
    return "\n".join([*lines, *(f'"{name}" = {changes}' for name, changes in (arms or {}).items())]) + "\n"


@pytest.fixture(scope="session")
def tiny_suite() -> Callable[..., str]:
    """``suite_text``."""
    return suite_text
