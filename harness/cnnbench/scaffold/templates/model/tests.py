"""Tests of template_name: every rule of cnnbench's conformance kit, and what it computes."""

from __future__ import annotations

import pytest

from cnnbench.scaffold.templates.model.technique import Template
from cnnbench.testing import ConformanceCase


class TestTemplate(ConformanceCase):
    """A test for each rule that techniques of slot model keep."""

    technique = Template


@pytest.mark.parametrize(("width", "stages"), [(4, 1), (8, 3)])
def test_it_has_as_many_weights_as_the_description_says(width: int, stages: int) -> None:
    """Counted by hand, from the docstring: a layer too many or of the wrong width would pass every other test."""
    channels, classes = 3, 7
    expected = 0
    for stage in range(stages):
        out = width * 2**stage
        expected += 9 * channels * out + 2 * out + 9 * out * out + 2 * out
        channels = out
    expected += channels * classes + classes
    network = Template(width, stages)((3, 9, 10), classes)
    assert sum(parameter.numel() for parameter in network.parameters()) == expected
