"""Tests of template_name: every rule of cnnbench's conformance kit, and what it computes."""

from __future__ import annotations

import pytest
import torch

from cnnbench.scaffold.templates.augmentation.technique import Template
from cnnbench.testing import ConformanceCase


class TestTemplate(ConformanceCase):
    """A test for each rule that techniques of slot augmentation keep."""

    technique = Template


def test_whole_patches_are_hidden_with_the_probability_asked_for() -> None:
    """The kit sees that images change, not that they change in patches and as often as they should."""
    images = torch.rand(2000, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    changed, _ = Template(cells=2, p=0.3)(images, torch.ones(2000, 1), torch.Generator().manual_seed(0))
    touched = (changed != images).view(2000, 3, 2, 4, 2, 4)  # [N, C, patch, 4, patch, 4]
    share = touched.float().mean((1, 3, 5))
    assert set(share.flatten().tolist()) == {0.0, 1.0}
    # 8000 patches: the standard deviation of their share is 0.005.
    assert share.mean().item() == pytest.approx(0.3, abs=0.02)
