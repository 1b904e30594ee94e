"""SWA against torch's AveragedModel and update_bn on the snapshots of the very same training."""

from __future__ import annotations

import copy

import pytest
import torch

from cnnbench.slots import Observer
from cnnbench_plugins.strategy.averaging import Swa, then_constant


class Snapshots(Observer):
    """The model as it is before the first step of an epoch, and after its last."""

    def __init__(self) -> None:
        self.before: list[torch.nn.Module] = []
        self.after: list[torch.nn.Module] = []

    def before_epoch(self, model, epoch, epochs):
        self.before.append(copy.deepcopy(model))

    def after_epoch(self, model, progress):
        self.after.append(copy.deepcopy(model))
        return False


def schedule(step: int, total: int) -> float:
    """By hand for 8 epochs of 3 steps: cosine over all of them for 6 epochs, then half of the full rate."""
    return (1 + torch.cos(torch.tensor(torch.pi * step / total)).item()) / 2 if step < 18 else 0.5


def test_swa_equals_torchs_averaged_model_on_the_same_snapshots(make_run):
    run = make_run(epochs=8)
    trained = Swa()(run)
    assert trained.notes["averaged"] == 3

    spy = Snapshots()
    raw = run.fit(spy, schedule=schedule)
    reference = torch.optim.swa_utils.AveragedModel(spy.before[6])
    for snapshot in (spy.before[6], spy.after[6], spy.after[7]):
        reference.update_parameters(snapshot)
    images = run.how.splits.train_images.float() / 255
    torch.optim.swa_utils.update_bn([images], reference)

    found, expected = trained.model.state_dict(), reference.module.eval().state_dict()
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], msg=name)
    assert not torch.equal(found["0.weight"], raw.model.state_dict()["0.weight"])
    assert not trained.model.training


@pytest.mark.parametrize(
    ("epochs", "start", "factor", "first"), [(8, 0.75, 0.5, 6), (10, 0.5, 1.0, 5), (2, 0.75, 0.2, 1), (3, 0.01, 0.2, 1)]
)
def test_the_recipes_schedule_holds_until_the_rate_stays_constant(make_run, epochs, start, factor, first):
    run = make_run(epochs=epochs)
    rates = [progress.learning_rate for progress in Swa(start=start, factor=factor)(run).history]
    plain = [progress.learning_rate for progress in run.fit().history]
    assert rates[:first] == plain[:first]
    assert rates[first:] == pytest.approx([0.1 * factor] * (epochs - first))


def test_the_rate_changes_between_epochs_and_not_within_one():
    combined = then_constant(lambda step, total: 1.0, 3, 4, 0.25)
    assert [combined(step, 20) for step in range(20)] == [1.0] * 15 + [0.25] * 5


def test_one_epoch_leaves_the_weights_and_says_so(make_run):
    run = make_run(epochs=1)
    trained = Swa()(run)
    (remark,) = trained.remarks
    assert "nothing to average" in remark
    for a, b in zip(trained.model.parameters(), run.fit().model.parameters(), strict=True):
        assert torch.equal(a, b)
