"""Tests of template_name: every rule of cnnbench's conformance kit, and what it computes."""

from __future__ import annotations

import math

import torch

from cnnbench.scaffold.templates.compressor.technique import Template, powers_of_two
from cnnbench.testing import ConformanceCase


class TestTemplate(ConformanceCase):
    """A test for each rule that techniques of slot compressor keep."""

    technique = Template


def test_weights_become_the_powers_of_two_that_are_nearest_by_ratio() -> None:
    """The kit sees a changed model; that each weight went to the right place only arithmetic on floats can tell."""
    weight = torch.randn(500, generator=torch.Generator().manual_seed(0))
    rounded = powers_of_two(weight, levels=5)
    exponents = set()
    for before, after in zip(weight.tolist(), rounded.tolist(), strict=True):
        if after:
            mantissa, exponent = math.frexp(after)
            assert abs(mantissa) == 0.5, "a power of two"
            assert 2**-0.5 <= before / after <= 2**0.5
            exponents.add(exponent)
    smallest = min(abs(w) for w, r in zip(weight.tolist(), rounded.tolist(), strict=True) if r)
    assert len(exponents) == 5
    assert all(abs(w) < smallest for w, r in zip(weight.tolist(), rounded.tolist(), strict=True) if not r)
