"""Norms against torch's functions and their formulas."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.fx import symbolic_trace

from cnnbench.errors import Unsupported
from cnnbench.surgery import apply_surgery, fold_for_inference
from cnnbench_plugins.norm.standard import BatchNorm, GroupNorm, InstanceNorm, LayerNorm, NoNorm, group_norm


@pytest.fixture
def old():
    """A norm with scale and shift of its own, float64."""
    norm = nn.BatchNorm2d(12).double()
    generator = torch.Generator().manual_seed(1)
    for parameter in norm.parameters():
        parameter.data.normal_(generator=generator)
    return norm


@pytest.fixture
def x():
    return torch.randn(5, 12, 4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(2)) * 3 + 1


def normalized(x, dims, eps=1e-5):
    """(x - mean) / sqrt(biased variance + eps), written out."""
    mean = x.mean(dims, keepdim=True)
    return (x - mean) / ((x - mean).square().mean(dims, keepdim=True) + eps).sqrt()


def affine(x, norm):
    return x * norm.weight[:, None, None] + norm.bias[:, None, None]


def replaced(technique, old):
    model = nn.Sequential(old)
    apply_surgery("norm", technique, model)
    return model[0]


def test_none_adds_the_bias_alone(old, x):
    new = replaced(NoNorm(), old)
    torch.testing.assert_close(new(x), x + old.bias[:, None, None])
    assert [name for name, _ in new.named_parameters()] == ["bias"]
    assert replaced(NoNorm(), nn.BatchNorm2d(3)).bias.tolist() == [0, 0, 0]


def test_none_without_bias_is_the_identity(old, x):
    new = replaced(NoNorm(bias=False), old)
    assert torch.equal(new(x), x)
    assert not list(new.parameters())


def test_batch_in_training_by_its_formula(old, x):
    new = replaced(BatchNorm(momentum=0.3, eps=0.01), old)
    torch.testing.assert_close(new(x), affine(normalized(x, (0, 2, 3), 0.01), old))
    torch.testing.assert_close(new.running_mean, 0.3 * x.mean((0, 2, 3)))
    torch.testing.assert_close(new.running_var, 0.7 + 0.3 * x.transpose(0, 1).flatten(1).var(1, correction=1))


def test_batch_at_inference_uses_the_running_statistics(old, x):
    old(x)
    new = replaced(BatchNorm(), old).eval()
    torch.testing.assert_close(
        new(x), F.batch_norm(x, old.running_mean, old.running_var, old.weight, old.bias, training=False)
    )


@pytest.mark.parametrize("groups", [1, 2, 3, 4, 6, 12])
def test_group(groups, old, x):
    y = replaced(GroupNorm(groups=groups), old)(x)
    by_formula = normalized(x.view(5, groups, -1), (2,)).view_as(x)
    torch.testing.assert_close(y, affine(by_formula, old))
    torch.testing.assert_close(y, F.group_norm(x, groups, old.weight, old.bias))


def test_layer_is_over_channels_and_positions(old, x):
    torch.testing.assert_close(replaced(LayerNorm(), old)(x), affine(F.layer_norm(x, x.shape[1:]), old))


@pytest.mark.parametrize("with_affine", [True, False])
def test_instance(with_affine, old, x):
    y = replaced(InstanceNorm(affine=with_affine), old)(x)
    by_formula = normalized(x, (2, 3))
    torch.testing.assert_close(y, affine(by_formula, old) if with_affine else by_formula)


@pytest.mark.parametrize("technique", [GroupNorm(groups=4), LayerNorm(), InstanceNorm()], ids=str)
def test_per_sample_norms_do_not_see_the_batch(technique, old):
    new = replaced(technique, old)
    x = torch.randn(64, 12, 4, 4, dtype=torch.float64)
    torch.testing.assert_close(new(x[:2]), new(x)[:2], rtol=0, atol=1e-12)


def test_batch_norm_does_see_the_batch(old):
    new = replaced(BatchNorm(), old)
    x = torch.randn(64, 12, 4, 4, dtype=torch.float64)
    assert (new(x[:2]) - new(x)[:2]).abs().max() > 0.01


@pytest.mark.parametrize(
    "norm",
    [
        nn.BatchNorm2d(6),
        nn.SyncBatchNorm(6),
        nn.InstanceNorm2d(6),
        nn.GroupNorm(3, 6),
        nn.LayerNorm([6, 4, 4]),
        torchvision.models.convnext.LayerNorm2d(6),
        torchvision.ops.FrozenBatchNorm2d(6),
    ],
    ids=lambda norm: type(norm).__name__,
)
@pytest.mark.parametrize("technique", [NoNorm(), BatchNorm(), GroupNorm(groups=2), LayerNorm(), InstanceNorm()])
def test_channels_are_read_from_any_norm(norm, technique):
    assert replaced(technique, norm)(torch.randn(2, 6, 4, 4)).shape == (2, 6, 4, 4)


def test_nothing_is_shared_with_the_norm_replaced(old):
    new = replaced(BatchNorm(), old)
    before = old.weight.detach().clone()
    with torch.no_grad():
        new.weight.add_(1)
        new.running_mean.add_(1)
    assert torch.equal(old.weight, before)
    assert old.running_mean.abs().sum() == 0
    assert new.weight.requires_grad


def test_scale_set_to_zero_on_purpose_stays_zero():
    model = torchvision.models.resnet18(weights=None, zero_init_residual=True)
    apply_surgery("norm", GroupNorm(groups=8), model)
    assert model.layer1[0].bn2.weight.abs().sum() == 0
    assert model.layer1[0].bn1.weight.sum() == 64


@pytest.mark.parametrize(
    ("groups", "channels", "nearest"), [(8, 12, "6 and 12"), (32, 16, "16"), (5, 16, "4 and 8"), (2, 7, "1 and 7")]
)
def test_groups_that_do_not_divide_are_refused_with_the_nearest(groups, channels, nearest):
    model = nn.Sequential(nn.Conv2d(1, channels, 1), nn.BatchNorm2d(channels))
    expected = f"1: {groups} groups do not divide {channels} channels; the nearest that do: {nearest}"
    with pytest.raises(Unsupported) as caught:
        apply_surgery("norm", GroupNorm(groups=groups), model)
    assert str(caught.value) == expected


@given(st.integers(1, 40), st.integers(1, 40))
@settings(deadline=None, max_examples=100)
def test_groups_are_taken_or_refused(groups, channels):
    try:
        assert group_norm(groups, channels).num_groups == groups
        assert channels % groups == 0
    except Unsupported as refusal:
        named = [int(word) for word in str(refusal).rpartition(":")[2].split() if word.isdigit()]
        assert channels % groups
        assert all(channels % divisor == 0 for divisor in named)
        assert not [d for d in range(min(named) + 1, max(named)) if channels % d == 0], "a nearer one was passed over"


def test_norm_that_does_not_know_its_channels():
    with pytest.raises(Unsupported, match="LocalResponseNorm does not say how many channels"):
        GroupNorm()(nn.LocalResponseNorm(2))


@pytest.mark.parametrize("training", [True, False])
def test_instance_norm_of_single_pixels_is_unsupported(training):
    new = replaced(InstanceNorm(), nn.BatchNorm2d(2)).train(training)
    with pytest.raises(Unsupported, match="instance norm of 2 channels meets feature maps of a single pixel"):
        new(torch.randn(2, 2, 1, 1))


def test_instance_norm_is_torchs_own_after_training(old, x):
    model = nn.Sequential(old)
    apply_surgery("norm", InstanceNorm(), model)
    symbolic_trace(model)  # what cannot be traced could not be compressed
    before = model(x)
    fold_for_inference(model)
    assert type(model[0]) is nn.InstanceNorm2d
    assert torch.equal(model(x), before)
