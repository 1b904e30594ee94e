"""A second gradient, taken where the loss is higher."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from annotated_types import Gt

from cnnbench.lazy import torch
from cnnbench.technique import technique

if TYPE_CHECKING:
    from cnnbench.lazy import nn


@dataclass(frozen=True)
class Before:
    """What the second pass must not change for good.

    Attributes:
        weights: parameters that were moved, each with its value.
        buffers: of the model, each with its value: the second pass would count twice in batch-norm statistics.
    """

    weights: list[tuple[nn.Parameter, torch.Tensor]]
    buffers: list[tuple[torch.Tensor, torch.Tensor]]


def ascend(parameters: list[nn.Parameter], rho: float) -> None:
    """Move parameters in place by rho g / ‖g‖₂, g being their gradients as one vector; by nothing where it is 0."""
    with torch.no_grad():
        length = torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
        scale = rho / length.clamp(min=torch.finfo(length.dtype).tiny)
        for parameter in parameters:
            if parameter.grad is not None:
                parameter.add_(parameter.grad * scale)


@technique("regularizer", "sam")
class Sam:
    """Take the gradient at the worst point nearby instead of at the weights themselves.

    Sharpness-aware minimization (Foret et al. 2021, section 2, algorithm 1, with p = 2): e = rho g / ‖g‖₂ with the
    batch's gradient g and its norm over all parameters together, not layer by layer; the optimizer then steps from w
    with the gradient taken at w + e. The second pass leaves no trace in batch-norm statistics; dropout draws anew for
    it. The default rho is theirs (section 3.1).

    Helps generalization at long budgets and with label noise. Known to double the training time, since every step
    takes two passes, and to gain little over a few epochs.
    """

    rho: Annotated[float, Gt(0)] = 0.05

    def perturb(self, model: nn.Module) -> Before:
        """Move the weights uphill in place; returns what ``restore`` needs."""
        moved = [p for p in model.parameters() if p.grad is not None]
        before = Before(
            [(parameter, parameter.detach().clone()) for parameter in moved],
            [(buffer, buffer.clone()) for buffer in model.buffers()],
        )
        ascend(moved, self.rho)
        return before

    def restore(self, model: nn.Module, state: Before) -> None:  # noqa: ARG002 - the slot's signature
        """Put weights and buffers back, bit for bit; gradients stay those of the second pass."""
        with torch.no_grad():
            for tensor, value in (*state.weights, *state.buffers):
                tensor.copy_(value)


TECHNIQUES = (Sam,)
