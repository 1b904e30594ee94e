"""Ensembles: what they answer, what they cost, and how they join with other strategies."""

from __future__ import annotations

import copy
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from cnnbench.artifact import load_model, save_model
from cnnbench.errors import Unsupported
from cnnbench.slots import Observer
from cnnbench.stages.profile import profile
from cnnbench.stages.train import train
from cnnbench_plugins.strategy._combined import Ensemble, log_mean_softmax
from cnnbench_plugins.strategy.averaging import Ema, Swa
from cnnbench_plugins.strategy.early_stopping import EarlyStopping
from cnnbench_plugins.strategy.ensembles import Cycles, DeepEnsemble, SnapshotEnsemble


@pytest.fixture
def images() -> torch.Tensor:
    return torch.rand(5, 1, 8, 8, generator=torch.Generator().manual_seed(4))


def probabilities(model: torch.nn.Module, images: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(images).double().softmax(1)


def test_log_mean_softmax_is_the_log_of_the_mean_probability():
    logits = 4 * torch.randn(3, 6, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    torch.testing.assert_close(log_mean_softmax(logits), logits.softmax(2).mean(0).log())


def test_log_mean_softmax_stays_finite_where_probabilities_vanish():
    logits = torch.tensor([[[0.0, 500.0]], [[0.0, 400.0]]])
    torch.testing.assert_close(log_mean_softmax(logits), torch.tensor([[(-400.0) - torch.log(torch.tensor(2.0)), 0.0]]))


def test_half_precision_answers_are_averaged_in_single(images):
    logits = torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(1)).bfloat16()
    assert log_mean_softmax(logits).dtype == torch.float32


def test_a_deep_ensemble_averages_independent_trainings(make_run, images):
    run = make_run()
    trained = DeepEnsemble(k=3)(run)
    alone = [run.fit(member=index) for index in range(3)]
    mean = torch.stack([probabilities(one.model, images) for one in alone]).mean(0)
    torch.testing.assert_close(probabilities(trained.model, images), mean)
    torch.testing.assert_close(trained.model(images).double().exp(), mean)  # log-probabilities, not any logits
    assert not torch.allclose(probabilities(alone[0].model, images), probabilities(alone[1].model, images))
    assert trained.history == alone[0].history == run.fit().history
    assert len(trained.notes["members"]) == 3


def test_the_cost_of_an_ensemble_is_that_of_its_members(make_run, images):
    run = make_run(epochs=1)
    one = profile(run.fit().model, images).metrics
    four = profile(DeepEnsemble(k=4)(run).model, images).metrics
    for name in ("params", "params_trainable", "params_nonzero", "flops"):
        assert four[name] == 4 * one[name], name
    assert 3 < four["size_bytes"] / one["size_bytes"] < 4.5  # the archive's own share is not multiplied
    snapshots = profile(SnapshotEnsemble(cycles=3)(run).model, images).metrics
    assert (snapshots["params"], snapshots["flops"]) == (3 * one["params"], 3 * one["flops"])


def test_early_stopping_acts_on_each_member(make_run, images):
    run = make_run(epochs=6)
    stop = EarlyStopping(patience=1, min_delta=0.5)
    trained = train(run, [DeepEnsemble(k=2), stop])
    alone = [stop(run.of_member(member)) for member in range(2)]
    assert trained.notes["members"] == [one.notes for one in alone]
    assert min(len(one.history) for one in alone) < 6
    mean = torch.stack([probabilities(one.model, images) for one in alone]).mean(0)
    torch.testing.assert_close(probabilities(trained.model, images), mean)
    assert not torch.allclose(probabilities(alone[0].model, images), probabilities(alone[1].model, images))
    assert trained.remarks == list(dict.fromkeys(remark for one in alone for remark in one.remarks))


@pytest.mark.parametrize(
    "strategies",
    [
        [EarlyStopping(), Ema()],
        [Ema(), EarlyStopping()],
        [EarlyStopping(), Swa()],
        [SnapshotEnsemble(), Ema()],
        [EarlyStopping(), SnapshotEnsemble()],
        [EarlyStopping(), DeepEnsemble()],
    ],
    ids=lambda strategies: "+".join(type(s).__name__ for s in strategies),
)
def test_lists_in_which_one_strategy_would_undo_another_are_refused(make_run, strategies):
    with pytest.raises(Unsupported):
        train(make_run(), strategies)


def test_an_ensemble_of_snapshot_ensembles(make_run, images):
    trained = train(make_run(), [DeepEnsemble(k=2), SnapshotEnsemble(cycles=3)])
    assert [member["snapshots"] for member in trained.notes["members"]] == [3, 3]
    assert trained.model(images).exp().sum(1).tolist() == pytest.approx([1] * 5)


class Spy(Observer):
    """The model after every step."""

    def __init__(self) -> None:
        self.models: list[torch.nn.Module] = []

    def after_step(self, model, step):
        self.models.append(copy.deepcopy(model))


@pytest.mark.parametrize(
    ("epochs", "cycles", "ends"),
    [(4, 2, [5, 11]), (4, 3, [3, 7, 11]), (4, 5, [1, 4, 6, 9, 11]), (1, 2, [1, 2]), (1, 5, [0, 1, 2])],
)
def test_snapshots_are_the_networks_at_the_ends_of_torchs_cosine_cycles(make_run, images, epochs, cycles, ends):
    run = make_run(epochs=epochs)  # 3 steps an epoch
    trained = SnapshotEnsemble(cycles=cycles)(run)
    factors = []
    for first, last in pairwise([-1, *ends]):
        optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
        annealing = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=last - first)
        for _ in range(last - first):
            factors.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            annealing.step()
    spy = Spy()
    run.fit(spy, schedule=lambda step, total: factors[step])
    assert trained.notes["snapshots"] == len(ends)
    assert ["snapshots" in remark for remark in trained.remarks] == [True] * (len(ends) < cycles)
    mean = torch.stack([probabilities(spy.models[step], images) for step in ends]).mean(0)
    torch.testing.assert_close(probabilities(trained.model, images), mean)


@given(st.integers(1, 300), st.integers(2, 12))
def test_there_are_as_many_cycles_as_asked_for_and_as_even_as_steps_allow(total, cycles):
    restarts = Cycles(cycles)
    ends = [step for step in range(total) if restarts(step, total) is not None and restarts.ends(step)]
    lengths = [last - first for first, last in pairwise([-1, *ends])]
    assert len(ends) == min(cycles, total)
    assert ends[-1] == total - 1
    assert max(lengths) - min(lengths) <= 1
    assert [restarts(first + 1, total) for first, _ in pairwise([-1, *ends])] == [1.0] * len(ends)


def test_an_ensemble_passes_between_stages_and_answers_for_one_image(make_run, images, tmp_path):
    model = DeepEnsemble(k=2)(make_run(epochs=1)).model
    save_model(tmp_path / "model.pt", model, torch.nn.Identity())
    loaded = copy.deepcopy(load_model(tmp_path / "model.pt").model)
    torch.testing.assert_close(loaded(images[:1]), model(images)[:1])


def test_members_learn_from_the_loss_of_their_mean():
    """Log-probabilities serve as logits: a compressor may train the ensemble on."""
    ensemble = Ensemble([torch.nn.Linear(4, 3), torch.nn.Linear(4, 3)])
    F.cross_entropy(ensemble(torch.ones(2, 4)), torch.tensor([0, 1])).backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in ensemble.parameters())
