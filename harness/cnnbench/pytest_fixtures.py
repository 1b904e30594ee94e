"""Fixtures for the tests of plugins; pytest loads this wherever cnnbench is installed, so nothing heavy is imported."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from cnnbench.registry import Registry
    from cnnbench.testing.check import Inspection


@pytest.fixture(scope="session")
def cnnbench_registry() -> Registry:
    """Every technique that is installed, by slot and name."""
    from cnnbench.plugins import PluginHost

    return PluginHost.discover().registry


@pytest.fixture(scope="class")
def cnnbench_inspection(
    request: pytest.FixtureRequest, cnnbench_registry: Registry, tmp_path_factory: pytest.TempPathFactory
) -> Inspection:
    """The technique of a ``ConformanceCase``, ready to be held to rules; what one rule looked at the next need not."""
    from cnnbench.testing.check import Inspection, subject_of
    from cnnbench.testing.subject import entry_of

    case = request.cls
    entry = entry_of(case.technique, cnnbench_registry)
    options = case.options(tmp_path_factory.mktemp("files"))
    return Inspection(subject_of(entry, cnnbench_registry, tmp_path_factory.mktemp("kit"), options))
