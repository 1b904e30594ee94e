"""Tests of template_name: every rule of cnnbench's conformance kit, and what it writes."""

from __future__ import annotations

from typing import Any

from cnnbench.scaffold.templates.reporter.technique import Template
from cnnbench.testing import ConformanceCase


class TestTemplate(ConformanceCase):
    """A test for each rule that techniques of slot reporter keep."""

    technique = Template


def trial(arm: str, seed: int, accuracy: float | None) -> dict[str, Any]:
    """As much of a record as the reporter reads; without an accuracy it failed."""
    metrics = {} if accuracy is None else {"accuracy": accuracy}
    return {
        "dataset": "digits",
        "arm": arm,
        "seed": seed,
        "status": "ok" if metrics else "failed",
        "metrics": metrics,
    }


def test_the_order_is_that_of_means_that_one_can_compute_by_hand() -> None:
    """Among them a trial that ran twice, a failed one, and an arm with nothing else."""
    records = [
        trial("broken", 0, None),
        trial("baseline", 0, 0.25),
        trial("baseline", 1, 0.75),
        trial("better", 0, 0.0),
        trial("better", 0, 0.875),
        trial("better", 1, None),
    ]
    assert Template(digits=3)(records).splitlines() == [
        "accuracy on digits",
        "  0.875  better (seeds: 1)",
        "  0.500  baseline (seeds: 2)",
        "  none  broken (seeds: 0)",
    ]
