"""Width, depth and residual connections: parameters and multiply-adds by closed formula."""

from __future__ import annotations

from typing import Annotated, Literal

import pytest
import torch
from annotated_types import Ge
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from cnnbench.errors import NoEffect, Unsupported
from cnnbench.technique import technique
from cnnbench_plugins.architecture.residual import ResidualConnections
from cnnbench_plugins.architecture.scaling import Depth, Width
from cnnbench_plugins.architecture.squeeze_excite import SqueezeExcitation
from cnnbench_plugins.model.lenet import LeNet
from cnnbench_plugins.model.plain import Plain
from cnnbench_plugins.model.resnet import ResNet
from cnnbench_plugins.model.torchvision import TorchvisionModel

CLASSES = 10


def params(technique):
    return sum(p.numel() for p in technique((3, 16, 16), CLASSES).parameters())


def macs(technique):
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        technique((3, 16, 16), CLASSES).eval()(torch.zeros(1, 3, 16, 16))
    return counter.get_total_flops() / 2


def resnet_costs(n, w, residual=True):
    """Parameters and multiply-adds of a 6n + 2 layer network of width w, 16 x 16 colour images, written out."""
    conv = 27 * w + 9 * w**2 * (2 * n + 2 + 4 * (2 * n - 1) + 8 + 16 * (2 * n - 1))
    norm = 2 * (w + 2 * n * w + 2 * n * 2 * w + 2 * n * 4 * w)
    head = 4 * w * CLASSES
    work = 256 * (27 * w + 9 * w**2 * 2 * n) + 64 * 9 * w**2 * (2 + 4 * (2 * n - 1))
    work += 16 * 9 * w**2 * (8 + 16 * (2 * n - 1)) + head
    if residual:
        conv += 2 * w**2 + 8 * w**2
        norm += 2 * (2 * w + 4 * w)
        work += 64 * 2 * w**2 + 16 * 8 * w**2
    return conv + norm + head + CLASSES, work


def plain_costs(depth, w):
    """The same for a plain network with norms, its stages filled from the first on."""
    lengths = [len(range(stage, depth, 3)) for stage in range(min(3, depth))]
    weights, work, channels = 0, 0, 3
    for stage, length in enumerate(lengths):
        for _ in range(length):
            out = w * 2**stage
            weights += 9 * channels * out + 2 * out
            work += (16 // 2**stage) ** 2 * 9 * channels * out
            channels = out
    return weights + channels * CLASSES + CLASSES, work + channels * CLASSES


@pytest.mark.parametrize(("multiplier", "width"), [(2, 16), (0.5, 4), (1.3, 10), (0.01, 1)])
def test_width(multiplier, width):
    for model, costs in ((ResNet(width=8), resnet_costs(1, width)), (Plain(depth=5, width=8), plain_costs(5, width))):
        wider = Width(multiplier=multiplier)(model)
        assert (params(wider), macs(wider)) == costs


@pytest.mark.parametrize(("multiplier", "n", "depth"), [(2, 4, 10), (0.5, 1, 3), (1.5, 3, 8), (0.1, 1, 1)])
def test_depth(multiplier, n, depth):
    for model, costs in (
        (ResNet(depth=14, width=4), resnet_costs(n, 4)),
        (Plain(depth=5, width=4), plain_costs(depth, 4)),
    ):
        deeper = Depth(multiplier=multiplier)(model)
        assert (params(deeper), macs(deeper)) == costs


def test_published_counts_are_reached_by_multiplying():
    """He et al. 2016, table 6: ResNet-20, 32, 44, 56 have 0.27, 0.46, 0.66 and 0.85 million parameters."""
    base = ResNet(depth=20, width=16, shortcut="pad")
    found = [round(params(Depth(multiplier=m)(base)) / 1e6, 2) for m in (5 / 3, 7 / 3, 3)]
    assert found == [0.46, 0.66, 0.85]
    assert round(params(base) / 1e6, 2) == 0.27


@given(st.sampled_from([8, 14, 20, 26]), st.floats(0.1, 6))
@settings(deadline=None, max_examples=60)
def test_any_depth_is_one_that_the_network_can_have(depth, multiplier):
    try:
        deeper = Depth(multiplier=multiplier)(ResNet(depth=depth))
    except NoEffect:
        assert int((depth - 2) // 6 * multiplier + 0.5) in (0, (depth - 2) // 6)
    else:
        assert deeper.depth == 6 * max(1, int((depth - 2) // 6 * multiplier + 0.5)) + 2


def test_other_options_stay():
    model = ResNet(depth=14, width=12, residual=False, shortcut="pad")
    assert Width(multiplier=2)(model) == ResNet(depth=14, width=24, residual=False, shortcut="pad")
    assert Depth(multiplier=2)(Width(multiplier=2)(model)).depth == 26


def test_residual_off_takes_the_shortcuts_weights_and_nothing_else():
    model = ResNet(depth=14, width=4)
    off = ResidualConnections()(model)
    assert (params(model), macs(model)) == resnet_costs(2, 4)
    assert (params(off), macs(off)) == resnet_costs(2, 4, residual=False)
    assert ResidualConnections(shortcuts="on")(off) == model


@pytest.mark.parametrize(
    ("change", "model", "reason"),
    [
        (Width(multiplier=1), Plain(), "width of model 'plain' stays 16"),
        (Width(multiplier=1.02), Plain(), "width of model 'plain' stays 16"),
        (Depth(multiplier=0.5), ResNet(), "depth of model 'resnet' stays 8"),
        (ResidualConnections(shortcuts="on"), ResNet(), "residual of model 'resnet' stays true"),
    ],
    ids=str,
)
def test_no_change_is_no_arm(change, model, reason):
    with pytest.raises(NoEffect) as caught:
        change(model)
    assert str(caught.value) == reason


@pytest.mark.parametrize(
    ("change", "model", "option"),
    [
        (Width(), LeNet(), "width"),
        (Depth(), LeNet(), "depth"),
        (ResidualConnections(), Plain(), "residual"),
        (Depth(), TorchvisionModel(arch="resnet18"), "depth"),
    ],
    ids=str,
)
def test_a_model_without_the_option_names_those_that_have_it(change, model, option):
    with pytest.raises(Unsupported, match=rf"model '\w+' has no option '{option}'; these have it: .*resnet"):
        change(model)


def test_options_come_before_what_is_built_around_the_model():
    with pytest.raises(Unsupported, match="list that one last"):
        Width()(SqueezeExcitation()(Plain()))


@technique("model", "ladder")
class Ladder:
    """A model with a choice of depths and a width that is a multiplier."""

    depth: Literal[11, 13, 16] = 11
    width: Annotated[float, Ge(0.25)] = 1.0


def test_a_width_that_is_a_multiplier_is_multiplied():
    assert Width(multiplier=0.35)(Ladder()).width == 0.35


@pytest.mark.parametrize("change", [Depth(multiplier=2), Width(multiplier=0.1)], ids=str)
def test_what_the_model_refuses_is_unsupported_with_its_reason(change):
    with pytest.raises(Unsupported, match=r"model 'ladder' can't have (depth 22|width 0.1): expected"):
        change(Ladder())
