"""Tests of template_name: every rule of cnnbench's conformance kit, and what it computes."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import torch
from torch import nn

from cnnbench.scaffold.templates.runtime.technique import Template
from cnnbench.testing import ConformanceCase

if TYPE_CHECKING:
    from cnnbench.slots import ServingContext


class TestTemplate(ConformanceCase):
    """A test for each rule that techniques of slot runtime keep."""

    technique = Template


def test_a_linear_layer_multiplies_rounded_numbers() -> None:
    """Computed in float64 from inputs and weights that were rounded by hand: what autocast is meant to do."""
    layer, images = nn.Linear(64, 10, bias=False), torch.randn(5, 64)
    context = cast("ServingContext", SimpleNamespace(example=images[:1]))
    logits = Template()(layer, context)(images)
    rounded = images.bfloat16().double() @ layer.weight.detach().bfloat16().double().T
    assert logits.dtype == torch.float32
    # The result is rounded as well, to 8 bits.
    torch.testing.assert_close(logits.double(), rounded, rtol=2**-7, atol=2**-7)
    assert (logits.double() - images.double() @ layer.weight.detach().double().T).abs().max() > 1e-5
