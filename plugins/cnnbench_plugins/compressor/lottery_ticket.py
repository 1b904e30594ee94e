"""Lottery tickets: iterative magnitude pruning that goes back to the initial weights."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Annotated

from annotated_types import Ge, Gt, Lt

from cnnbench import technique
from cnnbench.errors import Unsupported
from cnnbench.lazy import nn, torch
from cnnbench.slots import Observer
from cnnbench_plugins.compressor._sparsity import Held, Scope, check_pruned, nonzeros, prunable_weights, smallest

if TYPE_CHECKING:
    from cnnbench.slots import CompressionContext
    from cnnbench.types import Progress


class _Snapshot(Observer):
    """Keeps the state of the model after some epoch, or after the last one where there are fewer."""

    def __init__(self, epoch: int) -> None:
        self._epoch = epoch
        self.state: dict[str, torch.Tensor] = {}

    def after_epoch(self, model: nn.Module, progress: Progress) -> bool:
        if progress.epoch < self._epoch:
            self.state = copy.deepcopy(model.state_dict())
        return False


def redraw(model: nn.Module, generator: torch.Generator) -> None:
    """Shuffle each conv and linear weight within its layer, in place: another draw from the same distribution."""
    with torch.no_grad():
        for weight in prunable_weights(model).values():
            order = torch.randperm(weight.numel(), generator=generator).to(weight.device)
            weight.copy_(weight.flatten()[order].view_as(weight))


def check_same(initial: nn.Module, model: nn.Module) -> None:
    """Raise ``Unsupported`` unless a model is what one training made of ``initial``, weight by weight.

    Args:
        initial: as built.
        model: as trained, with ``cnnbench.surgery.fold_for_inference``.
    """
    from cnnbench.surgery import fold_for_inference
    from cnnbench_plugins.strategy._combined import Ensemble, ViewAverage

    kinds = {type(module) for module in model.modules()}
    if ViewAverage in kinds:
        raise Unsupported("the model looks at several views of each image: drop test_time_augmentation")
    if Ensemble in kinds:
        raise Unsupported("the model is an ensemble, which has no initial weights of its own: drop the ensemble")
    folded = copy.deepcopy(initial)
    fold_for_inference(folded)
    shapes = [[(name, value.shape) for name, value in m.state_dict().items()] for m in (folded, model)]
    if shapes[0] != shapes[1]:
        raise Unsupported(
            "the model's layers are not those it was built with: name lottery_ticket first among the compressors"
        )
    own, plain = prunable_weights(initial), prunable_weights(folded)
    other = [name for name in own if name not in plain or not torch.equal(own[name], plain[name])]
    if other:
        raise Unsupported(
            f"pruned weights of {other[0]} would not stay 0: the layer computes with other weights than it has, as "
            "after weight_standardization"
        )


@technique("compressor", "lottery_ticket")
class LotteryTicket:
    """Prunes in rounds, each of which trains the weights that are left anew from their initial values.

    Frankle & Carbin 2019 (The Lottery Ticket Hypothesis, section 2, iterative pruning with resetting). Round r of R
    masks, by magnitude of the trained weights, round(s_r * n) of all n with 1 - s_r = (1 - sparsity)^(r/R), so that
    each round prunes the same share of what is left; then the others go back to what they were before training, batch
    norms too, and train for ``epochs`` with the recipe. The first round prunes the arm's trained network. ``rewind``
    above 0 goes back to the weights after that epoch of a dense training of its own, of as many epochs, whose final
    weights the first round prunes (Frankle et al. 2020, Linear Mode Connectivity, section 4: large networks have
    tickets only there); each round then still trains for all ``epochs``. ``reinitialise`` is the paper's control: the
    same mask, but for the last training the initial weights are shuffled within each layer, which is a fresh draw of
    the same distribution where the initializer draws weights independently. The paper prunes 20 % a round, so about
    seven rounds for sparsity 0.8; five keep the cost down. Initial weights are those that the model is built with:
    behind strategy ``transfer`` tickets forget what was learned elsewhere, of which the first mask alone then knows.
    ``epochs`` should be the recipe's own number; ``learning_rate`` None is the recipe's.

    Helps: to ask whether a sparse network could have been trained from the start.
    Known not to help: latency, FLOPs or memory on dense hardware; training time, which is R trainings more; large
    networks at usual learning rates without ``rewind`` (section 5 of the paper).

    Attributes:
        scope: ``global`` compares weights over all layers, ``layer`` within each.
    """

    sparsity: Annotated[float, Gt(0), Lt(1)] = 0.8
    rounds: Annotated[int, Ge(1)] = 5
    rewind: Annotated[int, Ge(0)] = 0
    reinitialise: bool = False
    scope: Scope = "global"
    epochs: Annotated[int, Ge(1)] = 15
    learning_rate: Annotated[float, Gt(0)] | None = None

    def __post_init__(self) -> None:
        if self.reinitialise and self.rewind:
            raise ValueError(f"reinitialise starts from fresh weights: expected rewind = 0, found {self.rewind}")
        if self.rewind >= self.epochs:
            raise ValueError(f"expected rewind below epochs = {self.epochs}, found {self.rewind}")

    def __call__(self, model: nn.Module, context: CompressionContext) -> nn.Module:
        """Return the ticket, trained, in place of the model; raises ``Unsupported`` or ``NoEffect``.

        What computes something extra for training alone is in it again, to be folded.
        """
        before = nonzeros(model)
        # Not the given network, in which what is for training alone is folded: tickets train as the arm did.
        network = context.initial()
        check_same(network, model)
        start = copy.deepcopy(network.state_dict())
        trained = model
        if self.rewind:
            snapshot = _Snapshot(self.rewind)
            context.train(network, epochs=self.epochs, learning_rate=self.learning_rate, observers=[snapshot])
            start, trained = snapshot.state, network
        for done in range(1, self.rounds + 1):
            sparsity = 1 - (1 - self.sparsity) ** (done / self.rounds)
            scores = {name: weight.detach().abs() for name, weight in prunable_weights(trained).items()}
            masks = smallest(scores, sparsity, self.scope)
            network.load_state_dict(start)
            if self.reinitialise and done == self.rounds:
                redraw(network, context.generator)
            held = Held(network, masks)
            held.enforce()
            context.train(network, epochs=self.epochs, learning_rate=self.learning_rate, observers=[held])
            trained = network
        check_pruned(network, before, self.sparsity)
        return network


TECHNIQUES = (LotteryTicket,)
