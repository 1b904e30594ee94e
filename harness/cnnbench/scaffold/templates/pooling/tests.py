"""Tests of template_name: every rule of cnnbench's conformance kit, and what it computes."""

from __future__ import annotations

import torch
from scipy.special import logsumexp
from torch import nn

from cnnbench.scaffold.templates.pooling.technique import Template
from cnnbench.testing import ConformanceCase


class TestTemplate(ConformanceCase):
    """A test for each rule that techniques of slot pooling keep."""

    technique = Template


def test_it_is_scipys_log_of_a_mean_of_exponentials() -> None:
    """The kit can't know the formula, so an implementation by others says what is right."""
    images = torch.randn(2, 3, 4, 5, dtype=torch.float64) * 100
    pooled = Template(sharpness=0.5)(nn.AdaptiveAvgPool2d(1))(images)
    expected = logsumexp(0.5 * images.numpy(), axis=(2, 3), b=1 / 20) / 0.5
    torch.testing.assert_close(pooled.squeeze((2, 3)), torch.from_numpy(expected))
