"""torch-pruning's importances against their formulas, on networks whose channels are worth known amounts."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from cnnbench.artifact import load_model, save_model
from cnnbench.errors import NoEffect, UsageError
from cnnbench_plugins.compressor._gradients import look_at_gradients
from cnnbench_plugins.compressor.torch_pruning import TorchPruning

pytest.importorskip("torch_pruning")


def params(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("epochs", [0, 1])
@pytest.mark.parametrize("importance", ["FPGM", "LAMP", "GroupTaylor", "GroupHessian", "Activation"])
def test_networks_become_smaller_and_pass_between_stages(model, context, tmp_path, importance, epochs):
    before = params(model)
    scope = "global" if importance == "LAMP" else "layer"
    small = TorchPruning(importance, scope=scope, epochs=epochs)(model, context)
    assert params(small) < 0.5 * before
    assert all(p.requires_grad and p.grad is None for p in small.parameters()) or epochs
    assert not any("_importance" in vars(m) for m in small.modules())
    save_model(tmp_path / "model", small.eval(), nn.Identity())
    assert torch.equal(load_model(tmp_path / "model").model.eval()(context.example), small(context.example))


class Two(nn.Module):
    """Six channels between two convolutions; nothing but their weights makes one matter more than another."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 6, 3, bias=False)
        self.second = nn.Conv2d(6, 10, 6, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(self.first(x).relu()).flatten(1)


@pytest.fixture
def two(context):
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = Two()
        context.train(model, epochs=2)
        return model


def kept(model: Two, first: torch.Tensor) -> list[int]:
    """Which of the old filters are left."""
    return [next(i for i, old in enumerate(first) if torch.equal(new, old)) for new in model.first.weight.detach()]


def highest(scores: torch.Tensor, count: int = 3) -> list[int]:
    return sorted(scores.topk(count).indices.tolist())


def weights(model: Two) -> tuple[torch.Tensor, torch.Tensor]:
    """Both layers' weights as [channel, values]."""
    return model.first.weight.detach().flatten(1), model.second.weight.detach().transpose(0, 1).flatten(1)


def distances(weight: torch.Tensor) -> torch.Tensor:
    return (weight[:, None] - weight[None]).square().sum(2).sqrt().sum(1)


@pytest.mark.parametrize("p", [1, 2])
def test_fpgm_removes_filters_in_the_midst_of_the_others(two, context, p):
    old, scores = two.first.weight.detach().clone(), sum(distances(w.abs() ** p) for w in weights(two))
    assert kept(TorchPruning("FPGM", {"p": p}, epochs=0)(two, context), old) == highest(scores)


@pytest.mark.parametrize(("importance", "power"), [("GroupTaylor", 1), ("GroupHessian", 2)])
def test_gradients_are_summed_batch_by_batch_without_their_signs(two, context, importance, power):
    gradients: list[tuple[torch.Tensor, torch.Tensor]] = []

    def look(copied: Two) -> None:
        gradients.append((copied.first.weight.grad.flatten(1), copied.second.weight.grad.transpose(0, 1).flatten(1)))

    look_at_gradients(two, context, look)
    assert len(gradients) > 3
    scores = sum(
        ((weight * gradient).abs() ** power).sum(1)
        for batch in gradients
        for weight, gradient in zip(weights(two), batch, strict=True)
    )
    old = two.first.weight.detach().clone()
    assert kept(TorchPruning(importance, epochs=0)(two, context), old) == highest(scores)


def test_activation_ranks_by_what_comes_into_the_next_layer(two, context):
    with torch.no_grad():
        scores = F.relu(two.first(context.calibration(256))).mean((0, 2, 3))
    old = two.first.weight.detach().clone()
    assert kept(TorchPruning("Activation", epochs=0)(two, context), old) == highest(scores)


def test_lamp_ranks_all_layers_as_one():
    """Lee et al. 2021, equation 3: w² over the sum of the squares that are no smaller, for filters."""
    from torch_pruning import importance

    from cnnbench_plugins.compressor._channels import remove_channels

    class Chain(nn.Sequential):
        pass

    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Chain(nn.Conv2d(1, 8, 1, bias=False), nn.ReLU(), nn.Conv2d(8, 6, 1, bias=False), nn.ReLU())
        model.append(nn.Conv2d(6, 3, 1, bias=False))
    scores = []
    for before, after in ((model[0], model[2]), (model[2], model[4])):
        both = (before.weight.square().sum((1, 2, 3)) + after.weight.square().sum((0, 2, 3))) / 2
        scores.append(torch.stack([one / both[both >= one].sum() for one in both]))
    threshold = torch.cat(scores).sort().values[14 - 7]
    expected = [int((one >= threshold).sum()) for one in scores]
    remove_channels(model, torch.zeros(1, 1, 2, 2), 0.5, importance.LAMPImportance(), "global")
    assert [model[0].out_channels, model[2].out_channels] == expected
    assert sum(expected) == 7


def test_suites_are_told_what_cannot_be_meant():
    with pytest.raises(ValueError, match='LAMP ranks within a layer as l2 does: set scope = "global"'):
        TorchPruning("LAMP")
    with pytest.raises(ValueError, match="multivariable needs signed gradients"):
        TorchPruning("GroupTaylor", {"multivariable": True})


def test_options_are_torch_prunings_own(model, context):
    with pytest.raises(UsageError, match="FPGM has no option 'group_reductions': did you mean 'group_reduction'"):
        TorchPruning("FPGM", {"group_reductions": "max"})(model, context)
    with pytest.raises(NoEffect, match="removed no channel"):
        TorchPruning("FPGM", ratio=0.999)(model, context)
