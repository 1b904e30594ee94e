"""Tests of template_name: every rule of cnnbench's conformance kit, and what it computes."""

from __future__ import annotations

import pytest
import torch

from cnnbench.scaffold.templates.loss.technique import Template
from cnnbench.testing import ConformanceCase


class TestTemplate(ConformanceCase):
    """A test for each rule that techniques of slot loss keep."""

    technique = Template


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_it_is_cross_entropy_weighted_by_what_is_left_to_learn(gamma: float) -> None:
    """Cross-entropy of each image is torch's own; the weight is the paper's, from the probability of its class."""
    logits, labels = torch.randn(8, 5, dtype=torch.float64), torch.arange(8) % 5
    weight = (1 - logits.softmax(1)[torch.arange(8), labels]) ** gamma
    expected = (weight * torch.nn.functional.cross_entropy(logits, labels, reduction="none")).mean()
    targets = torch.nn.functional.one_hot(labels, 5).double()
    torch.testing.assert_close(Template(gamma)(logits, targets), expected)
