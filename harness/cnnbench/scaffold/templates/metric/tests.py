"""Tests of template_name: every rule of cnnbench's conformance kit, and what it computes."""

from __future__ import annotations

import pytest
import torch
from sklearn.metrics import accuracy_score

from cnnbench.scaffold.templates.metric.technique import Template
from cnnbench.testing import ConformanceCase


class TestTemplate(ConformanceCase):
    """A test for each rule that techniques of slot metric keep."""

    technique = Template


def test_it_is_the_error_of_the_images_above_a_threshold() -> None:
    """scikit-learn's accuracy on the images that a threshold keeps: the definition, computed another way round."""
    generator = torch.Generator().manual_seed(0)
    probabilities = torch.randn(200, 5, generator=generator, dtype=torch.float64).softmax(1)
    labels = torch.randint(0, 5, (200,), generator=generator)
    confidence, predicted = probabilities.max(1)
    kept = confidence >= confidence.sort(descending=True).values[149]
    expected = 1 - accuracy_score(labels[kept], predicted[kept])
    assert Template(coverage=0.75)(probabilities, labels) == pytest.approx(expected)
    assert Template(coverage=1.0)(probabilities, labels) == pytest.approx(1 - accuracy_score(labels, predicted))
