"""Changes to gradients before the optimizer's step, and to weights after it."""

from __future__ import annotations

import math
from typing import Annotated

from annotated_types import Ge, Gt

from cnnbench.lazy import nn, torch
from cnnbench.technique import technique
from cnnbench_plugins.regularizer._weights import regularized


@technique("regularizer", "weight_decay")
class WeightDecay:
    """Shrink the weights a little after every step, apart from the gradient.

    w <- w (1 - learning rate x strength) (Loshchilov & Hutter 2019, algorithm 2): decoupled, so that adaptive
    optimizers do not rescale it. They shrink before the gradient's update and this after it, which differs by a term in
    the square of the learning rate. Weights of linear and convolution layers; ``norms_and_biases`` takes in every
    parameter. What is frozen, or had no gradient in this step, keeps its value, as in PyTorch's optimizers. The default
    strength is that of AdamW in PyTorch; SGD, with its larger learning rate, wants about 5e-4.

    Helps with Adam at long budgets. Known to do next to nothing over a few epochs, where the product of learning rate,
    strength and steps stays far below 1.
    """

    strength: Annotated[float, Gt(0)] = 0.01
    norms_and_biases: bool = False

    def weights(self, model: nn.Module, learning_rate: float) -> None:
        """Shrink the weights in place."""
        with torch.no_grad():
            for weight in regularized(model, norms_and_biases=self.norms_and_biases):
                if weight.grad is not None:
                    weight.mul_(1 - learning_rate * self.strength)


@technique("regularizer", "max_norm", example={"limit": 0.5})
class MaxNorm:
    """Cap the length of each unit's weight vector.

    After every step a filter or row whose Euclidean norm exceeds ``limit`` is scaled back to it (Srebro & Shraibman
    2005; with dropout, Srivastava et al. 2014, section 5.1 and appendix A.2, where 3 to 4 are typical). In linear and
    convolution layers.

    Helps with dropout and large learning rates. Known not to limit a layer followed by batch normalization.
    """

    limit: Annotated[float, Gt(0)] = 3.0

    def weights(self, model: nn.Module, learning_rate: float) -> None:  # noqa: ARG002 - the slot's signature
        """Scale long weight vectors back in place."""
        with torch.no_grad():
            for weight in regularized(model, norms_and_biases=False):
                weight.renorm_(2, 0, self.limit)


@technique("regularizer", "grad_clip", example={"norm": 0.1})
class GradClip:
    """Scale the gradient back where it is too long.

    g <- g x min(1, norm / ‖g‖₂) with the norm over all parameters together (Pascanu et al. 2013, algorithm 1). The
    default of 1 is customary, not theirs: they set it from the average norm seen in training.

    Helps against exploding gradients: deep networks without normalization, large learning rates. Known to be a hidden
    learning rate reduction where it acts on every step.
    """

    norm: Annotated[float, Gt(0)] = 1.0

    def gradients(self, model: nn.Module, generator: torch.Generator, step: int) -> None:  # noqa: ARG002 - the slot's
        """Scale ``.grad`` in place."""
        torch.nn.utils.clip_grad_norm_(model.parameters(), self.norm)


def noise_std(step: int, eta: float, gamma: float) -> float:
    """Standard deviation sqrt(eta / (1 + step)^gamma) of the noise at 0-based ``step``."""
    return math.sqrt(eta / (1 + step) ** gamma)


@technique("regularizer", "gradient_noise")
class GradientNoise:
    """Add normal noise to the gradient, less and less along the run.

    g <- g + N(0, σ²) with σ² = eta / (1 + step)^gamma for every value on its own (Neelakantan et al. 2015, section 3,
    equations 1 and 2; step from 0). eta / (1 + step)^gamma is the variance, not the standard deviation. The defaults
    are theirs: gamma 0.55, and the smallest of the etas 0.01, 0.3 and 1.0 that they chose from. After ``grad_clip``
    where both are listed in that order, which is theirs too.

    Helps very deep networks that start badly. Known to do little for networks with good initialization and batch
    normalization, and to drown small gradients: σ knows nothing of the gradient's scale, and Adam divides by it.
    """

    eta: Annotated[float, Gt(0)] = 0.01
    gamma: Annotated[float, Ge(0)] = 0.55

    def gradients(self, model: nn.Module, generator: torch.Generator, step: int) -> None:
        """Add to ``.grad`` in place, in the model's order; parameters without a gradient draw nothing."""
        std = noise_std(step, self.eta, self.gamma)
        for parameter in model.parameters():
            if (grad := parameter.grad) is not None:
                drawn = torch.empty(grad.shape, dtype=grad.dtype, device=grad.device)
                grad.add_(drawn.normal_(0, std, generator=generator))


TECHNIQUES = (WeightDecay, MaxNorm, GradClip, GradientNoise)
