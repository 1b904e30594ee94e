"""The training loss against PyTorch's and the formula."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from scipy.special import log_softmax

from cnnbench_plugins.loss.cross_entropy import CrossEntropy


def draw() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(7, 4, generator=generator), torch.rand(7, 4, generator=generator)


def test_one_hot_targets_give_the_cross_entropy_of_labels():
    logits, _ = draw()
    labels = torch.arange(7) % 4
    expected = F.cross_entropy(logits, labels)
    torch.testing.assert_close(CrossEntropy()(logits, F.one_hot(labels, 4).float()), expected)


def test_soft_targets_follow_the_formula():
    logits, shares = draw()
    targets = shares / shares.sum(1, keepdim=True)
    expected = -(targets.numpy() * log_softmax(logits.numpy(), 1)).sum(1).mean()
    torch.testing.assert_close(CrossEntropy()(logits, targets).item(), float(expected), atol=1e-6, rtol=1e-5)


def test_gradient_is_softmax_minus_target():
    logits, shares = draw()
    targets = shares / shares.sum(1, keepdim=True)
    logits.requires_grad_()
    CrossEntropy()(logits, targets).backward()
    torch.testing.assert_close(logits.grad, (logits.detach().softmax(1) - targets) / 7)
