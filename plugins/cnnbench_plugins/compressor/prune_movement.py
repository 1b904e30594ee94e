"""Unstructured pruning of the weights that fine-tuning moves towards zero."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from annotated_types import Ge, Gt, Lt

from cnnbench import technique
from cnnbench.lazy import nn, torch
from cnnbench_plugins.compressor._sparsity import (
    Held,
    Scope,
    check_pruned,
    cubic_sparsity,
    nonzeros,
    smallest,
)

if TYPE_CHECKING:
    from cnnbench.slots import CompressionContext


class Movement(Held):
    """Scores each weight by its movement, and masks those of the lowest scores, which may come back.

    The forward pass sees w * mask; the gradient with respect to that product, which a masked weight gets as well, both
    trains the weights in use and adds -w * gradient to every score (the straight-through estimator).

    Attributes:
        scores: by layer, in the weights' shapes; sums over the steps so far.
    """

    def __init__(self, model: nn.Module, sparsity: float, scope: Scope) -> None:
        super().__init__(model, {})
        self._final = sparsity
        self._sparsity = 0.0
        self._scope = scope
        self.scores = {name: torch.zeros_like(weight) for name, weight in self.weights.items()}
        self._dense = {name: weight.detach().clone() for name, weight in self.weights.items()}

    def before_epoch(self, model: nn.Module, epoch: int, epochs: int) -> None:  # noqa: ARG002
        """Choose weights anew, at the epoch's sparsity: none at first, all of them in the last."""
        last = epoch + 1 == epochs  # at once where there is one epoch, as in a rehearsal
        self._sparsity = self._final if last else cubic_sparsity(self._final, epoch, epochs - 1)
        self._choose()

    def after_step(self, model: nn.Module, step: int) -> None:  # noqa: ARG002
        """Add the step to the scores, undo what it did to masked weights, and choose anew."""
        for name, weight in self.weights.items():
            if weight.grad is not None:
                self.scores[name] -= self._dense[name] * weight.grad
            self._dense[name] = torch.where(self.masks[name], weight.detach(), self._dense[name])
        self._choose()

    def _choose(self) -> None:
        self.masks = smallest(self.scores, self._sparsity, self._scope)
        with torch.no_grad():
            for name, weight in self.weights.items():
                weight.copy_(self._dense[name])  # one that comes back has the value that it left with
        self.enforce()


@technique("compressor", "prune_movement")
class PruneMovement:
    """Sets the weights that fine-tuning moves towards zero to zero, whatever their size.

    Sanh et al. 2020 (Movement Pruning: Adaptive Sparsity by Fine-Tuning, section 3, hard movement pruning). Through
    fine-tuning each weight gathers the score S = -sum over steps of w * dL/dw: positive where the steps lead away from
    zero. The weights of the lowest scores are masked; the forward pass sees w * mask, gradients pass straight through,
    so a masked weight keeps its value, goes on scoring and may come back: the mask is chosen anew at every step. In
    epoch e = 0..E-1 the share s * (1 - (1 - e/(E-1))^3) is masked (the paper's cubic schedule): nothing in the first,
    which only scores, all round(s * n) in the last. Learning rate: a tenth of SGD's usual 0.1, as in the other
    prunings; more epochs than there, since scores need steps to become more than noise.

    Helps: transfer, where a pretrained weight's size tells of the source task, and high sparsity.
    Known not to help: at low sparsity, where magnitude does better in the paper; with few or small fine-tuning steps;
    latency, FLOPs or memory on dense hardware.

    Attributes:
        scope: ``global`` compares weights over all layers, ``layer`` within each.
        learning_rate: base rate of the fine-tuning, in place of the recipe's.
    """

    sparsity: Annotated[float, Gt(0), Lt(1)] = 0.9
    scope: Scope = "global"
    epochs: Annotated[int, Ge(2)] = 6
    learning_rate: Annotated[float, Gt(0)] = 0.01

    def __call__(self, model: nn.Module, context: CompressionContext) -> nn.Module:
        """Fine-tune and prune in place; raises ``NoEffect`` where no weight becomes zero."""
        before = nonzeros(model)
        movement = Movement(model, self.sparsity, self.scope)
        context.train(model, epochs=self.epochs, learning_rate=self.learning_rate, observers=[movement])
        check_pruned(model, before, self.sparsity)
        return model


TECHNIQUES = (PruneMovement,)
