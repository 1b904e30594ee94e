"""Tests of template_name: every rule of cnnbench's conformance kit, and what it computes."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from cnnbench.scaffold.templates.activation.technique import Template
from cnnbench.testing import ConformanceCase


class TestTemplate(ConformanceCase):
    """A test for each rule that techniques of slot activation keep."""

    technique = Template


def test_standard_normal_inputs_keep_mean_0_and_variance_1() -> None:
    """What the two constants are for; the kit can't know it."""
    x = torch.linspace(-12, 12, 100_001, dtype=torch.float64)
    density = torch.exp(-x.square() / 2)
    density /= density.sum()
    y = Template()(nn.ReLU())(x)
    mean = (density * y).sum().item()
    assert mean == pytest.approx(0, abs=1e-4)
    assert (density * (y - mean).square()).sum().item() == pytest.approx(1, abs=1e-3)
