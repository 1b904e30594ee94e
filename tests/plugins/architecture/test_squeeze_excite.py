"""Squeeze-and-excitation against torchvision's layer, timm's network and the closed formula."""

from __future__ import annotations

import copy
import functools

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models.convnext import CNBlockConfig, ConvNeXt

from cnnbench.errors import Unsupported
from cnnbench.surgery import apply_surgery
from cnnbench_plugins._residual import find_residuals
from cnnbench_plugins.activation.smooth import Silu
from cnnbench_plugins.architecture._layers import SqueezeExcite
from cnnbench_plugins.architecture.squeeze_excite import SqueezeExcitation
from cnnbench_plugins.model.lenet import LeNet
from cnnbench_plugins.model.plain import Plain
from cnnbench_plugins.model.resnet import ResNet

SHAPE = (3, 16, 16)


def params(model):
    return sum(p.numel() for p in model.parameters())


def macs(model, shape=SHAPE):
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        copy.deepcopy(model).eval()(torch.zeros(1, *shape))
    return counter.get_total_flops() / 2


def built(model, shape=SHAPE, **options):
    """The model without and with the layers, from the same seed."""
    torch.manual_seed(3)
    before = model(shape, 5)
    torch.manual_seed(3)
    return before, SqueezeExcitation(**options)(model)(shape, 5)


def gates(model):
    return [(path.rpartition(".")[0], m) for path, m in model.named_modules() if isinstance(m, SqueezeExcite)]


def test_the_layer_is_torchvisions():
    own, reference = SqueezeExcite(12, 3, bias=True), torchvision.ops.SqueezeExcitation(12, 3)
    reference.fc1.load_state_dict(own.reduce.state_dict())
    reference.fc2.load_state_dict(own.expand.state_dict())
    x = torch.randn(4, 12, 5, 7)
    torch.testing.assert_close(own(x), reference(x))


def test_a_resnet_with_the_layers_is_timms_seresnet():
    timm = pytest.importorskip("timm")
    reference = timm.models.resnet.ResNet(
        timm.models.resnet.BasicBlock,
        [2, 2, 2, 2],
        num_classes=5,
        zero_init_last=False,
        block_args={"attn_layer": functools.partial(timm.layers.SEModule, rd_divisor=1)},
    )
    _, own = built(lambda shape, classes: torchvision.models.resnet18(num_classes=classes), reduction=16, bias=True)
    ours, theirs = own.state_dict(), reference.state_dict()
    assert [tuple(v.shape) for v in ours.values()] == [tuple(v.shape) for v in theirs.values()]
    reference.load_state_dict(dict(zip(theirs, ours.values(), strict=True)))
    x = torch.randn(2, 3, 40, 40)
    torch.testing.assert_close(own.eval()(x), reference.eval()(x))


@pytest.mark.parametrize(("reduction", "hidden"), [(1, (8, 16, 32)), (4, (2, 4, 8)), (5, (2, 3, 6)), (16, (1, 1, 2))])
@pytest.mark.parametrize("bias", [True, False])
def test_costs_of_the_formula(reduction, hidden, bias):
    before, after = built(ResNet(depth=14, width=8), reduction=reduction, bias=bias)
    pairs = [(8, hidden[0])] * 2 + [(16, hidden[1])] * 2 + [(32, hidden[2])] * 2
    assert params(after) - params(before) == sum(2 * c * h + bias * (c + h) for c, h in pairs)
    assert macs(after) - macs(before) == sum(2 * c * h for c, h in pairs)


def test_the_gate_is_before_the_addition():
    _, after = built(ResNet(width=8))
    for _, gate in gates(after):
        gate.forward = lambda features: features * 0
    seen = {}
    block = after.stage1[0]
    block.register_forward_hook(lambda m, args, out: seen.update(input=args[0], output=out))
    after(torch.randn(2, *SHAPE))
    assert torch.equal(seen["output"], seen["input"].relu())


def test_all_other_weights_are_those_of_the_model_without():
    before, after = built(ResNet(width=8))
    kept = {path.replace(".features", ""): value for path, value in after.state_dict().items()}
    for path, value in before.state_dict().items():
        assert torch.equal(kept[path], value)


@pytest.mark.parametrize(
    ("model", "ends"),
    [
        (Plain(depth=4, width=8), ["stage1_1.2", "stage1_2.2", "stage2_1.2", "stage3_1.2"]),
        (Plain(depth=2, width=8, norm=False), ["stage1_1.1", "stage2_1.1"]),
        (LeNet(), ["relu1", "relu2"]),
        (ResNet(residual=False), [f"stage{s}.0.relu{r}" for s in (1, 2, 3) for r in (1, 2)]),
    ],
    ids=str,
)
def test_behind_each_unit_where_nothing_is_residual(model, ends):
    _, after = built(model)
    found = [path for path, _ in gates(after)]
    assert found == ([*ends] if not isinstance(model, ResNet) else ["relu", *ends])


class Own(nn.Module):
    """Functional activations, a depthwise pair, a shared ReLU, a classifier that is a convolution."""

    def __init__(self, shape, classes):
        super().__init__()
        self.conv = nn.Conv2d(shape[0], 8, 3)
        self.depthwise = nn.Conv2d(8, 8, 3, groups=8)
        self.pointwise = nn.Conv2d(8, 16, 1)
        self.norm = nn.BatchNorm2d(16)
        self.relu = nn.ReLU()
        self.last = nn.Conv2d(16, classes, 1)

    def forward(self, x):
        x = self.relu(self.depthwise(F.relu(self.conv(x))))
        return self.last(self.relu(self.norm(self.pointwise(x)))).mean((2, 3))


class Untraceable(Own):
    def forward(self, x):
        return super().forward(x) if x.sum() > -1 else x


def test_a_users_own_network():
    before, after = built(Own, reduction=4)
    assert [path for path, _ in gates(after)] == ["conv", "norm"]
    assert macs(after) - macs(before) == 2 * 8 * 2 + 2 * 16 * 4
    after(torch.randn(2, *SHAPE)).sum().backward()


class Noisy(Own):
    def forward(self, x):
        return super().forward(x + torch.rand(()))


def test_looking_for_places_draws_no_random_numbers():
    _, quiet = built(Own)
    _, noisy = built(Noisy)
    for one, other in zip(quiet.parameters(), noisy.parameters(), strict=True):
        assert torch.equal(one, other)


def test_channels_last_blocks_have_it_where_channels_come_first():
    net = functools.partial(ConvNeXt, [CNBlockConfig(8, 16, 2), CNBlockConfig(16, None, 1)])
    before, after = built(lambda shape, classes: net(num_classes=classes), (3, 64, 64), reduction=4)
    assert [type(m.features).__name__ for m in after.modules() if hasattr(m, "squeeze_excite")] == ["Permute"] * 3
    assert params(after) - params(before) == 2 * (2 * 8 * 2) + 2 * 16 * 4


class Tokens(nn.Module):
    """A residual network without feature maps; channels are the last axis, behind a norm too."""

    def __init__(self, shape, classes):
        super().__init__()
        self.first = nn.Linear(shape[0], 8)
        self.branch = nn.Sequential(nn.Linear(8, 8), nn.LayerNorm(8))
        self.last = nn.Linear(8, classes)

    def forward(self, x):
        x = self.first(x.permute(0, 2, 3, 1))
        return self.last((x + self.branch(x)).mean((1, 2)))


@pytest.mark.parametrize("model", [Tokens, Untraceable], ids=lambda m: m.__name__)
def test_no_place_is_said(model):
    with pytest.raises(Unsupported, match="found no place for squeeze-and-excitation: "):
        SqueezeExcitation()(model)(SHAPE, 5)


def test_a_network_that_cannot_run_says_why():
    with pytest.raises(Unsupported, match="could not run the model once"):
        SqueezeExcitation()(Own)((3, 2, 2), 5)


def test_activation_surgery_leaves_the_gate():
    _, after = built(ResNet())
    apply_surgery("activation", Silu(), after)
    assert all(isinstance(gate.sigmoid, nn.Sigmoid) for _, gate in gates(after))


def test_the_branchs_last_norm_is_still_found():
    _, after = built(ResNet())
    assert [r.norm for r in find_residuals(after)] == [f"stage{s}.0.norm2.features" for s in (1, 2, 3)]


def test_any_batch_memory_format_and_bf16():
    _, after = built(ResNet())
    x = torch.randn(2, 3, 15, 17).to(memory_format=torch.channels_last)
    after.to(memory_format=torch.channels_last)(x).sum().backward()
    with torch.autocast("cpu", torch.bfloat16):
        assert after.eval()(x[:1]).shape == (1, 5)
