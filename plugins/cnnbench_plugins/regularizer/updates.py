"""Changes to gradients before the optimizer's step, and to weights after it."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Gt

from cnnbench.lazy import nn, torch
from cnnbench.technique import technique
from cnnbench_plugins.regularizer._weights import regularized


@technique("regularizer", "weight_decay")
class WeightDecay:
    """Shrink the weights a little after every step, apart from the gradient.

    w <- w (1 - learning rate x strength) (Loshchilov & Hutter 2019, algorithm 2): decoupled, so that adaptive
    optimizers do not rescale it. They shrink before the gradient's update and this after it, which differs by a term in
    the square of the learning rate. Weights of linear and convolution layers; ``norms_and_biases`` takes in every
    parameter. The default strength is that of AdamW in PyTorch; SGD, with its larger learning rate, wants about 5e-4.

    Helps with Adam at long budgets. Known to do next to nothing over a few epochs, where the product of learning rate,
    strength and steps stays far below 1.
    """

    strength: Annotated[float, Gt(0)] = 0.01
    norms_and_biases: bool = False

    def weights(self, model: nn.Module, learning_rate: float) -> None:
        """Shrink the weights in place."""
        with torch.no_grad():
            for weight in regularized(model, norms_and_biases=self.norms_and_biases):
                weight.mul_(1 - learning_rate * self.strength)


@technique("regularizer", "max_norm")
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


@technique("regularizer", "grad_clip")
class GradClip:
    """Scale the gradient back where it is too long.

    g <- g x min(1, norm / ‖g‖₂) with the norm over all parameters together (Pascanu et al. 2013, algorithm 1). The
    default of 1 is customary, not theirs: they set it from the average norm seen in training.

    Helps against exploding gradients: deep networks without normalization, large learning rates. Known to be a hidden
    learning rate reduction where it acts on every step.
    """

    norm: Annotated[float, Gt(0)] = 1.0

    def gradients(self, model: nn.Module, generator: torch.Generator) -> None:  # noqa: ARG002 - the slot's signature
        """Scale ``.grad`` in place."""
        torch.nn.utils.clip_grad_norm_(model.parameters(), self.norm)


TECHNIQUES = (WeightDecay, MaxNorm, GradClip)
