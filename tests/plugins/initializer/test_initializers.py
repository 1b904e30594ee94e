"""Initializers against torch.nn.init, sample moments, and what the papers promise of the signal."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

from cnnbench.errors import NoEffect
from cnnbench_plugins import _techniques
from cnnbench_plugins.initializer.delta_orthogonal import DeltaOrthogonal
from cnnbench_plugins.initializer.scaled import (
    HeNormal,
    HeUniform,
    LecunNormal,
    Orthogonal,
    XavierNormal,
    XavierUniform,
)
from cnnbench_plugins.initializer.simple import Default, Normal, TruncNormal, Uniform, Zeros
from cnnbench_plugins.initializer.zero_gamma import ZeroGamma

FILLING = [cls() for cls in _techniques("initializer") if cls not in (Default, ZeroGamma)]


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def drawn(technique, layer, seed=0):
    technique(layer, generator(seed))
    return layer.weight.detach()


def layers():
    """Every kind of layer, grouped and not, with what one output sums and one input feeds."""
    return [
        (nn.Linear(60, 90), 60, 90),
        (nn.Conv1d(20, 40, 5), 100, 200),
        (nn.Conv2d(12, 24, 3), 108, 216),
        (nn.Conv2d(60, 120, 3, groups=12), 45, 90),
        (nn.Conv2d(400, 400, (3, 5), groups=400), 15, 15),
        (nn.Conv3d(6, 8, 3), 162, 216),
        (nn.ConvTranspose1d(40, 20, 5), 200, 100),
        (nn.ConvTranspose2d(24, 12, 3), 216, 108),
        (nn.ConvTranspose2d(48, 24, 3, groups=2), 216, 108),
        (nn.ConvTranspose3d(8, 6, 3), 216, 162),
    ]


def assert_spread(weight, std):
    """Sample moments within 5 standard errors of mean 0 and ``std``."""
    n = weight.numel()
    assert abs(weight.mean().item()) < 5 * std / math.sqrt(n)
    assert abs(weight.std().item() / std - 1) < 5 / math.sqrt(2 * n)


@pytest.mark.parametrize(
    ("technique", "distribution"),
    [
        (Normal(), stats.norm(0, 0.01)),
        (Normal(std=0.3), stats.norm(0, 0.3)),
        (Uniform(), stats.uniform(-0.05, 0.1)),
        (Uniform(bound=2.0), stats.uniform(-2, 4)),
        (TruncNormal(), stats.truncnorm(-2, 2, scale=0.02)),
        (TruncNormal(std=1.5), stats.truncnorm(-2, 2, scale=1.5)),
    ],
    ids=lambda value: str(value) if not hasattr(value, "dist") else value.dist.name,
)
def test_distribution(technique, distribution):
    weight = drawn(technique, nn.Linear(100, 200))
    assert_spread(weight, distribution.std())
    assert stats.kstest(weight.flatten().numpy(), distribution.cdf).pvalue > 0.001


def test_truncation_is_at_two_standard_deviations():
    weight = drawn(TruncNormal(std=0.5), nn.Linear(1000, 1000))
    assert 0.999 < weight.abs().max().item() <= 1.0


@pytest.mark.parametrize("gain", [1.0, 5 / 3])
@pytest.mark.parametrize(("layer", "fan_in", "fan_out"), layers(), ids=str)
def test_xavier_spread(layer, fan_in, fan_out, gain):
    std = gain * math.sqrt(2 / (fan_in + fan_out))
    assert_spread(drawn(XavierNormal(gain=gain), layer), std)
    weight = drawn(XavierUniform(gain=gain), layer)
    assert_spread(weight, std)
    assert weight.abs().max() <= gain * math.sqrt(6 / (fan_in + fan_out))


@pytest.mark.parametrize("slope", [0.0, 0.5])
@pytest.mark.parametrize("mode", ["fan_in", "fan_out"])
@pytest.mark.parametrize(("layer", "fan_in", "fan_out"), layers(), ids=str)
def test_he_spread(layer, fan_in, fan_out, mode, slope):
    fan = fan_in if mode == "fan_in" else fan_out
    std = math.sqrt(2 / ((1 + slope**2) * fan))
    assert_spread(drawn(HeNormal(mode=mode, slope=slope), layer), std)
    weight = drawn(HeUniform(mode=mode, slope=slope), layer)
    assert_spread(weight, std)
    assert weight.abs().max() <= math.sqrt(3) * std


@pytest.mark.parametrize(("layer", "fan_in", "_out"), layers(), ids=str)
def test_lecun_spread(layer, fan_in, _out):
    assert_spread(drawn(LecunNormal(), layer), fan_in**-0.5)


@pytest.mark.parametrize("layer", [nn.Linear(30, 20), nn.Conv2d(5, 8, 3), nn.Conv2d(8, 100, 3)], ids=str)
@pytest.mark.parametrize(
    ("technique", "reference"),
    [
        (XavierUniform(gain=2.0), lambda w, g: nn.init.xavier_uniform_(w, gain=2.0, generator=g)),
        (XavierNormal(), lambda w, g: nn.init.xavier_normal_(w, generator=g)),
        (HeUniform(mode="fan_out"), lambda w, g: nn.init.kaiming_uniform_(w, mode="fan_out", generator=g)),
        (HeNormal(slope=0.1), lambda w, g: nn.init.kaiming_normal_(w, a=0.1, generator=g)),
        (LecunNormal(), lambda w, g: nn.init.kaiming_normal_(w, nonlinearity="linear", generator=g)),
        (Orthogonal(gain=3.0), lambda w, g: nn.init.orthogonal_(w, gain=3.0, generator=g)),
    ],
    ids=["xavier_uniform", "xavier_normal", "he_uniform", "he_normal", "lecun_normal", "orthogonal"],
)
def test_equals_torch_on_equal_streams(technique, reference, layer):
    torch.testing.assert_close(drawn(technique, layer), reference(torch.empty_like(layer.weight), generator()))


@pytest.mark.parametrize(("layer", "_in", "_out"), layers(), ids=str)
def test_orthogonal_in_each_group(layer, _in, _out):
    weight = drawn(Orthogonal(gain=1.5), layer)
    for block in weight.flatten(1).double().chunk(getattr(layer, "groups", 1)):
        gram = block @ block.T if block.shape[0] <= block.shape[1] else block.T @ block
        torch.testing.assert_close(gram, 1.5**2 * torch.eye(len(gram)).double(), rtol=0, atol=1e-5)


@pytest.mark.parametrize(("layer", "_in", "_out"), layers(), ids=str)
def test_delta_orthogonal_is_orthogonal_at_the_centre_and_zero_around_it(layer, _in, _out):
    weight = drawn(DeltaOrthogonal(gain=1.5), layer)
    centre = weight[(slice(None), slice(None), *(size // 2 for size in weight.shape[2:]))]
    assert weight.count_nonzero() == centre.count_nonzero() == centre.numel()
    for block in centre.double().chunk(getattr(layer, "groups", 1)):
        gram = block @ block.T if block.shape[0] <= block.shape[1] else block.T @ block
        torch.testing.assert_close(gram, 1.5**2 * torch.eye(len(gram)).double(), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(12, 12, 3, padding=1),
        nn.Conv2d(8, 20, 5, padding=2),
        nn.Conv2d(8, 16, (1, 3), padding=(0, 1), groups=4),
        nn.Conv2d(6, 6, 3, padding=1, groups=6),
        nn.ConvTranspose2d(8, 12, 3, padding=1),
        nn.Linear(5, 9),
    ],
    ids=str,
)
def test_delta_orthogonal_keeps_every_signals_length(layer):
    DeltaOrthogonal(gain=0.7)(layer, generator())
    x = torch.randn(
        5, layer.weight.shape[1] if isinstance(layer, nn.Linear) else layer.in_channels, generator=generator(1)
    )
    x = x if isinstance(layer, nn.Linear) else x[..., None, None] * torch.randn(5, 1, 9, 7, generator=generator(2))
    lengths = layer(x).flatten(1).norm(dim=1) / x.flatten(1).norm(dim=1)
    torch.testing.assert_close(lengths, torch.full((5,), 0.7), atol=1e-5, rtol=0)


def test_delta_orthogonal_with_fewer_outputs_keeps_what_it_can():
    layer = nn.Conv2d(9, 4, 3, padding=1)
    DeltaOrthogonal()(layer, generator())
    x = torch.randn(50, 9, 6, 6, generator=generator(1))
    assert (layer(x).flatten(1).norm(dim=1) < x.flatten(1).norm(dim=1)).all()
    tap = layer.weight[:, :, 1, 1].detach()
    kept = torch.einsum("oi,nohw->nihw", tap, layer(x))  # the projection on the rows comes back
    torch.testing.assert_close(layer(kept), layer(x), atol=1e-5, rtol=1e-4)


def test_an_even_kernel_has_its_tap_before_the_middle():
    assert drawn(DeltaOrthogonal(), nn.Conv2d(3, 3, (4, 2))).abs().sum((0, 1)).nonzero().tolist() == [[1, 0]]


class Deep(nn.Module):
    """30 circular 3x3 convolutions of 64 channels, so that no edge loses signal."""

    def __init__(self, activation):
        super().__init__()
        self.convs = nn.ModuleList(
            nn.Conv2d(64, 64, 3, padding=1, padding_mode="circular", bias=False) for _ in range(30)
        )
        self.activation = activation

    @torch.no_grad()
    def second_moments(self, x):
        moments = []
        for conv in self.convs:
            x = self.activation(conv(x))
            moments.append(x.square().mean().item())
        return moments


@pytest.mark.parametrize("technique", [XavierNormal(), XavierUniform()], ids=str)
def test_xavier_keeps_a_tanh_network_where_theory_says(technique):
    model = Deep(torch.tanh)
    technique(model, generator(3))
    start = 0.01  # where tanh is nearly linear
    moments = model.second_moments(torch.randn(4, 64, 8, 8, generator=generator(4)) * start**0.5)
    # Mean field: q -> E[tanh(sqrt(q) z)^2], by Gauss-Hermite quadrature.
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    expected = start
    for _ in range(30):
        expected = float((weights * np.tanh(math.sqrt(expected) * nodes) ** 2).sum() / weights.sum())
    assert 0.6 < moments[-1] / expected < 1.6
    assert moments[-1] > 0.3 * start  # 1 / sqrt(fan_in + fan_out) in its place would leave a billionth


@pytest.mark.parametrize(
    ("technique", "ratio"),
    [(HeNormal(), 1.0), (HeUniform(), 1.0), (HeNormal(mode="fan_out"), 1.0), (XavierNormal(), 0.5)],
    ids=str,
)
def test_he_keeps_a_relu_network_and_xavier_halves_it_every_layer(technique, ratio):
    model = Deep(torch.relu)
    technique(model, generator(5))
    moments = model.second_moments(torch.randn(8, 64, 8, 8, generator=generator(6)))
    assert (moments[-1] / moments[0]) ** (1 / 29) == pytest.approx(ratio, rel=0.05)


def test_delta_orthogonal_is_an_isometry_through_30_convolutions():
    x = torch.randn(3, 64, 6, 6, generator=generator(7))
    spreads = {}
    for technique in (DeltaOrthogonal(), Orthogonal()):
        model = Deep(nn.Identity())
        technique(model, generator(8))
        with torch.no_grad():
            out = nn.Sequential(*model.convs)(x)
        spreads[type(technique)] = (out.flatten(1).norm(dim=1) / x.flatten(1).norm(dim=1)).tolist()
    assert spreads[DeltaOrthogonal] == pytest.approx([1.0] * 3, abs=1e-4)
    stretched = max(abs(length - 1) for length in spreads[Orthogonal])
    assert stretched > 0.1, "orthogonal over channels and kernel together is none"


def test_lecun_keeps_a_selu_network_at_mean_0_and_variance_1():
    layers = [nn.Linear(500, 500) for _ in range(30)]
    model = nn.Sequential(*(module for layer in layers for module in (layer, nn.SELU())))
    x = torch.randn(400, 500, generator=generator(9)) * 1.3 + 0.2
    moments = {}
    for technique in (LecunNormal(), HeNormal(), XavierNormal(gain=0.7)):
        technique(model, generator(10))
        with torch.no_grad():
            out = model(x)
        moments[str(technique)] = out.mean().item(), out.var().item()
    mean, variance = moments[str(LecunNormal())]
    assert mean == pytest.approx(0, abs=0.1)
    assert variance == pytest.approx(1, abs=0.1)
    assert not any(abs(variance - 1) < 0.3 for name, (_, variance) in moments.items() if "Lecun" not in name)


def small_net():
    return nn.Sequential(
        *(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU()),
        *(nn.Conv2d(4, 6, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(24, 3)),
    )


def trained(technique, steps=5):
    model = small_net()
    technique(model, generator())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    x, y = torch.randn(16, 1, 8, 8, generator=generator(1)), torch.arange(16) % 3
    for _ in range(steps):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    return model


def filters_are_identical(model):
    return all(
        torch.equal(m.weight, m.weight[:1].expand_as(m.weight)) for m in model.modules() if isinstance(m, nn.Conv2d)
    )


def test_zeros_never_break_the_symmetry():
    model = trained(Zeros())
    assert filters_are_identical(model)
    assert model[-1].bias.abs().sum() > 0, "the last bias does learn"
    assert not filters_are_identical(trained(HeNormal()))


@pytest.mark.parametrize("technique", FILLING, ids=str)
class TestEveryFillingInitializer:
    def test_biases_zero_and_norms_kept(self, technique):
        model = small_net()
        model[1].weight.data.fill_(3)
        model[1].bias.data.fill_(2)
        technique(model, generator())
        assert all(m.bias.abs().sum() == 0 for m in (model[0], model[3], model[7]))
        assert model[1].weight.tolist() == [3] * 4
        assert model[1].bias.tolist() == [2] * 4

    def test_draws_from_its_generator_alone(self, technique):
        torch.manual_seed(0)
        before = torch.random.get_rng_state()
        first, second, other = small_net(), small_net(), small_net()
        torch.random.set_rng_state(before)
        for model, seed in ((first, 0), (second, 0), (other, 1)):
            technique(model, generator(seed))
        assert torch.equal(torch.random.get_rng_state(), before)
        weights = [torch.cat([p.flatten() for p in m.parameters()]) for m in (first, second, other)]
        assert torch.equal(weights[0], weights[1])
        assert torch.equal(weights[0], weights[2]) is isinstance(technique, Zeros)

    def test_dtype_and_memory_format_stay(self, technique):
        model = small_net().to(torch.bfloat16, memory_format=torch.channels_last)
        strides = model[3].weight.stride()
        technique(model, generator())
        assert (model[3].weight.dtype, model[3].weight.stride()) == (torch.bfloat16, strides)
        reference = small_net()
        technique(reference, generator())
        torch.testing.assert_close(model[3].weight.float(), reference[3].weight, rtol=0.01, atol=1e-4)

    def test_parametrized_weights_are_reached(self, technique):
        model = nn.Sequential(nn.Conv2d(8, 8, 3))
        reference = drawn(technique, nn.Conv2d(8, 8, 3))
        torch.nn.utils.parametrizations.spectral_norm(model[0])
        technique(model, generator())
        torch.testing.assert_close(model[0].parametrizations.weight.original.detach(), reference)

    def test_model_without_weights(self, technique):
        with pytest.raises(NoEffect, match="no linear or convolution layer"):
            technique(nn.Sequential(nn.ReLU(), nn.BatchNorm2d(2)), generator())


def test_default_changes_nothing():
    model = small_net()
    fresh = copy.deepcopy(model.state_dict())
    stream = generator()
    Default()(model, stream)
    assert all(torch.equal(value, fresh[name]) for name, value in model.state_dict().items())
    assert torch.equal(stream.get_state(), generator().get_state())


@pytest.mark.gpu
@pytest.mark.parametrize("technique", FILLING, ids=str)
def test_same_weights_on_gpu(technique):
    on_cpu, on_gpu = small_net(), small_net().cuda()
    technique(on_cpu, generator())
    technique(on_gpu, generator())
    for ours, theirs in zip(on_cpu.parameters(), on_gpu.parameters(), strict=True):
        assert torch.equal(ours, theirs.cpu())
