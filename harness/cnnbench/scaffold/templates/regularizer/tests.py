"""Tests of template_name: every rule of cnnbench's conformance kit, and what it computes."""

from __future__ import annotations

import torch
from torch import nn

from cnnbench.scaffold.templates.regularizer.technique import Template
from cnnbench.testing import ConformanceCase


class TestTemplate(ConformanceCase):
    """A test for each rule that techniques of slot regularizer keep."""

    technique = Template


def test_a_step_keeps_the_mean_of_each_units_weights() -> None:
    """What the method promises, of which the kit knows nothing; without it the means do move."""
    moved = {}
    for centred in (False, True):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(36, 2))
        weights = [p for p in model.parameters() if p.ndim > 1]
        before = [p.detach().flatten(1).mean(1) for p in weights]
        model(torch.rand(5, 3, 5, 5)).square().sum().backward()
        if centred:
            Template().gradients(model, torch.Generator(), 0)
        torch.optim.SGD(model.parameters(), lr=0.1).step()
        after = [p.detach().flatten(1).mean(1) for p in weights]
        moved[centred] = max((a - b).abs().max().item() for a, b in zip(after, before, strict=True))
    assert moved[True] < 1e-6 < moved[False]
