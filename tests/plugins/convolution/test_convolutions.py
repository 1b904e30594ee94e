"""Convolution designs: parameters and multiply-adds by closed formula, outputs of the old size, what they compute."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
import torchvision
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from cnnbench.errors import NoEffect, Unsupported
from cnnbench.surgery import apply_surgery
from cnnbench_plugins.convolution.factorized import Asymmetric, Stacked3x3, split_padding
from cnnbench_plugins.convolution.sparse_channels import DepthwiseSeparable, Grouped
from cnnbench_plugins.convolution.window import Dilated, Kernel

EVERY = [Kernel(size=5), Kernel(size=1), Dilated(), Grouped(), DepthwiseSeparable(), Stacked3x3(), Asymmetric()]


def macs(module, *shape):
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        module.eval()(torch.zeros(shape))
    return counter.get_total_flops() / 2


def weights(module):
    return sum(p.numel() for p in module.parameters())


def swapped(technique, conv):
    model = nn.Sequential(conv)
    apply_surgery("convolution", technique, model)
    return model[0]


# (technique, convolution, weights, multiply-adds at a 10 x 12 input), each written out from the paper's formula.
C, K = 8, 16  # input and output channels
CASES = [
    (Kernel(size=5), nn.Conv2d(C, K, 3, padding=1), C * K * 25 + K, 120 * C * K * 25),
    (Kernel(size=3), nn.Conv2d(C, K, 7, 2, padding=3, bias=False), C * K * 9, 30 * C * K * 9),
    (Kernel(size=1), nn.Conv2d(C, K, 3, padding=1, bias=False), C * K, 120 * C * K),
    (Kernel(size=5), nn.Conv2d(C, C, 3, padding=1, groups=C, bias=False), C * 25, 120 * C * 25),
    (Kernel(size=3), nn.Conv2d(C, K, (1, 7), padding=(0, 3), bias=False), C * K * 3, 120 * C * K * 3),
    (Dilated(rate=3), nn.Conv2d(C, K, 3, padding=1), C * K * 9 + K, 120 * C * K * 9),
    (Grouped(groups=4), nn.Conv2d(C, K, 3, padding=1), C * K * 9 / 4 + K, 120 * C * K * 9 / 4),
    (
        DepthwiseSeparable(),
        nn.Conv2d(C, K, 3, 2, padding=1, bias=False),
        9 * C + C * K + 2 * C,
        30 * (9 * C + C * K),
    ),
    (DepthwiseSeparable(between="none"), nn.Conv2d(C, K, 5), 25 * C + C + C * K + K, 6 * 8 * (25 * C + C * K)),
    (
        Stacked3x3(),
        nn.Conv2d(C, K, 5, padding=2, bias=False),
        9 * C * K + 9 * K * K,
        120 * (9 * C * K + 9 * K * K),
    ),
    (
        Stacked3x3(),
        nn.Conv2d(3, K, 7, 2, padding=3),
        27 * K + 2 * 9 * K * K + 3 * K,
        30 * (27 * K + 2 * 9 * K * K),
    ),
    (Stacked3x3(between="norm_relu"), nn.Conv2d(C, C, 7, padding=3), 3 * 9 * C * C + 4 * C + C, 120 * 27 * C * C),
    (Stacked3x3(), nn.Conv2d(C, C, 5, padding=2, groups=C, bias=False), 18 * C, 120 * 18 * C),
    (
        Asymmetric(),
        nn.Conv2d(C, K, 3, padding=1, bias=False),
        3 * C * K + 3 * K * K,
        120 * (3 * C * K + 3 * K * K),
    ),
    # The first runs at half the height and the whole width.
    (
        Asymmetric(between="none"),
        nn.Conv2d(C, K, 7, 2, padding=3),
        7 * C * K + K + 7 * K * K + K,
        60 * 7 * C * K + 30 * 7 * K * K,
    ),
    (Asymmetric(), nn.Conv2d(C, C, 7, padding=3, groups=C, bias=False), 14 * C, 120 * 14 * C),
]


@pytest.mark.parametrize(("technique", "conv", "count", "work"), CASES, ids=str)
def test_parameters_and_multiply_adds_are_the_formulas(technique, conv, count, work):
    new = swapped(technique, conv)
    x = (1, conv.in_channels, 10, 12)
    assert weights(new) == count
    assert macs(new, *x) == work
    assert new(torch.zeros(x)).shape == conv(torch.zeros(x)).shape


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths:UserWarning")
@given(
    st.sampled_from(EVERY),
    st.sampled_from([(1, 1), (2, 2), (3, 3), (4, 4), (5, 5), (7, 7), (9, 9), (1, 7), (5, 3)]),
    st.tuples(st.integers(1, 3), st.integers(1, 3)),
    st.one_of(st.sampled_from(["same", "valid"]), st.tuples(st.integers(0, 4), st.integers(0, 4))),
    st.tuples(st.integers(1, 2), st.integers(1, 2)),
    st.sampled_from([1, 2, 4]),
    st.booleans(),
    st.tuples(st.integers(1, 24), st.integers(1, 24)),
)
@settings(deadline=None, max_examples=300)
def test_outputs_have_the_old_size_whatever_the_geometry(
    technique, kernel, stride, padding, dilation, groups, bias, size
):
    if padding == "same":
        stride = (1, 1)
    conv = nn.Conv2d(4, 8, kernel, stride, padding, dilation, groups, bias)
    x = torch.zeros(1, 4, *size)
    try:
        expected = conv(x).shape
    except RuntimeError:
        assume(False)
    if isinstance(technique, Kernel) and all(k % 2 for k in kernel):
        before = (0, 0) if padding == "valid" else (9, 9) if padding == "same" else padding
        crop = [d * (k - technique.size) / 2 for k, d in zip(kernel, dilation, strict=True)]
        if any(k > 1 and p < c for k, p, c in zip(kernel, before, crop, strict=True)):
            with pytest.raises(Unsupported, match="padding would be negative"):
                technique(conv)
            return
    assert technique(conv).eval()(x).shape == expected


def extent(pixels, kernel, padding, stride, dilation):
    """Output pixels of a convolution along one axis."""
    return (pixels + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1


@pytest.mark.parametrize("kernel", [5, 7, 9])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("dilation", [1, 2])
def test_a_stacks_padding_keeps_the_size_of_every_input(kernel, stride, dilation):
    for padding in range(10):
        first, *rest = split_padding(padding, stride, dilation, (kernel - 1) // 2)
        assert min(first, *rest) >= 0
        for pixels in range(dilation * (kernel - 1) + 1, 50):
            left = extent(pixels, 3, first, stride, dilation)
            for p in rest:
                left = extent(left, 3, p, 1, dilation)
            assert left == extent(pixels, kernel, padding, stride, dilation)


def test_dilated_taps_are_yu_and_koltuns():
    conv = nn.Conv2d(2, 3, 3, padding=1, padding_mode="zeros").double()
    x = torch.randn(2, 2, 9, 9, dtype=torch.float64)
    y = swapped(Dilated(rate=2), conv)(x)
    # Sum over t of x(p + 2t) w(t), the cross-correlation that networks call convolution.
    padded = F.pad(x, (2, 2, 2, 2))
    expected = conv.bias[:, None, None] + sum(
        torch.einsum("nchw,kc->nkhw", padded[..., 2 * i : 2 * i + 9, 2 * j : 2 * j + 9], conv.weight[:, :, i, j])
        for i in range(3)
        for j in range(3)
    )
    torch.testing.assert_close(y, expected)


def test_groups_do_not_see_each_other():
    new = swapped(Grouped(groups=2), nn.Conv2d(4, 6, 3, padding=1))
    x = torch.randn(1, 4, 5, 5)
    changed = x.clone()
    changed[:, 2:] += 1
    difference = (new(changed) - new(x)).abs().amax((0, 2, 3))
    assert difference[:3].eq(0).all()
    assert difference[3:].gt(0).all()


def test_depthwise_separable_is_howards_block():
    new = swapped(DepthwiseSeparable(), nn.Conv2d(8, 16, 3, 2, padding=1, bias=False))
    assert [type(m).__name__ for m in new] == ["Conv2d", "BatchNorm2d", "ReLU", "Conv2d"]
    depthwise, pointwise = new[0], new[3]
    assert (depthwise.groups, depthwise.kernel_size, depthwise.stride, depthwise.bias) == (8, (3, 3), (2, 2), None)
    assert (pointwise.groups, pointwise.kernel_size, pointwise.stride) == (1, (1, 1), (1, 1))


def test_a_separable_kernel_factorizes_exactly():
    """k x 1 then 1 x k computes any kernel that is an outer product (linear chain, one channel at a time)."""
    conv = nn.Conv2d(4, 4, 5, 2, padding=2, groups=4, bias=False).double()
    down, across = torch.randn(2, 4, 1, 5, dtype=torch.float64)
    with torch.no_grad():
        conv.weight.copy_(down[..., :, None] * across[..., None, :])
        new = swapped(Asymmetric(between="none"), conv)
        new[0].weight.copy_(down[..., :, None])
        new[1].weight.copy_(across[..., None, :])
        x = torch.randn(2, 4, 9, 8, dtype=torch.float64)
        torch.testing.assert_close(new(x), conv(x))


@pytest.mark.parametrize(("size", "length"), [(5, 2), (7, 3), (9, 4)])
def test_a_stack_sees_what_the_large_kernel_saw(size, length):
    conv = nn.Conv2d(1, 1, size, padding=size // 2, bias=False)
    new = swapped(Stacked3x3(between="none"), conv)
    assert len(new) == length
    seen = []
    for module in (conv, new):
        x = torch.randn(1, 1, 21, 21, requires_grad=True)
        module(x)[0, 0, 10, 10].backward()
        seen.append(x.grad[0, 0] != 0)
    assert torch.equal(*seen)
    assert seen[0].sum() == size**2


@pytest.mark.parametrize("technique", [Stacked3x3(), Asymmetric(), DepthwiseSeparable(between="relu")], ids=str)
def test_an_activation_stands_between_and_the_norm_takes_its_place_before_it(technique):
    new = swapped(technique, nn.Conv2d(4, 4, 5))
    assert [type(m).__name__ for m in new] == ["Conv2d", "ReLU", "Conv2d"]
    normed = swapped(type(technique)(between="norm_relu"), nn.Conv2d(4, 4, 5))
    assert [type(m).__name__ for m in normed] == ["Conv2d", "BatchNorm2d", "ReLU", "Conv2d"]
    assert normed[0].bias is None
    assert normed[3].bias is not None


@pytest.mark.parametrize(
    ("technique", "conv"),
    [
        (Kernel(size=3), nn.Conv2d(8, 8, 3)),
        (Kernel(size=5), nn.Conv2d(8, 8, 1)),
        (Kernel(size=5), nn.Conv2d(8, 8, 2, 2)),
        (Dilated(), nn.Conv2d(8, 8, 1)),
        (Dilated(), nn.Conv2d(8, 8, 3, 2)),
        (Dilated(), nn.Conv2d(8, 8, 3, dilation=3)),
        (Dilated(), nn.Conv2d(8, 8, 4)),
        (Grouped(), nn.Conv2d(3, 16, 3)),
        (Grouped(), nn.Conv2d(8, 8, 1)),
        (Grouped(), nn.Conv2d(8, 8, 3, groups=2)),
        (DepthwiseSeparable(), nn.Conv2d(1, 16, 3)),
        (DepthwiseSeparable(), nn.Conv2d(8, 8, 1)),
        (DepthwiseSeparable(), nn.Conv2d(8, 8, 3, groups=8)),
        (Stacked3x3(), nn.Conv2d(8, 8, 3)),
        (Stacked3x3(), nn.Conv2d(8, 8, 4)),
        (Stacked3x3(), nn.Conv2d(8, 8, (1, 7))),
        (Asymmetric(), nn.Conv2d(3, 8, 7)),
        (Asymmetric(), nn.Conv2d(8, 8, 1)),
        (Asymmetric(), nn.Conv2d(8, 8, (7, 1))),
    ],
    ids=str,
)
def test_left_alone(technique, conv):
    assert technique(conv) is conv
    with pytest.raises(NoEffect):
        apply_surgery("convolution", technique, nn.Sequential(conv))


@pytest.mark.parametrize(
    ("channels", "which"), [((6, 8), "these do: 2"), ((8, 6), "these do: 2"), ((5, 8), "no number of groups does")]
)
def test_groups_that_do_not_divide_are_refused(channels, which):
    with pytest.raises(Unsupported) as caught:
        apply_surgery("convolution", Grouped(groups=4), nn.Sequential(nn.Conv2d(*channels, 3)))
    assert str(caught.value) == f"0: 4 groups do not divide both {channels[0]} and {channels[1]} channels; {which}"


def test_an_unpadded_kernel_cannot_shrink():
    with pytest.raises(Unsupported, match="a 5x5 convolution padded by 0 can't become 3x3 with the same output size"):
        Kernel(size=3)(nn.Conv2d(6, 16, 5))


@pytest.mark.parametrize("size", [2, 4])
def test_even_sizes_are_refused(size):
    with pytest.raises(ValueError, match=f"size must be odd, not {size}"):
        Kernel(size=size)


class Odd(nn.Conv2d):
    """Pads in a way of its own."""


@pytest.mark.parametrize("technique", EVERY, ids=str)
def test_convolutions_of_a_way_of_their_own_are_refused(technique):
    with pytest.raises(Unsupported, match="Odd may do more than torch's Conv2d"):
        technique(Odd(8, 8, 5))


@pytest.mark.parametrize("technique", EVERY, ids=str)
@pytest.mark.parametrize("gain", [0.5, 2.0])
def test_the_models_own_initialization_keeps_its_scale(technique, gain):
    conv = nn.Conv2d(16, 16, 7, padding=3)
    nn.init.normal_(conv.weight, std=gain / math.sqrt(16 * 49))
    new = swapped(technique, conv)
    convs = [m for m in new.modules() if isinstance(m, nn.Conv2d)]
    for layer in convs:
        rms = layer.weight.square().mean().sqrt().item()
        assert rms * math.sqrt(layer.weight[0].numel()) == pytest.approx(gain, rel=0.05)
    assert torch.equal(convs[-1].bias, conv.bias)


@pytest.mark.parametrize("technique", EVERY, ids=str)
def test_a_layer_that_starts_at_zero_starts_at_zero_and_can_leave_it(technique):
    conv = nn.Conv2d(16, 16, 7, padding=3, bias=False)
    nn.init.zeros_(conv.weight)
    new = swapped(technique, conv)
    y = new(torch.randn(2, 16, 8, 8))
    assert y.abs().sum() == 0
    y.sum().backward()
    assert [m for m in new.modules() if isinstance(m, nn.Conv2d)][-1].weight.grad.abs().sum() > 0


@pytest.mark.parametrize("technique", EVERY, ids=str)
def test_padding_mode_dtype_and_bf16(technique):
    conv = nn.Conv2d(16, 16, 7, padding=3, padding_mode="circular").double()
    new = swapped(technique, conv)
    assert {m.padding_mode for m in new.modules() if isinstance(m, nn.Conv2d)} == {"circular"}
    assert new(torch.randn(2, 16, 9, 9, dtype=torch.float64)).dtype == torch.float64
    new = new.float().to(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16):
        assert new.eval()(torch.randn(1, 16, 9, 9).to(memory_format=torch.channels_last)).shape == (1, 16, 9, 9)


def test_resnets_stem_becomes_resnet_cs():
    """Three 3x3 convolutions in place of the 7x7 one, all of 64 channels as the formula has it."""
    model = torchvision.models.resnet18(weights=None, num_classes=2)
    before = weights(model)
    assert apply_surgery("convolution", Stacked3x3(), model).swapped == 1
    assert weights(model) - before == 9 * 3 * 64 + 2 * 9 * 64 * 64 - 49 * 3 * 64
    assert macs(model, 1, 3, 64, 64) > 0
