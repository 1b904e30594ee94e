"""Every suite in suites/ can run, asks a question and knows its own noise."""

from __future__ import annotations

from pathlib import Path

import pytest

from cnnbench.plugins import PluginHost
from cnnbench.suite import load

SUITES = sorted((Path(__file__).parents[2] / "suites").glob("*.toml"))


@pytest.fixture(scope="module")
def registry():
    return PluginHost.discover().registry


@pytest.mark.parametrize("path", SUITES, ids=lambda path: path.stem)
def test_a_shipped_suite_is_a_controlled_comparison(path, registry):
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    suite = load(path, registry)
    assert lines[0].startswith("question = "), "it opens with its question"
    assert suite.question.endswith("?")
    assert suite.placebo
    assert len(suite.seeds) >= 3
    assert len(suite.arms) >= 2
    assert len({arm.changes for arm in suite.arms}) == len(suite.arms), "no two arms are the same"
