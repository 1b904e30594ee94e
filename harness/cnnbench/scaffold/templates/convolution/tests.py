"""Tests of template_name: every rule of cnnbench's conformance kit, and what it computes."""

from __future__ import annotations

import torch
from torch import nn

from cnnbench.scaffold.templates.convolution.layers import CoordConv
from cnnbench.scaffold.templates.convolution.technique import Template
from cnnbench.testing import ConformanceCase


class TestTemplate(ConformanceCase):
    """A test for each rule that techniques of slot convolution keep."""

    technique = Template


def test_it_is_a_convolution_of_images_with_two_more_channels() -> None:
    """The paper joins the coordinates to the channels; the sum of two convolutions must come to the same."""
    layer = Template()(nn.Conv2d(3, 4, 3, stride=2, padding=1))
    assert isinstance(layer, CoordConv)
    nn.init.normal_(layer.where.weight)
    images = torch.randn(2, 3, 5, 7)
    rows, columns = torch.meshgrid(torch.linspace(-1, 1, 5), torch.linspace(-1, 1, 7), indexing="ij")
    joined = torch.cat([images, rows.expand(2, 1, 5, 7), columns.expand(2, 1, 5, 7)], 1)
    weight = torch.cat([layer.conv.weight, layer.where.weight], 1)
    expected = nn.functional.conv2d(joined, weight, layer.conv.bias, stride=2, padding=1)
    torch.testing.assert_close(layer(images), expected)
