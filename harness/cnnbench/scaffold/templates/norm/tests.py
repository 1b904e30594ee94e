"""Tests of template_name: every rule of cnnbench's conformance kit, and what it computes."""

from __future__ import annotations

import torch
from torch import nn

from cnnbench.scaffold.templates.norm.technique import Template
from cnnbench.testing import ConformanceCase


class TestTemplate(ConformanceCase):
    """A test for each rule that techniques of slot norm keep."""

    technique = Template


def test_it_is_torchs_rms_norm_over_channels_and_positions() -> None:
    """The kit can't know the formula, so an implementation by others says what is right."""
    images = torch.randn(3, 4, 5, 6)
    layer = Template(eps=0.01)(nn.BatchNorm2d(4))
    torch.testing.assert_close(layer(images), nn.functional.rms_norm(images, (4, 5, 6), eps=0.01))
