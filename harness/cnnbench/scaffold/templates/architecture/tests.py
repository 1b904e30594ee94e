"""Tests of template_name: every rule of cnnbench's conformance kit, and what it computes."""

from __future__ import annotations

import torch
from torch import nn

from cnnbench.scaffold.templates.architecture.technique import Template
from cnnbench.testing import ConformanceCase


class TestTemplate(ConformanceCase):
    """A test for each rule that techniques of slot architecture keep."""

    technique = Template


def test_the_network_behind_is_built_for_and_sees_the_larger_images() -> None:
    """The kit sees that the network changed, not that it changed in the way that is meant."""
    built: list[tuple[int, int, int]] = []

    def model(image_shape: tuple[int, int, int], num_classes: int) -> nn.Module:
        built.append(image_shape)
        return nn.Identity()

    images = torch.rand(2, 3, 4, 5)
    seen = Template(factor=3)(model)((3, 4, 5), 10)(images)
    assert built == [(3, 12, 15)]
    # Each pixel's own position lies in the middle of its 3 x 3, where interpolation leaves the value as it was.
    torch.testing.assert_close(seen[:, :, 1::3, 1::3], images)
