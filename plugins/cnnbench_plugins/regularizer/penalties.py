"""Terms added to the loss."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Gt

from cnnbench.lazy import F, nn, torch
from cnnbench.technique import technique
from cnnbench_plugins.regularizer._weights import regularized


@technique("regularizer", "l1")
class L1:
    """Add the sum of the weights' magnitudes to the loss.

    loss + strength Σ|w| over the weights, not the activations (Tibshirani 1996, the lasso). Its gradient,
    strength x sign(w), pushes every weight towards 0 at the same speed whatever its size. Under gradient descent
    weights end near 0, not at it. Weights of linear and convolution layers; ``norms_and_biases`` takes in every
    parameter. The default strength is small because the sum grows with the number of weights; no paper's.

    Helps ahead of magnitude pruning. Known not to make a network sparse or fast by itself, and to cost accuracy at
    strengths where many weights vanish.
    """

    strength: Annotated[float, Gt(0)] = 1e-5
    norms_and_biases: bool = False

    def penalty(self, model: nn.Module, logits: torch.Tensor) -> torch.Tensor:  # noqa: ARG002 - the slot's signature
        """Scalar to add to the loss."""
        found = regularized(model, norms_and_biases=self.norms_and_biases)
        return self.strength * torch.stack([weight.abs().sum() for weight in found]).sum()


@technique("regularizer", "l2")
class L2:
    """Add half the sum of the squared weights to the loss.

    loss + strength / 2 Σw² (Krogh & Hertz 1992). Its gradient is strength x w: with plain SGD and momentum the same as
    the optimizer's ``weight_decay`` option. It is coupled: adaptive optimizers rescale it with the rest of the
    gradient, for them see ``weight_decay``. Weights of linear and convolution layers; ``norms_and_biases`` takes in
    every parameter. The default strength is that of He et al. 2016, section 3.4.

    Helps generalization at long budgets. Known not to limit what a layer followed by batch normalization computes,
    which ignores the weights' scale: there it acts through the effective learning rate (van Laarhoven 2017).
    """

    strength: Annotated[float, Gt(0)] = 1e-4
    norms_and_biases: bool = False

    def penalty(self, model: nn.Module, logits: torch.Tensor) -> torch.Tensor:  # noqa: ARG002 - the slot's signature
        """Scalar to add to the loss."""
        found = regularized(model, norms_and_biases=self.norms_and_biases)
        return 0.5 * self.strength * torch.stack([weight.square().sum() for weight in found]).sum()


@technique("regularizer", "elastic_net")
class ElasticNet:
    """Add both the weights' magnitudes and their squares to the loss.

    loss + l1 Σ|w| + l2 / 2 Σw² (Zou & Hastie 2005, section 2.1, the naive elastic net; their rescaling of the solution
    is for linear regression). The sum of ``l1`` and ``l2`` with these strengths, whose defaults it has, over the same
    weights: of linear and convolution layers; ``norms_and_biases`` takes in every parameter.

    Helps where ``l1`` does: of several weights that do the same, the squares keep all instead of one by chance. Known
    to share the limits of both.
    """

    l1: Annotated[float, Gt(0)] = 1e-5
    l2: Annotated[float, Gt(0)] = 1e-4
    norms_and_biases: bool = False

    def penalty(self, model: nn.Module, logits: torch.Tensor) -> torch.Tensor:
        """Scalar to add to the loss."""
        magnitudes = L1(self.l1, self.norms_and_biases).penalty(model, logits)
        return magnitudes + L2(self.l2, self.norms_and_biases).penalty(model, logits)


@technique("regularizer", "confidence_penalty")
class ConfidencePenalty:
    """Reward outputs of high entropy.

    loss - strength H(p), with H(p) = -Σ p log p in nats over the K classes, averaged over the batch (Pereyra et al.
    2017, section 3; the default is their best for MNIST and CIFAR-10, section 4.1).

    Helps calibration where networks grow overconfident. Known to do little beyond what ``label_smoothing`` does, and to
    lower confidence that was right.
    """

    strength: Annotated[float, Gt(0)] = 0.1

    def penalty(self, model: nn.Module, logits: torch.Tensor) -> torch.Tensor:  # noqa: ARG002 - the slot's signature
        """Scalar to add to the loss, from logits [N, K]."""
        log_probabilities = F.log_softmax(logits.float(), 1)
        return self.strength * (log_probabilities.exp() * log_probabilities).sum(1).mean()


TECHNIQUES = (L1, L2, ElasticNet, ConfidencePenalty)
