"""Detection of residual additions, against block counts known from the papers and against what the numbers do."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import nn

from cnnbench_plugins._residual import find_residuals
from cnnbench_plugins.model.plain import Plain
from cnnbench_plugins.model.resnet import ResNet


def torchvision_model(name):
    return torchvision.models.get_model(name, weights=None, num_classes=3)


# Blocks with a shortcut, by the papers' tables; MobileNetV2's, EfficientNet's: those with stride 1 and equal channels.
@pytest.mark.parametrize(
    ("name", "blocks"),
    [
        ("resnet18", 8),
        ("resnext50_32x4d", 16),
        ("mobilenet_v2", 10),
        ("mobilenet_v3_small", 6),
        ("efficientnet_b0", 9),
        ("regnet_x_400mf", 22),
        ("regnet_y_400mf", 16),
        ("mnasnet0_5", 10),
    ],
)
def test_torchvisions_residual_networks(name, blocks):
    model = torchvision_model(name)
    found = find_residuals(model)
    assert len(found) == blocks
    for residual in found:
        assert residual.end == residual.norm
        assert isinstance(model.get_submodule(residual.norm), nn.BatchNorm2d)
        assert residual.end.startswith(f"{residual.addition}.")
        layer = model.get_submodule(residual.layer)
        assert layer.out_channels == model.get_submodule(residual.norm).num_features


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2", "efficientnet_b0", "regnet_x_400mf"])
def test_with_the_norms_at_zero_a_block_is_its_shortcut(name):
    model = torchvision_model(name).eval()
    same = 0
    for residual in find_residuals(model):
        block = model.get_submodule(residual.addition)
        norm = model.get_submodule(residual.norm)
        seen = {}
        handles = [
            norm.register_forward_hook(lambda m, args, out: torch.zeros_like(out)),
            block.register_forward_hook(lambda m, args, out, seen=seen: seen.update(input=args[0], output=out)),
        ]
        with torch.no_grad():
            model(torch.randn(1, 3, 32, 32))
        for handle in handles:
            handle.remove()
        if seen["input"].shape == seen["output"].shape:
            # ResNets and RegNets have a ReLU after the addition, whose input is the output of one already.
            assert torch.equal(seen["input"], seen["output"])
            same += 1
    assert same >= 4


def test_convnexts_branch_ends_in_a_permutation_with_no_norm_in_its_place():
    model = torchvision_model("convnext_tiny")
    found = find_residuals(model)
    assert len(found) == 3 + 3 + 9 + 3
    assert {r.norm for r in found} == {None}
    assert all(type(model.get_submodule(r.end)).__name__ == "Permute" for r in found)
    assert all(isinstance(model.get_submodule(r.layer), nn.Linear) for r in found)


@pytest.mark.parametrize("name", ["shufflenet_v2_x0_5", "squeezenet1_1", "densenet121"])
def test_networks_without_residual_additions_have_none(name):
    assert find_residuals(torchvision_model(name)) == []


@pytest.mark.parametrize("shortcut", ["projection", "pad"])
def test_own_resnet(shortcut):
    found = find_residuals(ResNet(depth=14, width=4, shortcut=shortcut)((1, 8, 8), 2))
    assert [r.end for r in found] == [f"stage{s}.{b}.norm2" for s in (1, 2, 3) for b in (0, 1)]
    assert [r.norm for r in found] == [r.end for r in found]


def test_own_networks_without_shortcuts():
    assert find_residuals(ResNet(residual=False)((1, 8, 8), 2)) == []
    assert find_residuals(Plain()((1, 8, 8), 2)) == []


class Block(nn.Module):
    """A block of the user's own; ``ending`` is what happens to the branch before the addition."""

    def __init__(self, ending, layers=2):
        super().__init__()
        self.convs = nn.ModuleList([nn.Conv2d(4, 4, 3, padding=1) for _ in range(layers)])
        self.norms = nn.ModuleList([nn.GroupNorm(2, 4) for _ in range(layers)])
        self.inner = nn.Module()
        self.drop = nn.Dropout2d(0.1)
        self.relu = nn.ReLU()
        self.gate = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(4, 4, 1), nn.Sigmoid())
        self.scale = nn.Parameter(torch.ones(4, 1, 1))
        self.ending = ending

    def forward(self, x):
        y = x
        for conv, norm in zip(self.convs, self.norms, strict=True):
            y = norm(conv(F.relu(y)))
        y = self.ending(self, y)
        return x + y


@pytest.mark.parametrize(
    ("ending", "end", "norm"),
    [
        (lambda b, y: y, "norms.1", "norms.1"),
        (lambda b, y: b.drop(y), "norms.1", "norms.1"),
        (lambda b, y: F.dropout(y, 0.1, b.training), "norms.1", "norms.1"),
        (lambda b, y: b.scale * y, "norms.1", "norms.1"),
        (lambda b, y: y * 0.2, "norms.1", "norms.1"),
        (lambda b, y: F.relu(y), "norms.1", "norms.1"),
        (lambda b, y: b.relu(y), "relu", "norms.1"),
        (lambda b, y: y * b.gate(y), "norms.1", "norms.1"),
        (lambda b, y: b.convs[0](y), None, None),
        (lambda b, y: y + b.scale, None, None),
        (lambda b, y: torch.cat([y[:, :2], y[:, 2:]], 1), None, None),
    ],
)
def test_what_may_come_between_the_end_and_the_addition(ending, end, norm):
    found = find_residuals(nn.Sequential(Block(ending)))
    assert [(r.end, r.norm) for r in found] == ([(f"0.{end}", f"0.{norm}")] if end else [])


class Gated(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Conv2d(4, 4, 1)

    def forward(self, x):
        return x * torch.sigmoid(self.fc(x.mean((2, 3), keepdim=True)))


class Wrapped(nn.Module):
    """Pre-activation with a module of several operations at the end."""

    def __init__(self):
        super().__init__()
        self.branch = nn.Sequential(nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1))
        self.gate = Gated()

    def forward(self, x):
        return x + self.gate(self.branch(x))


def test_a_branch_that_ends_inside_a_module_of_several_operations_ends_with_that_module():
    (residual,) = find_residuals(Wrapped())
    assert (residual.addition, residual.end, residual.norm, residual.layer) == ("", "gate", None, "branch.2")


class Untraceable(nn.Module):
    def __init__(self):
        super().__init__()
        self.block = Block(lambda b, y: y)
        self.head = nn.Conv2d(4, 4, 1)

    def forward(self, x):
        return self.head(self.block(x)) if x.mean() > 0 else self.block(x)


def test_parts_of_what_cannot_be_traced():
    assert [r.end for r in find_residuals(nn.Sequential(Untraceable()))] == ["0.block.norms.1"]


class Add(nn.Module):
    def forward(self, a, b):
        return a + b


class AddModule(nn.Module):
    def __init__(self):
        super().__init__()
        self.branch = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4))
        self.add = Add()

    def forward(self, x):
        return self.add(self.branch(x), x)


def test_an_addition_in_a_module_of_its_own():
    (residual,) = find_residuals(nn.Sequential(AddModule()))
    assert (residual.addition, residual.end) == ("0.add", "0.branch.1")


class TwoBranches(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = (nn.Conv2d(4, 4, 3, padding=1) for _ in range(2))
        self.position = nn.Parameter(torch.zeros(4, 1, 1))

    def forward(self, x):
        return self.a(x + self.position) + self.b(x)


def test_equal_branches_and_parameters_are_no_residuals():
    assert find_residuals(TwoBranches()) == []


class Parallel(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = (nn.Conv2d(4, 4, 3, padding=1) for _ in range(2))

    def forward(self, x):
        return x + self.a(x) + self.b(x)


class Merged(nn.Module):
    """Two branches of two and three convolutions."""

    def __init__(self):
        super().__init__()
        self.a = nn.Sequential(*(nn.Conv2d(4, 4, 1) for _ in range(2)))
        self.b = nn.Sequential(*(nn.Conv2d(4, 4, 1) for _ in range(3)))

    def forward(self, x):
        return self.a(x) + self.b(x)


class SharedParameter(nn.Module):
    """Two inputs that have nothing in common but a parameter."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 1)
        self.scale = nn.Parameter(torch.ones(4, 1, 1))

    def forward(self, x, y):
        return self.conv(x * self.scale) + y * self.scale


@pytest.mark.parametrize("model", [Merged(), SharedParameter()], ids=lambda m: type(m).__name__)
def test_unequal_branches_and_separate_inputs_are_no_residuals(model):
    assert find_residuals(model) == []


def test_parallel_branches_are_both_found():
    assert [r.end for r in find_residuals(Parallel())] == ["a", "b"]


class Nested(nn.Module):
    """x + conv(blocks(x)), as image-restoration networks have it."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Sequential(Block(lambda b, y: y), Block(lambda b, y: y))
        self.conv = nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x):
        return x + self.conv(self.inner(x))


def test_nested():
    assert [r.end for r in find_residuals(Nested())] == ["inner.0.norms.1", "inner.1.norms.1", "conv"]


class Shared(nn.Module):
    def __init__(self, elsewhere):
        super().__init__()
        self.block = Block(lambda b, y: y)
        self.elsewhere = elsewhere

    def forward(self, x):
        y = self.block(self.block(x))
        return self.block.norms[1](y) if self.elsewhere else y


def test_a_block_used_twice_counts_once_and_an_end_with_another_use_not_at_all():
    assert len(find_residuals(Shared(elsewhere=False))) == 1
    assert find_residuals(Shared(elsewhere=True)) == []


def test_generators_and_the_model_stay_as_they_were():
    model = ResNet()((1, 8, 8), 2)
    torch.manual_seed(1)
    expected = torch.get_rng_state()
    paths = [path for path, _ in model.named_modules()]
    find_residuals(model)
    assert torch.equal(torch.get_rng_state(), expected)
    assert [path for path, _ in model.named_modules()] == paths
    assert model.training
