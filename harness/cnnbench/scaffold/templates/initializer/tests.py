"""Tests of template_name: every rule of cnnbench's conformance kit, and what it computes."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from cnnbench.scaffold.templates.initializer.technique import Template
from cnnbench.testing import ConformanceCase


class TestTemplate(ConformanceCase):
    """A test for each rule that techniques of slot initializer keep."""

    technique = Template


def test_each_unit_has_its_connections_and_signals_keep_their_size() -> None:
    """The method's two promises, of which the kit knows nothing."""
    layer = nn.Linear(200, 5000)
    with torch.no_grad():
        Template(connections=10)(layer, torch.Generator().manual_seed(0))
    assert torch.equal((layer.weight != 0).sum(1), torch.full((5000,), 10))
    signals = torch.randn(100, 200, generator=torch.Generator().manual_seed(1))
    # Var(w) = 2 / 10 over 10 connections: outputs have twice the inputs' mean square, of which ReLU leaves a half.
    assert layer(signals).relu().square().mean().item() == pytest.approx(1, rel=0.05)
