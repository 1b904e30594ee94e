"""Early stopping."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from annotated_types import Ge

from cnnbench.errors import Unsupported
from cnnbench.slots import Observer, StrategyKind
from cnnbench.technique import technique

if TYPE_CHECKING:
    from cnnbench.lazy import nn, torch
    from cnnbench.slots import TrainingRun
    from cnnbench.types import Progress, Trained


class BestWeights(Observer):
    """Keeps the weights of the best epoch, and stops once patience is exhausted.

    Attributes:
        state: copy of the best epoch's state dict; empty before the first finite value.
        best_epoch: 0-based; None before the first finite value.
    """

    def __init__(self, patience: int, min_delta: float, metric: Literal["loss", "accuracy"]) -> None:
        self.patience = patience
        self.min_delta = min_delta
        self.metric = metric
        self.state: dict[str, torch.Tensor] = {}
        self.best_epoch: int | None = None
        self._best = float("inf")
        self._reference = float("inf")
        self._waited = 0

    def after_epoch(self, model: nn.Module, progress: Progress) -> bool:
        """Copy the weights if they are the best so far; True once ``patience`` epochs brought no real improvement."""
        value = progress.validation_loss if self.metric == "loss" else progress.validation_accuracy
        if value is None:
            raise Unsupported("early stopping chooses by validation, and there is no validation split: set validation")
        cost = value if self.metric == "loss" else -value
        if cost < self._best:
            self._best, self.best_epoch = cost, progress.epoch
            self.state = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
        if cost < self._reference - self.min_delta:
            self._reference, self._waited = cost, 0
        else:
            self._waited += 1
        return self._waited >= self.patience


@technique("strategy", "early_stopping")
class EarlyStopping:
    """Stop when validation no longer improves, and go back to the best epoch's weights.

    Training ends after ``patience`` epochs in a row without an improvement by more than ``min_delta`` of ``metric``
    (``loss`` in nats, ``accuracy`` as a share); the weights and buffers of the epoch that validated best return, also
    where training ran to its end. The test split plays no part. Prechelt 1998; the default patience is a third of the
    usual budget here. The record notes ``best_epoch`` and ``stopped_epoch``, the last one trained, both 0-based.

    Helps where networks overfit, and saves time. Known to cut a decaying learning rate short: with a cosine schedule
    the last epochs improve most. Where a stop left the learning rate above the schedule's last, a line under the table
    says so, and the record notes ``schedule_factor``, the share of the full rate at which it stood.
    """

    acts_on: ClassVar[StrategyKind] = "weights"

    patience: Annotated[int, Ge(1)] = 5
    min_delta: Annotated[float, Ge(0)] = 0.0
    metric: Literal["loss", "accuracy"] = "loss"

    def __call__(self, run: TrainingRun) -> Trained:
        """Train, stop early, restore.

        Raises:
            Unsupported: there is no validation split.
        """
        observer = BestWeights(self.patience, self.min_delta, self.metric)
        trained = run.fit(observer)
        if observer.state:
            trained.model.load_state_dict(observer.state)
        last = trained.history[-1]
        notes = {**trained.notes, "best_epoch": observer.best_epoch, "stopped_epoch": last.epoch}
        remarks = list(trained.remarks)
        if last.epoch + 1 < last.epochs:
            steps = last.step // (last.epoch + 1) * last.epochs
            factor = run.schedule(last.step, steps)
            if factor > run.schedule(steps - 1, steps):
                notes["schedule_factor"] = factor
                remarks.append(cut_short(factor))
        return replace(trained, notes=notes, remarks=remarks)


def cut_short(factor: float) -> str:
    """A remark on a schedule that had still been at a share ``factor`` of the full rate; rounded, for seeds differ."""
    share = float(f"{100 * factor:.1g}")
    return f"early_stopping ended training while the schedule had the learning rate still at about {share:g} %"


TECHNIQUES = (EarlyStopping,)
