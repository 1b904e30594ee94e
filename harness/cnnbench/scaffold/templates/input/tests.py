"""Tests of template_name: every rule of cnnbench's conformance kit, and what it computes."""

from __future__ import annotations

import torch
from sklearn.preprocessing import RobustScaler

from cnnbench.scaffold.templates.input.technique import Template
from cnnbench.testing import ConformanceCase


class TestTemplate(ConformanceCase):
    """A test for each rule that techniques of slot input keep."""

    technique = Template


def test_it_is_scikit_learns_robust_scaler_channel_by_channel() -> None:
    """The kit can't know the formula, so an implementation by others says what is right."""
    images = torch.randint(0, 256, (20, 3, 4, 4), dtype=torch.uint8)
    pixels = (images.movedim(1, -1).flatten(0, 2) / 255).numpy()
    expected = RobustScaler(quantile_range=(10, 90)).fit_transform(pixels).reshape(20, 4, 4, 3)
    inputs = Template(low=0.1, high=0.9)(images)(images / 255)
    torch.testing.assert_close(inputs.movedim(1, -1), torch.from_numpy(expected), rtol=1e-4, atol=1e-5)
