"""Tests of template_name: every rule of cnnbench's conformance kit, and what it computes."""

from __future__ import annotations

import numpy as np

from cnnbench.scaffold.templates.schedule.technique import Template
from cnnbench.testing import ConformanceCase


class TestTemplate(ConformanceCase):
    """A test for each rule that techniques of slot schedule keep."""

    technique = Template


def test_it_is_the_line_through_four_points() -> None:
    """The shape as one would draw it, by NumPy's interpolation: the kit only asks for numbers that are sane."""
    schedule = Template(warmup=0.2, decay=0.5)
    factors = [schedule(step, 100) for step in range(100)]
    expected = np.interp(np.arange(100), [-1, 19, 50, 100], [0, 1, 1, 0])
    np.testing.assert_allclose(factors, expected, atol=1e-12)
