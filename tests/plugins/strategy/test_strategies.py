"""Strategies on a training run that follows a script."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import pytest
import torch
from torch import nn

from cnnbench.errors import Unsupported
from cnnbench.types import Progress, Trained
from cnnbench_plugins.schedule.decays import Constant, Cosine, Step
from cnnbench_plugins.strategy.averaging import Ema
from cnnbench_plugins.strategy.early_stopping import EarlyStopping

if TYPE_CHECKING:
    from cnnbench.slots import Schedule


@dataclasses.dataclass
class ScriptedRun:
    """Each epoch sets the weights to its number (and takes ``steps`` steps); validation is read from the script."""

    losses: list[float | None]
    accuracies: list[float | None] | None = None
    steps: int = 1
    schedule: Schedule = dataclasses.field(default_factory=Constant)
    recalibrated: list[nn.Module] = dataclasses.field(default_factory=list)

    @property
    def epochs(self) -> int:
        return len(self.losses)

    def fit(self, *observers, member=0, schedule=None):
        model = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2))
        history: list[Progress] = []
        step = 0
        for epoch, loss in enumerate(self.losses):
            for _ in range(self.steps):
                step += 1
                with torch.no_grad():
                    for parameter in model.parameters():
                        parameter.fill_(step)
                    model[1].running_mean.fill_(epoch)
                for observer in observers:
                    observer.after_step(model, step - 1)
            accuracy = self.accuracies[epoch] if self.accuracies else None
            history.append(Progress(epoch, self.epochs, step, 1.0, loss, accuracy, 0.1))
            if any(observer.after_epoch(model, history[-1]) for observer in observers):
                break
        return Trained(model.eval(), history, {"from": "fit"})

    def recalibrate(self, model):
        self.recalibrated.append(model)


def weight(trained: Trained) -> float:
    values = torch.cat([p.detach().flatten() for p in trained.model.parameters()]).unique()
    assert len(values) == 1
    return values.item()


@pytest.mark.parametrize(
    ("losses", "patience", "min_delta", "best", "stopped"),
    [
        ([5, 4, 3, 4, 5, 1], 2, 0.0, 2, 4),  # stops before the late improvement
        ([5, 4, 3, 4, 5, 1], 3, 0.0, 5, 5),  # waits for it
        ([5, 4, 3, 2, 1], 1, 0.0, 4, 4),  # improves to the end
        ([5, 6, 7, 8, 9], 9, 0.0, 0, 4),  # restores although it never stops early
        ([5, 4.9, 4.8, 4.7, 1], 2, 0.5, 2, 2),  # small steps are no reason to go on, yet the best weights count
        ([5, 4.9, 4.8, 4.4, 4.3], 3, 0.5, 4, 4),  # ... and add up
        ([3, 3, 3, 3], 2, 0.0, 0, 2),  # standing still is no improvement
        ([5, float("nan"), float("nan"), 1], 2, 0.0, 0, 2),
    ],
)
def test_early_stopping_stops_and_restores(losses, patience, min_delta, best, stopped):
    trained = EarlyStopping(patience=patience, min_delta=min_delta)(ScriptedRun(losses))
    assert trained.notes == {"from": "fit", "best_epoch": best, "stopped_epoch": stopped}
    assert weight(trained) == best + 1
    assert trained.model[1].running_mean.tolist() == [best, best]
    assert len(trained.history) == stopped + 1


def test_early_stopping_by_accuracy_looks_for_the_highest():
    run = ScriptedRun([1.0, 2.0, 3.0, 4.0], accuracies=[0.5, 0.7, 0.6, 0.6])
    trained = EarlyStopping(patience=2, metric="accuracy")(run)
    assert trained.notes["best_epoch"] == 1
    assert weight(trained) == 2


def test_early_stopping_without_validation_is_unsupported():
    with pytest.raises(Unsupported, match="no validation split"):
        EarlyStopping()(ScriptedRun([None, None]))


def test_a_stop_that_cuts_the_schedule_short_is_remarked_upon():
    # Stops after 3 of 8 epochs of 4 steps, before step 12 of 32: (1 + cos(12 pi / 32)) / 2.
    run = ScriptedRun([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0], steps=4, schedule=Cosine())
    trained = EarlyStopping(patience=2)(run)
    assert trained.notes["stopped_epoch"] == 2
    assert trained.notes["schedule_factor"] == pytest.approx(0.691341716)
    (remark,) = trained.remarks
    assert remark.startswith("early_stopping")
    assert "still at about 70 %" in remark


@pytest.mark.parametrize(
    ("schedule", "patience"),
    [
        (Cosine(), 9),  # never stops early
        (lambda step, total: 1 - step % 8 / 8, 9),  # nor one that would start over
        (Constant(), 2),  # has nowhere to fall
        (Step(milestones=(0.2, 0.3)), 3),  # has fallen already
    ],
)
def test_no_remark_where_the_schedule_had_nothing_left(schedule, patience):
    run = ScriptedRun([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0], steps=4, schedule=schedule)
    trained = EarlyStopping(patience=patience)(run)
    assert trained.remarks == []
    assert "schedule_factor" not in trained.notes


def test_early_stopping_with_nothing_finite_leaves_the_last_weights():
    trained = EarlyStopping(patience=2)(ScriptedRun([float("nan")] * 3))
    assert trained.notes["best_epoch"] is None
    assert weight(trained) == 2


@pytest.mark.parametrize("decay", [0.15, 0.9])
def test_ema_is_the_weighted_sum_of_all_steps(decay):
    run = ScriptedRun([1.0, 1.0, 1.0], steps=4)
    trained = Ema(decay=decay)(run)
    weights = [1.0]  # of each step's weights in the average, by the definition
    for step in range(1, 12):
        kept = min(decay, (1 + step) / (10 + step))
        weights = [w * kept for w in weights] + [1 - kept]
    assert sum(weights) == pytest.approx(1)
    assert weight(trained) == pytest.approx(sum(w * (i + 1) for i, w in enumerate(weights)), rel=1e-5)
    assert run.recalibrated == [trained.model]


def test_ema_of_constant_weights_changes_nothing():
    class Constant(ScriptedRun):
        def fit(self, *observers, member=0, schedule=None):
            model = nn.Linear(3, 2)
            for step in range(5):
                for observer in observers:
                    observer.after_step(model, step)
            self.before = [p.detach().clone() for p in model.parameters()]
            return Trained(model, [])

    run = Constant([1.0])
    trained = Ema()(run)
    for parameter, before in zip(trained.model.parameters(), run.before, strict=True):
        torch.testing.assert_close(parameter.detach(), before)
