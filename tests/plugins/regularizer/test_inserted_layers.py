"""Layers that drop at random, against torch, torchvision, the papers' formulas and sample moments."""

from __future__ import annotations

import copy
import math

import pytest
import torch
import torch.nn.functional as F
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torchvision.models.convnext import CNBlockConfig
from torchvision.ops import StochasticDepth as TorchvisionStochasticDepth

from cnnbench.artifact import load_model, save_model
from cnnbench.errors import NoEffect, Unsupported
from cnnbench.surgery import fold_for_inference
from cnnbench_plugins.model.resnet import ResNet
from cnnbench_plugins.regularizer._layers import BlockDropout, DropConnectLinear
from cnnbench_plugins.regularizer.dropblock import DropBlock
from cnnbench_plugins.regularizer.dropconnect import DropConnect
from cnnbench_plugins.regularizer.dropout import AlphaDropout, Dropout, SpatialDropout
from cnnbench_plugins.regularizer.stochastic_depth import StochasticDepth


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(autouse=True)
def seeded():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


# Alpha dropout.


def test_alpha_dropout_follows_every_selu_with_the_papers_constants():
    net = nn.Sequential(nn.Linear(4, 8), nn.SELU(), nn.Linear(8, 8), nn.SELU(), nn.Linear(8, 2), nn.ReLU())
    assert AlphaDropout(p=0.3).prepare(net, generator()) == 2
    layer = net[1][1].train()
    x = torch.randn(200_000)
    y = layer(x)
    q, saturation = 0.7, -1.0507009873554805 * 1.6732632423543772
    a = (q + saturation**2 * q * (1 - q)) ** -0.5
    b = -a * (1 - q) * saturation
    dropped = torch.isclose(y, torch.tensor(a * saturation + b))
    assert dropped.float().mean().item() == pytest.approx(0.3, abs=0.01)
    torch.testing.assert_close(y[~dropped], a * x[~dropped] + b, atol=1e-4, rtol=1e-4)
    assert y.mean().item() == pytest.approx(0, abs=0.02)
    assert y.var().item() == pytest.approx(1, abs=0.02)
    assert torch.equal(layer.eval()(x), x)


def test_alpha_dropout_says_what_it_needs():
    with pytest.raises(Unsupported, match='activation = "selu"'):
        AlphaDropout().prepare(nn.Sequential(nn.Linear(4, 2), nn.ReLU()), generator())


# DropBlock.


@pytest.mark.parametrize("shape", [(4, 3, 9, 9), (2, 5, 12, 7), (8, 8, 5, 5), (16, 8, 3, 8)], ids=str)
@pytest.mark.parametrize(("p", "block"), [(0.1, 3), (0.3, 5), (0.2, 1), (0.9, 3)])
def test_dropblock_equals_torchvisions_on_equal_draws(shape, p, block):
    x = torch.randn(shape)
    state = torch.random.get_rng_state()
    ours = BlockDropout(p, block).train()(x)
    torch.random.set_rng_state(state)
    theirs = torchvision.ops.drop_block2d(x, p, block)
    torch.testing.assert_close(ours, theirs)
    assert (ours == 0).any()


@settings(deadline=None, max_examples=30)
@given(
    height=st.integers(2, 12),
    width=st.integers(2, 12),
    block=st.integers(1, 14),
    p=st.floats(0.05, 0.6),
    seed=st.integers(0, 1000),
)
def test_dropblock_drops_whole_blocks_and_keeps_the_mean(height, width, block, p, seed):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        out = BlockDropout(p, block).train()(torch.ones(6, 4, height, width))
    kept = out != 0
    if not kept.any():
        return
    # All that is kept has one value, and the batch keeps its sum.
    assert out[kept].unique().numel() == 1
    assert out.mean().item() == pytest.approx(1, rel=1e-5)
    # Every dropped pixel lies within some window of a whole block that is dropped all over.
    size = min(block, height, width)
    whole = F.avg_pool2d((~kept).double(), size, stride=1) > 1 - 1e-9
    covered = F.max_pool2d(F.pad(whole.double(), [size - 1] * 4), size, stride=1) > 0
    assert torch.equal(covered, ~kept)


@pytest.mark.parametrize(("size", "block"), [(28, 7), (14, 4), (8, 3)])
def test_dropblock_drops_about_its_share(size, block):
    p = 0.05  # small, so that few blocks overlap
    kept = BlockDropout(p, block).train()(torch.ones(64, 32, size, size)) != 0
    # A pixel stays if no block that covers it starts: on average over pixels, (1 - gamma)^(starts that cover it).
    gamma = p * size**2 / (block**2 * (size - block + 1) ** 2)
    starts = F.conv2d(
        F.pad(torch.ones(1, 1, size - block + 1, size - block + 1), [block - 1] * 4), torch.ones(1, 1, block, block)
    )
    expected = ((1 - gamma) ** starts).mean().item()
    assert kept.float().mean().item() == pytest.approx(expected, abs=0.003)
    assert 1 - expected == pytest.approx(p, rel=0.05)


def test_dropblock_passes_what_has_no_neighbours_and_is_idle_at_inference():
    layer = BlockDropout(0.5, 3).train()
    for passed in (torch.ones(4, 8), torch.ones(4, 8, 1, 1)):
        assert layer(passed) is passed
    x = torch.randn(2, 3, 8, 8)
    assert layer.eval()(x) is x
    assert (layer.train()(x.bfloat16()).dtype, layer(x[:1, :1, :3]).shape) == (torch.bfloat16, (1, 1, 3, 8))


def test_dropblock_grows_evenly_to_its_full_share():
    net = nn.Sequential(nn.Conv2d(1, 64, 3), nn.ReLU(), nn.Conv2d(64, 2, 3), nn.ReLU()).train()
    technique = DropBlock(p=0.3, block_size=1)
    assert technique.prepare(net, generator()) == 2
    x = torch.ones(16, 64, 8, 8)
    shares = []
    for epoch in range(5):
        technique.epoch(net, epoch, 5)
        assert net[3][1].share == net[1][1].share
        shares.append((net[1][1](x) == 0).float().mean().item())
    assert shares == pytest.approx([0, 0.075, 0.15, 0.225, 0.3], abs=0.01)
    technique.epoch(net, 0, 1)
    assert net[1][1].share == 1


def test_dropblock_without_feature_maps_has_no_effect():
    with pytest.raises(NoEffect, match="no convolution"):
        DropBlock().prepare(nn.Sequential(nn.Flatten(), nn.Linear(4, 4), nn.ReLU()), generator())


@pytest.mark.parametrize("technique", [SpatialDropout(p=0.3), DropBlock(p=0.3, block_size=3)], ids=str)
def test_channels_that_come_last_are_dropped_as_channels(technique):
    # ConvNeXt's activations stand between linear layers that work on [N, H, W, C].
    net = torchvision.models.ConvNeXt([CNBlockConfig(8, None, 2)], num_classes=3)
    assert technique.prepare(net, generator()) == 2
    layer = net.features[1][0].block[4][1].train()
    out = layer(torch.ones(8, 6, 6, 32)).permute(0, 3, 1, 2) != 0
    if isinstance(technique, SpatialDropout):
        assert torch.equal(out.amin((2, 3)), out.amax((2, 3)))
    else:
        whole = F.avg_pool2d((~out).double(), 3, stride=1) > 1 - 1e-9
        assert torch.equal(F.max_pool2d(F.pad(whole.double(), [2] * 4), 3, stride=1) > 0, ~out)
    assert 0.1 < (~out).float().mean() < 0.5
    conv = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4, 2), nn.ReLU())
    assert technique.prepare(conv, generator()) == 2
    assert [conv[2][1].channels_last, conv[5][1].channels_last] == [False, True]


# DropConnect.


def prepared(technique, layer):
    net = nn.Sequential(layer)
    assert technique.prepare(net, generator()) == 1
    return net[0]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("masks", ["sample", "batch"])
def test_dropconnect_drops_weights_and_biases_not_units(masks, bias):
    layer = prepared(DropConnect(p=0.4, masks=masks), nn.Linear(3, 500, bias=bias)).train()
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([1.0, 10.0, 100.0]))  # so that a sum tells which weights were kept
        if bias:
            layer.bias.fill_(1000.0)
    out = (layer(torch.ones(40, 3)) * 0.6).round().long()
    kept = torch.stack([out // 10**i % 10 for i in range(4 if bias else 3)], -1)  # [N, out, in and bias]
    assert torch.equal(kept, kept.clamp(0, 1))
    assert kept.float().mean().item() == pytest.approx(0.6, abs=0.03)
    independent = kept.flatten(0, 1).float()
    if masks == "batch":
        assert torch.equal(kept, kept[:1].expand_as(kept))
        independent = kept[0].float()
    else:
        assert (kept[0] != kept[1]).any()
        # Independent over samples: a weight is kept in two samples with probability 0.6 squared.
        assert (kept[0] * kept[1]).float().mean().item() == pytest.approx(0.36, abs=0.05)
    off_diagonal = torch.corrcoef(independent.T) - torch.eye(independent.shape[1])
    assert off_diagonal.abs().max() < (0.05 if masks == "sample" else 0.2), "weights of a unit are dropped one by one"


@pytest.mark.parametrize("masks", ["sample", "batch"])
@pytest.mark.parametrize("shape", [(64, 6), (64, 5, 6), (64, 2, 3, 6)], ids=str)
def test_dropconnect_has_the_means_and_variances_of_its_formula(masks, shape):
    layer = prepared(DropConnect(p=0.25, masks=masks), nn.Linear(6, 4)).double().train()
    x = torch.randn(shape[1:], generator=generator(5)).double().expand(shape)
    with torch.no_grad():
        draws = torch.stack([layer(x) for _ in range(600)])
        squares = F.linear(x**2, layer.weight**2, layer.bias**2)
        mean, variance = F.linear(x, layer.weight, layer.bias), 0.25 / 0.75 * squares
    standard_error = (variance / len(draws)).sqrt()
    assert ((draws.mean(0) - mean).abs() / standard_error).max() < 5.5
    ratio = draws.var(0) / variance
    assert ratio.mean().item() == pytest.approx(1, abs=0.1)
    assert torch.equal(layer.eval()(x), mean)


def test_dropconnect_keeps_parameters_and_stays_a_linear_layer():
    original = nn.Linear(4, 3)
    layer = prepared(DropConnect(), original)
    assert isinstance(layer, nn.Linear)
    assert layer.weight is original.weight
    assert layer.bias is original.bias
    assert [name for name, _ in layer.named_parameters()] == ["weight", "bias"]
    layer.train()(torch.ones(2, 4)).sum().backward()
    assert original.weight.grad is not None


def test_dropconnect_is_a_plain_linear_layer_once_trained():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4, bias=False), nn.Linear(4, 3)).double()
    model[1].weight = model[0].weight
    assert DropConnect().prepare(model, generator()) == 3
    inputs = torch.randn(5, 4, dtype=torch.float64)
    model.eval()
    with torch.no_grad():
        before, weight = model(inputs), model[0].weight
        fold_for_inference(model)
        assert [type(m) for m in model] == [nn.Linear] * 3
        assert model[0].weight is model[1].weight is weight  # tied weights stay so
        assert torch.equal(model(inputs), before)


def test_dropconnect_leaves_attention_alone():
    net = nn.Sequential(nn.TransformerEncoderLayer(8, 2, 16))
    assert DropConnect().prepare(net, generator()) == 2
    assert type(net[0].self_attn.out_proj) is not DropConnectLinear
    assert DropConnect().prepare(torchvision.models.squeezenet1_1(), generator()) == 0


# Stochastic depth.


class Block(nn.Module):
    def __init__(self, value):
        super().__init__()
        self.conv = nn.Conv2d(1, 1, 1, bias=False)
        nn.init.constant_(self.conv.weight, value)

    def forward(self, x):
        return x + self.conv(x)


@pytest.mark.parametrize("mode", ["row", "batch"])
def test_stochastic_depth_drops_each_branch_with_its_own_rate(mode):
    net = nn.Sequential(*(Block(1.0) for _ in range(4))).train()
    assert StochasticDepth(p=0.4, mode=mode).prepare(net, generator()) == 4
    drops = [m for m in net.modules() if isinstance(m, TorchvisionStochasticDepth)]
    assert [drop.p for drop in drops] == pytest.approx([0.1, 0.2, 0.3, 0.4])
    x = torch.ones(50, 1, 2, 2)
    for block, rate in zip(net, (0.1, 0.2, 0.3, 0.4), strict=True):
        branches = torch.stack([block(x) - 1 for _ in range(100)]).flatten(2)
        assert torch.equal(branches.amin(2), branches.amax(2)), "a whole branch at once"
        values = branches[..., 0]
        assert (values[values != 0] * (1 - rate)).tolist() == pytest.approx([1.0] * int((values != 0).sum()))
        spread = 5 * math.sqrt(rate * (1 - rate) / (values.numel() if mode == "row" else len(values)))
        assert (values == 0).float().mean().item() == pytest.approx(rate, abs=spread)
        alike = (values == values[:, :1]).all(1)
        assert alike.all() if mode == "batch" else not alike.any()
    assert torch.equal(net.eval()(x), 16 * x)


@pytest.mark.parametrize(
    ("build", "branches"),
    [
        (lambda: ResNet(depth=20)((3, 32, 32), 5), 9),
        (lambda: ResNet(depth=8, shortcut="pad")((3, 32, 32), 5), 3),
        (lambda: torchvision.models.resnet18(num_classes=5), 8),
        (lambda: torchvision.models.mobilenet_v2(num_classes=5), 10),
        (lambda: torchvision.models.regnet_y_400mf(num_classes=5), 16),
        (lambda: torchvision.models.convnext_tiny(num_classes=5), 18),
    ],
    ids=["resnet20", "resnet8-pad", "resnet18", "mobilenet_v2", "regnet", "convnext"],
)
def test_stochastic_depth_on_models(build, branches):
    net = build().eval()
    own = sum(isinstance(m, TorchvisionStochasticDepth) for m in net.modules())
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        expected = net(x)
        assert StochasticDepth(p=0.2).prepare(net, generator()) == branches
        drops = [m for m in net.modules() if isinstance(m, TorchvisionStochasticDepth)]
        assert len(drops) == own + branches
        assert torch.equal(net(x), expected)
        assert net.train()(x).isfinite().all()


def test_stochastic_depth_at_rate_1_leaves_the_shortcuts():
    net = ResNet(depth=14)((1, 16, 16), 3)
    StochasticDepth(p=0.5).prepare(net, generator())
    for module in net.modules():
        if isinstance(module, TorchvisionStochasticDepth):
            module.p = 1.0
    x = torch.rand(2, 16, 16, 16)
    for block in net.stage1:
        torch.testing.assert_close(block.train()(x), x)


def test_stochastic_depth_needs_a_shortcut():
    with pytest.raises(NoEffect, match="no residual addition"):
        StochasticDepth().prepare(ResNet(depth=8, residual=False)((1, 8, 8), 3), generator())


# All of them.

INSERTED = [
    Dropout(),
    Dropout(p=0.2, where="blocks"),
    SpatialDropout(),
    AlphaDropout(),
    DropBlock(block_size=3),
    DropConnect(),
    DropConnect(masks="batch"),
    StochasticDepth(p=0.2),
]


@pytest.mark.parametrize("technique", INSERTED, ids=str)
@pytest.mark.parametrize("channels", [1, 3])
def test_models_train_save_and_infer_as_before(technique, channels, tmp_path):
    net = ResNet(depth=8, width=4)((channels, 9, 11), 3)
    if isinstance(technique, AlphaDropout):
        net.relu = nn.SELU()
    plain = copy.deepcopy(net).eval()
    assert technique.prepare(net, generator())
    x = torch.randn(5, channels, 9, 11).to(memory_format=torch.channels_last)
    torch.testing.assert_close(net.eval()(x), plain(x))
    torch.testing.assert_close(net(x[:1]), plain(x[:1]))
    with torch.autocast("cpu", torch.bfloat16):
        out = net.train()(x)
    assert out.dtype == torch.bfloat16
    out.float().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())
    state = torch.random.get_rng_state()
    first = net(x)
    assert not torch.equal(net(x), first), "draws anew"
    torch.random.set_rng_state(state)
    assert torch.equal(net(x), first), "from the default generator alone"
    save_model(tmp_path / "model.pt", net, nn.Identity())
    loaded = load_model(tmp_path / "model.pt").model
    assert torch.equal(loaded.eval()(x), net.eval()(x))
    assert not torch.equal(loaded.train()(x), loaded(x))
    assert torch.equal(copy.deepcopy(net)(x), net(x))
