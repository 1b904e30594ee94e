"""Tests of template_name: every rule of cnnbench's conformance kit, and what it computes."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from cnnbench.scaffold.templates.optimizer.technique import Template
from cnnbench.testing import ConformanceCase


class TestTemplate(ConformanceCase):
    """A test for each rule that techniques of slot optimizer keep."""

    technique = Template


def test_steps_are_those_of_the_papers_algorithm() -> None:
    """The algorithm's lines as they stand in the paper, in NumPy: the kit can't know them."""
    lr, beta1, beta2, decay = 0.01, 0.8, 0.95, 0.1
    model = nn.Linear(4, 3, bias=False).double()
    optimizer = Template(lr, beta1, beta2, decay)(model)
    weight = model.weight.detach().numpy().copy()
    momentum = np.zeros_like(weight)
    gradients = np.random.default_rng(0).normal(size=(6, *weight.shape))
    for gradient in gradients:
        model.weight.grad = torch.from_numpy(gradient)
        optimizer.step()
        update = np.sign(beta1 * momentum + (1 - beta1) * gradient)
        weight = weight - lr * (update + decay * weight)
        momentum = beta2 * momentum + (1 - beta2) * gradient
    np.testing.assert_allclose(model.weight.detach().numpy(), weight, rtol=1e-12)
