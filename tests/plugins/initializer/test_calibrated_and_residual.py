"""LSUV by the variances it promises, zero gamma by blocks that do nothing yet."""

from __future__ import annotations

import copy

import pytest
import torch
import torchvision
from torch import nn
from torchvision.models.convnext import CNBlockConfig

from cnnbench.errors import NoEffect, Unsupported
from cnnbench_plugins.initializer.lsuv import Lsuv
from cnnbench_plugins.initializer.scaled import Orthogonal
from cnnbench_plugins.initializer.zero_gamma import ZeroGamma
from cnnbench_plugins.model.plain import Plain
from cnnbench_plugins.model.resnet import ResNet
from cnnbench_plugins.regularizer.stochastic_depth import StochasticDepth


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(autouse=True)
def seeded():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def images(*shape, seed=1):
    return torch.rand(*shape, generator=generator(seed))


def output_variances(model, inputs):
    """Of every linear and convolution layer, by hooks of our own, in the order of execution."""
    found = {}
    names = {m: name for name, m in model.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)}

    def look(module, _inputs, outputs):
        found.setdefault(names[module], outputs.var().item())

    hooks = [m.register_forward_hook(look) for m in names]
    with torch.no_grad():
        model(inputs)
    for hook in hooks:
        hook.remove()
    return found


class OutOfOrder(nn.Module):
    """Registered in another order than run; one layer runs twice, one never, and dropout is on in training."""

    def __init__(self):
        super().__init__()
        self.last = nn.Linear(8, 3)
        self.twice = nn.Conv2d(8, 8, 3, padding=1)
        self.never = nn.Linear(2, 2)
        self.first = nn.Conv2d(1, 8, 3)
        self.dropout = nn.Dropout(0.5)

    def forward(self, x):
        x = torch.tanh(self.first(x))
        x = torch.sigmoid(self.twice(self.dropout(torch.relu(self.twice(x)))))
        return self.last(x.mean((2, 3)))


@pytest.mark.parametrize(
    "build",
    [
        lambda: Plain(depth=30, width=8, norm=False)((1, 8, 8), 10),
        lambda: ResNet(depth=14, width=4)((1, 8, 8), 10),
        OutOfOrder,
        lambda: torchvision.models.mobilenet_v2(num_classes=3, width_mult=0.25),
    ],
    ids=["plain30", "resnet14", "out-of-order", "mobilenet_v2"],
)
@pytest.mark.parametrize("tolerance", [0.1, 1e-3])
def test_every_layers_outputs_have_variance_1(build, tolerance):
    model = build().train()
    inputs = images(64, 3, 64, 64) if isinstance(model, torchvision.models.MobileNetV2) else images(256, 1, 8, 8)
    technique = Lsuv(tolerance=tolerance)
    technique(model, generator())
    state = torch.random.get_rng_state()
    technique.calibrate(model, inputs)
    assert torch.equal(torch.random.get_rng_state(), state), "draws nothing"
    model.eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.train()  # as in training, without its dropout
    variances = output_variances(model, inputs)
    assert list(variances.values()) == pytest.approx([1.0] * len(variances), abs=tolerance)


def test_lsuv_scales_orthogonal_weights_and_leaves_no_trace():
    model = ResNet(depth=8, width=4)((1, 8, 8), 10).train()
    model.stage1.eval()
    orthogonal = copy.deepcopy(model)
    Orthogonal()(orthogonal, generator())
    before = copy.deepcopy(model.state_dict())
    modes = [m.training for m in model.modules()]
    technique = Lsuv()
    technique(model, generator())
    technique.calibrate(model, images(100, 1, 8, 8))
    assert [m.training for m in model.modules()] == modes
    assert not any(m._forward_hooks for m in model.modules())
    for name, value in model.state_dict().items():
        module = model.get_submodule(name.rpartition(".")[0])
        if name.endswith("weight") and isinstance(module, nn.Conv2d | nn.Linear):
            start = orthogonal.get_parameter(name)
            ratio = value.norm() / start.norm()
            torch.testing.assert_close(value, start * ratio)
        elif name == "linear.bias":
            assert not value.any()
        else:
            assert torch.equal(value, before[name]), name


def test_lsuv_keeps_a_deep_network_alive_where_orthogonal_weights_fade():
    inputs = images(128, 1, 8, 8)
    finals = {}
    for technique in (Orthogonal(), Lsuv()):
        model = Plain(depth=30, width=8, norm=False)((1, 8, 8), 10)
        technique(model, generator())
        if isinstance(technique, Lsuv):
            technique.calibrate(model, inputs)
        finals[type(technique)] = list(output_variances(model, images(128, 1, 8, 8, seed=2)).values())[-2]
    assert finals[Orthogonal] < 1e-3
    assert 0.5 < finals[Lsuv] < 2, "on other images too"


def test_lsuv_leaves_a_dead_layer_alone():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Threshold(1e9, 0.0), nn.Flatten(), nn.Linear(8, 2))
    technique = Lsuv()
    technique(model, generator())
    before = model[4].weight.detach().clone()
    technique.calibrate(model, images(8, 1, 4, 4))
    assert torch.equal(model[4].weight, before)


def test_lsuv_says_where_outputs_do_not_follow_the_weights():
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 2))
    torch.nn.utils.parametrizations.spectral_norm(model[3])
    technique = Lsuv()
    technique(model, generator())
    with pytest.raises(Unsupported, match=r"^3: lsuv can't bring its outputs to variance 1"):
        technique.calibrate(model, images(8, 1, 4, 4))
    assert not any(m._forward_hooks for m in model.modules())


def block_inputs_and_outputs(model, kinds, x):
    seen = []
    hooks = [
        m.register_forward_hook(lambda _m, x, y: seen.append((x[0].clone(), y)))
        for m in model.modules()
        if isinstance(m, kinds)
    ]
    with torch.no_grad():
        model(x)
    for hook in hooks:
        hook.remove()
    return seen


@pytest.mark.parametrize(
    ("build", "blocks"),
    [
        (lambda: ResNet(depth=20, width=4)((3, 32, 32), 5), 9),
        (lambda: torchvision.models.resnet18(num_classes=5), 8),
        (lambda: torchvision.models.mobilenet_v2(num_classes=5), 10),
    ],
    ids=["resnet20", "resnet18", "mobilenet_v2"],
)
def test_zero_gamma_silences_one_norm_a_block_and_nothing_else(build, blocks):
    model = build()
    before = copy.deepcopy(model.state_dict())
    ZeroGamma()(model, generator())
    changed = [name for name, value in model.state_dict().items() if not torch.equal(value, before[name])]
    assert len(changed) == blocks
    for name in changed:
        assert isinstance(model.get_submodule(name.rpartition(".")[0]), nn.BatchNorm2d)
        assert not model.get_parameter(name).any()


@pytest.mark.parametrize("training", [True, False])
def test_zero_gamma_blocks_start_as_identity(training):
    from torchvision.models.mobilenetv2 import InvertedResidual
    from torchvision.models.resnet import BasicBlock

    from cnnbench_plugins.model._small import BasicBlock as SmallBlock

    for model, kinds, expected in (
        (ResNet(depth=20, width=4)((3, 32, 32), 5), SmallBlock, 7),
        (torchvision.models.resnet18(), BasicBlock, 5),
        (torchvision.models.mobilenet_v2(), InvertedResidual, 10),
    ):
        ZeroGamma()(model, generator())
        identities = 0
        for x, y in block_inputs_and_outputs(model.train(training), kinds, torch.randn(2, 3, 64, 64)):
            identities += x.shape == y.shape and torch.equal(x, y)
        assert identities == expected, "all blocks without a projection"


def test_zero_gamma_is_torchvisions_own_option():
    with torch.random.fork_rng():
        torch.manual_seed(3)
        theirs = torchvision.models.resnet18(zero_init_residual=True)
        torch.manual_seed(3)
        ours = torchvision.models.resnet18()
    ZeroGamma()(ours, generator())
    for name, value in theirs.state_dict().items():
        assert torch.equal(ours.state_dict()[name], value), name


def test_zero_gamma_learns_and_goes_with_stochastic_depth():
    model = ResNet(depth=8, width=4)((1, 8, 8), 3).train()
    StochasticDepth(p=0.1).prepare(model, generator())
    ZeroGamma()(model, generator())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    x, y = images(16, 1, 8, 8), torch.arange(16) % 3
    for _ in range(3):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    norms = [block.norm2[0] for stage in (model.stage1, model.stage2, model.stage3) for block in stage]
    assert all(norm.weight.any() for norm in norms)


@pytest.mark.parametrize(
    "model",
    [
        nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2)),
        torchvision.models.ConvNeXt([CNBlockConfig(8, None, 2)]),
    ],
    ids=lambda model: type(model).__name__,
)
def test_zero_gamma_needs_a_branch_that_ends_in_a_norm(model):
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(NoEffect, match="ends in a norm"):
        ZeroGamma()(model, generator())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.gpu
def test_lsuv_on_gpu():
    model = Plain(depth=6, width=8, norm=False)((1, 8, 8), 10).cuda()
    Lsuv()(model, generator())
    Lsuv().calibrate(model, images(64, 1, 8, 8).cuda())
    variances = output_variances(model, images(64, 1, 8, 8).cuda())
    assert list(variances.values()) == pytest.approx([1.0] * 7, abs=0.1)
