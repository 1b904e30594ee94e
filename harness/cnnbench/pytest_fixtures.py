"""Fixtures for the tests of plugins; pytest loads this wherever cnnbench is installed, so nothing heavy is imported."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from cnnbench.registry import Registry


@pytest.fixture(scope="session")
def cnnbench_registry() -> Registry:
    """Every technique that is installed, by slot and name."""
    from cnnbench.plugins import PluginHost

    return PluginHost.discover().registry
