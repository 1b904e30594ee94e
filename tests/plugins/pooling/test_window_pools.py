"""Window pools against torch's and the formulas, at the output size of what they replace."""

from __future__ import annotations

import copy
import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.fx import symbolic_trace

from cnnbench.errors import NoEffect, Unsupported
from cnnbench.surgery import apply_surgery, materialize
from cnnbench_plugins.pooling.blur import BlurPool
from cnnbench_plugins.pooling.learned import GemPool, MixedPool, StridedConvolution
from cnnbench_plugins.pooling.windows import AvgPool, LpPool, MaxPool

WINDOWS = [MaxPool(), AvgPool(), LpPool(), MixedPool(), GemPool(), StridedConvolution(), BlurPool()]


def replaced(technique, old, channels=3):
    model = nn.Sequential(old, nn.Conv2d(channels, 1, 1))  # a parameter, so that there is a dtype
    apply_surgery("pooling", technique, model)
    materialize(model, (channels, 16, 16))
    return model[0]


def other_than(technique, *options):
    """A pool that the technique does not leave alone."""
    return nn.AvgPool2d(*options) if isinstance(technique, MaxPool) else nn.MaxPool2d(*options)


@pytest.fixture
def x():
    return torch.randn(2, 3, 11, 8, generator=torch.Generator().manual_seed(0))


def windows(x, kernel, stride, padding):
    """Every window's values, NaN where it lies outside: [N, C, H', W', k * k]."""
    padded = np.pad(x.numpy(), ((0, 0), (0, 0), (padding, padding), (padding, padding)), constant_values=np.nan)
    views = np.lib.stride_tricks.sliding_window_view(padded, (kernel, kernel), axis=(2, 3))[:, :, ::stride, ::stride]
    return views.reshape(*views.shape[:4], -1)


def power_mean(values, p):
    return np.nanmean(values**p, -1) ** (1 / p)


FORMULAS = [
    (MaxPool(), lambda w: np.nanmax(w, -1)),
    (AvgPool(), lambda w: np.nanmean(w, -1)),
    (LpPool(p=3), lambda w: power_mean(np.abs(w), 3)),
    (LpPool(p=1), lambda w: np.nanmean(np.abs(w), -1)),
    (MixedPool(), lambda w: (np.nanmax(w, -1) + np.nanmean(w, -1)) / 2),
    (GemPool(), lambda w: power_mean(np.maximum(w, 1e-6), 3)),
    (GemPool(p=1.5), lambda w: power_mean(np.maximum(w, 1e-6), 1.5)),
]


@pytest.mark.parametrize(
    ("technique", "formula"), FORMULAS, ids=lambda value: str(value) if not callable(value) else ""
)
@pytest.mark.parametrize(("kernel", "stride", "padding"), [(2, 2, 0), (3, 2, 1), (3, 1, 1), (5, 3, 2)])
@pytest.mark.filterwarnings("ignore:All-NaN")
def test_formula(technique, formula, kernel, stride, padding, x):
    new = replaced(technique, other_than(technique, kernel, stride, padding))
    expected = formula(windows(x, kernel, stride, padding))
    np.testing.assert_allclose(new(x).detach().numpy(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("technique", WINDOWS, ids=lambda t: type(t).__name__)
@given(st.integers(1, 4), st.integers(1, 3), st.integers(0, 2), st.booleans(), st.integers(5, 12), st.integers(5, 12))
@settings(deadline=None, max_examples=40)
def test_output_size_is_that_of_the_pool_replaced(technique, kernel, stride, padding, ceil_mode, height, width):
    padding = min(padding, kernel // 2)
    old = other_than(technique, kernel, stride, padding)
    old.ceil_mode = ceil_mode
    x = torch.rand(2, 3, height, width)
    try:
        new = replaced(technique, copy.deepcopy(old))
    except Unsupported:
        assert isinstance(technique, StridedConvolution | BlurPool)
        assert ceil_mode
        assert stride > kernel - padding
        return
    except NoEffect:
        assert isinstance(technique, StridedConvolution | BlurPool)
        assert stride == 1
        return
    assert new(x).shape == old(x).shape
    assert torch.isfinite(new(x)).all()


def test_refused_windows_would_have_the_wrong_size():
    """Torch drops a last window outside of the image; that is what makes these unsupported."""
    pool = nn.MaxPool2d(3, 3, 1, ceil_mode=True)
    assert any(pool(torch.rand(1, 1, size, size)).shape[-1] != -(-(size + 2 - 3) // 3) + 1 for size in range(5, 12))
    for technique in (StridedConvolution(), BlurPool()):
        with pytest.raises(Unsupported, match=r"^0: a pool with ceil_mode, kernel \(3, 3\) and stride \(3, 3\)"):
            replaced(technique, copy.deepcopy(pool))


def test_lp_is_torchs_but_for_its_sum(x):
    reference = nn.LPPool2d(3, 2, 2)(x.abs())
    torch.testing.assert_close(replaced(LpPool(p=3), nn.MaxPool2d(2))(x), reference / 4 ** (1 / 3))
    torch.testing.assert_close(replaced(LpPool(p=3), nn.LPPool2d(2, 2))(x), reference / 4 ** (1 / 3))


def test_power_means_lie_between_average_and_maximum(x):
    x = x.abs() + 0.1
    average, maximum = F.avg_pool2d(x, 3), F.max_pool2d(x, 3)
    previous = average
    for p in (1, 1.5, 3, 8, 20):
        y = replaced(GemPool(p=p), nn.MaxPool2d(3))(x)
        assert (y >= previous - 1e-4).all()
        previous = y
    torch.testing.assert_close(replaced(GemPool(p=1), nn.MaxPool2d(3))(x), average)
    torch.testing.assert_close(replaced(LpPool(p=60), nn.MaxPool2d(3))(x), maximum, rtol=0.05, atol=0)


@pytest.mark.parametrize("technique", [LpPool(), LpPool(p=8), GemPool(), GemPool(p=9)], ids=str)
def test_gradients_are_finite_where_relu_left_nothing(technique):
    """The root has an infinite slope at 0."""
    x = torch.zeros(1, 3, 4, 4, requires_grad=True)
    new = replaced(technique, nn.MaxPool2d(2))
    new(x).sum().backward()
    assert torch.isfinite(x.grad).all()
    if isinstance(technique, GemPool):
        assert torch.isfinite(new.p.grad).all()


@pytest.mark.parametrize(("technique", "name"), [(MixedPool(), "gate"), (GemPool(), "p")])
def test_one_number_a_layer_is_learned(technique, name, x):
    new = replaced(technique, nn.MaxPool2d(2))
    assert sum(p.numel() for p in new.parameters()) == 1
    x = x.double().abs()
    new.double()
    parameter = getattr(new, name)
    new(x).square().sum().backward()
    step = 1e-6
    values = []
    for sign in (1, -1):
        moved = copy.deepcopy(new)
        getattr(moved, name).data += sign * step
        values.append(moved(x).square().sum().item())
    assert parameter.grad.item() == pytest.approx((values[0] - values[1]) / (2 * step), rel=1e-4)


def test_mixed_reaches_both_ends(x):
    new = replaced(MixedPool(), nn.MaxPool2d(2))
    new.gate.data.fill_(50.0)
    torch.testing.assert_close(new(x), F.max_pool2d(x, 2))
    new.gate.data.fill_(-50.0)
    torch.testing.assert_close(new(x), F.avg_pool2d(x, 2))


def test_strided_is_a_plain_convolution_with_relu(x):
    new = replaced(StridedConvolution(), nn.MaxPool2d(3, 2, 1))
    assert [type(m) for m in new] == [nn.Conv2d, nn.ReLU]
    assert sum(p.numel() for p in new.parameters()) == 3**2 * 3**2 + 3
    torch.testing.assert_close(new(x), F.conv2d(x, new[0].weight, new[0].bias, 2, 1).relu())


def test_strided_in_a_whole_model_takes_each_pools_channels():
    with torch.device("cpu"):
        model = torchvision.models.squeezenet1_1(weights=None)
    pools = [m for m in model.modules() if isinstance(m, nn.MaxPool2d)]
    assert apply_surgery("pooling", StridedConvolution(), model).swapped == len(pools) == 3
    materialize(model, (3, 64, 64))
    convolutions = [m[1] for m in model.features if isinstance(m, nn.Sequential)]
    assert [(m.in_channels, m.out_channels, type(m)) for m in convolutions] == [
        (c, c, nn.Conv2d) for c in (64, 128, 256)
    ]


@pytest.mark.parametrize("size", range(2, 8))
def test_blur_filter_is_binomial(size):
    new = replaced(BlurPool(size=size), nn.MaxPool2d(2))
    row = np.array([1.0])
    for _ in range(size - 1):
        row = np.convolve(row, [0.5, 0.5])
    np.testing.assert_allclose(new.filter[0, 0].numpy(), np.outer(row, row), rtol=1e-6)


@pytest.mark.parametrize("pool", [nn.MaxPool2d(3, 2, 1), nn.AvgPool2d(2)], ids=str)
def test_blur_is_dense_pool_then_filter(pool, x):
    y = replaced(BlurPool(), copy.deepcopy(pool))(x)
    dense = F.max_pool2d(x, 3, 1, 1) if isinstance(pool, nn.MaxPool2d) else F.avg_pool2d(x, 2, 1)
    row = torch.tensor([0.25, 0.5, 0.25])
    padded = F.pad(dense, (1, 1, 1, 1), mode="replicate")
    along = sum(w * padded[:, :, :, k : k + dense.shape[3]] for k, w in enumerate(row))
    expected = sum(w * along[:, :, k : k + dense.shape[2]] for k, w in enumerate(row))[:, :, ::2, ::2]
    torch.testing.assert_close(y, expected)


@pytest.mark.parametrize("kernel", [2, 3])
def test_blur_is_more_consistent_under_shifts_than_max(kernel):
    """Zhang's criterion, on a map: how much the pooled features of shifted images differ, brought to common places."""
    x = torch.rand(4, 3, 24, 24, generator=torch.Generator().manual_seed(5))

    def unevenness(pool):
        energies = [
            pool(x.roll((down, right), (2, 3)))[:, :, 3:-3, 3:-3].square().mean((2, 3))
            for down, right in itertools.product(range(2), repeat=2)
        ]
        return float((torch.stack(energies).std(0) / torch.stack(energies).mean(0)).mean())

    old = nn.MaxPool2d(kernel, 2)
    blurred = [unevenness(replaced(BlurPool(size=size), copy.deepcopy(old))) for size in (3, 5)]
    assert blurred[0] < 0.5 * unevenness(old)
    assert blurred[1] < blurred[0]


@pytest.mark.parametrize("technique", WINDOWS, ids=lambda t: type(t).__name__)
class TestAll:
    def test_global_pools_stay(self, technique):
        with pytest.raises(NoEffect):
            apply_surgery("pooling", technique, nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.AdaptiveMaxPool2d(2)))

    def test_pools_that_no_other_can_stand_in_for(self, technique):
        for pool, reason in (
            (nn.MaxPool2d(2, return_indices=True), "return_indices"),
            (nn.MaxPool2d(2, dilation=2), "dilation 2"),
            (nn.FractionalMaxPool2d(2, 3), "at random"),
        ):
            with pytest.raises(Unsupported, match=reason):
                replaced(technique, pool)

    def test_traces_copies_and_takes_any_format(self, technique, x):
        new = replaced(technique, other_than(technique, 2)).eval()
        expected = new(x)
        torch.testing.assert_close(symbolic_trace(copy.deepcopy(new))(x), expected)
        torch.testing.assert_close(new(x.to(memory_format=torch.channels_last)), expected)
        torch.testing.assert_close(new(x[:1]), expected[:1])

    def test_low_precision(self, technique, x):
        new = replaced(technique, other_than(technique, 2)).eval()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            y = new(x.bfloat16())
        assert y.dtype == torch.bfloat16
        torch.testing.assert_close(y.float(), new(x.bfloat16().float()), rtol=0.05, atol=0.05)

    def test_single_pixels(self, technique):
        new = replaced(technique, other_than(technique, 3, 2, 1))
        assert new(torch.rand(1, 3, 1, 1)).shape == (1, 3, 1, 1)


def test_same_kind_is_left_alone():
    for technique, pool in ((MaxPool(), nn.MaxPool2d(2)), (AvgPool(), nn.AvgPool2d(2))):
        with pytest.raises(NoEffect):
            replaced(technique, pool)
