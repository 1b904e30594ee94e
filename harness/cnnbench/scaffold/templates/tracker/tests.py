"""Tests of template_name: every rule of cnnbench's conformance kit, and what it writes."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import pandas as pd

from cnnbench.scaffold.templates.tracker.technique import Template
from cnnbench.testing import ConformanceCase
from cnnbench.types import Progress

if TYPE_CHECKING:
    from pathlib import Path


class TestTemplate(ConformanceCase):
    """A test for each rule that techniques of slot tracker keep."""

    technique = Template


def test_others_can_read_what_it_writes(tmp_path: Path) -> None:
    """The kit looks at no file; pandas reads it back, with a comma and quotes in an arm's name."""
    observer = Template()({"results": str(tmp_path / "results")})
    trial = {"key": "k", "dataset": "digits", "arm": 'width 4, "thin"', "seed": 3, "stage": "train"}
    for epoch in (0, 1):
        observer.cnnbench_epoch_finished(trial, asdict(Progress(epoch, 2, 10 * (epoch + 1), 0.5, 0.25, 0.75, 0.1)))
    observer.close()
    table = pd.read_csv(tmp_path / "results" / "epochs.csv")
    assert table["arm"].tolist() == ['width 4, "thin"'] * 2
    assert table["step"].tolist() == [10, 20]
    assert table["validation_accuracy"].tolist() == [0.75, 0.75]
    assert table["seed"].tolist() == [3, 3]
