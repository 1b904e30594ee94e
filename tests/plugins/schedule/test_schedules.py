"""Schedules against torch.optim.lr_scheduler."""

from __future__ import annotations

import dataclasses
import math
import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.optim import lr_scheduler

from cnnbench_plugins.schedule.decays import Constant, Cosine, Linear, Step
from cnnbench_plugins.schedule.one_cycle import OneCycle

SCHEDULES = [Constant(), Cosine(), Cosine(warmup=0.2, floor=0.1), Linear(), Linear(warmup=0.1), Step(), OneCycle()]


def label(value: object) -> str | None:
    # Only options make an id: a function's text holds its address, which differs from run to run.
    return str(value) if dataclasses.is_dataclass(value) else None


def theirs(make, total: int) -> list[float]:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    scheduler = make(optimizer)
    rates = []
    for _ in range(total):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if len(rates) < total:
                scheduler.step()
    return rates


def ours(schedule, total: int) -> list[float]:
    return [schedule(step, total) for step in range(total)]


@pytest.mark.parametrize("total", [10, 64, 101])
@pytest.mark.parametrize(
    ("schedule", "make"),
    [
        (Constant(), lambda o, n: lr_scheduler.LambdaLR(o, lambda _: 1.0)),
        (Cosine(), lr_scheduler.CosineAnnealingLR),
        (Cosine(floor=0.2), lambda o, n: lr_scheduler.CosineAnnealingLR(o, n, eta_min=0.2)),
        (Linear(), lambda o, n: lr_scheduler.LinearLR(o, 1.0, 0.0, n)),
        (Linear(floor=0.3), lambda o, n: lr_scheduler.LinearLR(o, 1.0, 0.3, n)),
        (Step(), lambda o, n: lr_scheduler.MultiStepLR(o, [round(n * 0.5), round(n * 0.75)])),
        (Step(milestones=(0.3,), gamma=0.5), lambda o, n: lr_scheduler.MultiStepLR(o, [round(n * 0.3)], 0.5)),
        (OneCycle(), lambda o, n: lr_scheduler.OneCycleLR(o, 1.0, n, cycle_momentum=False)),
        (
            OneCycle(rise=0.5, start_divisor=10.0, end_divisor=100.0),
            lambda o, n: lr_scheduler.OneCycleLR(
                o, 1.0, n, pct_start=0.5, div_factor=10.0, final_div_factor=100.0, cycle_momentum=False
            ),
        ),
    ],
    ids=label,
)
def test_factors_equal_pytorchs(schedule, make, total):
    assert ours(schedule, total) == pytest.approx(theirs(lambda o: make(o, total), total), abs=1e-9)


@pytest.mark.parametrize("total", [20, 50])
@pytest.mark.parametrize("cls", [Cosine, Linear])
def test_warm_up_rises_to_1_and_the_rest_follows(cls, total):
    factors = ours(cls(warmup=0.2), total)
    warm = total // 5
    assert factors[:warm] == pytest.approx([(i + 1) / warm for i in range(warm)])
    assert factors[warm:] == pytest.approx(ours(cls(), total - warm))


@settings(deadline=None, max_examples=60)
@given(schedule=st.sampled_from(SCHEDULES), total=st.integers(1, 300), data=st.data())
def test_factors_are_finite_and_within_0_and_1(schedule, total, data):
    factor = schedule(data.draw(st.integers(0, total - 1)), total)
    assert isinstance(factor, float)
    assert math.isfinite(factor)
    assert 0 <= factor <= 1


@pytest.mark.parametrize("milestones", [(), (0.5, 0.5), (0.7, 0.3), (0.0, 0.5), (0.5, 1.0)])
def test_milestones_must_ascend_within_the_run(milestones):
    with pytest.raises(ValueError, match="ascending shares"):
        Step(milestones=milestones)
