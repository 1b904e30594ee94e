"""Global pools and the spatial pyramid against torch's adaptive pools and the formulas, in any model."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import nn
from torch.fx import symbolic_trace

from cnnbench.errors import NoEffect, Unsupported
from cnnbench.surgery import apply_surgery
from cnnbench_plugins.model.resnet import ResNet
from cnnbench_plugins.pooling.adaptive import GlobalAvg, GlobalGem, GlobalMax
from cnnbench_plugins.pooling.pyramid import SpatialPyramidPooling


@pytest.fixture
def x():
    return torch.randn(2, 3, 7, 5, generator=torch.Generator().manual_seed(0)).double()


def replaced(technique, old):
    model = nn.Sequential(old, nn.Conv2d(3, 1, 1).double())
    apply_surgery("pooling", technique, model)
    return model[0]


@pytest.mark.parametrize("size", [1, 3, (2, 3)])
def test_average_and_maximum(size, x):
    torch.testing.assert_close(replaced(GlobalAvg(), nn.AdaptiveMaxPool2d(size))(x), F.adaptive_avg_pool2d(x, size))
    torch.testing.assert_close(replaced(GlobalMax(), nn.AdaptiveAvgPool2d(size))(x), F.adaptive_max_pool2d(x, size))


@pytest.mark.parametrize("old", [nn.AdaptiveAvgPool2d(1), nn.AdaptiveMaxPool2d(1)], ids=str)
@pytest.mark.parametrize("p", [1, 3, 4.5])
def test_gem_formula(p, old, x):
    expected = (np.maximum(x.numpy(), 1e-6) ** p).mean((2, 3), keepdims=True) ** (1 / p)
    np.testing.assert_allclose(replaced(GlobalGem(p=p), copy.deepcopy(old))(x).detach().numpy(), expected)


def test_gem_of_several_cells(x):
    expected = F.adaptive_avg_pool2d(x.clamp(min=1e-6) ** 3, (2, 3)) ** (1 / 3)
    torch.testing.assert_close(replaced(GlobalGem(), nn.AdaptiveAvgPool2d((2, 3)))(x), expected)


def test_gem_learns_its_exponent(x):
    new = replaced(GlobalGem(), nn.AdaptiveAvgPool2d(1))
    assert [p.numel() for p in new.parameters()] == [1]
    new(x).sum().backward()
    assert new.p.grad.item() > 0, "a larger p lies nearer to the maximum"
    zeros = torch.zeros(1, 3, 2, 2, dtype=torch.float64, requires_grad=True)
    new(zeros).sum().backward()
    assert torch.isfinite(zeros.grad).all()
    assert torch.isfinite(new.p.grad).all()


@pytest.mark.parametrize("technique", [GlobalAvg(), GlobalMax(), GlobalGem()], ids=lambda t: type(t).__name__)
def test_windows_stay_and_squeezes_too(technique):
    with pytest.raises(NoEffect):
        apply_surgery("pooling", technique, nn.Sequential(nn.MaxPool2d(2), nn.AvgPool2d(2)))
    model = torchvision.models.mobilenet_v3_small(weights=None)
    if isinstance(technique, GlobalAvg):
        model.avgpool = nn.AdaptiveMaxPool2d(1)
    squeezes = [m.avgpool for m in model.modules() if isinstance(m, torchvision.ops.SqueezeExcitation)]
    assert apply_surgery("pooling", technique, model).swapped == 1
    assert squeezes
    assert all(isinstance(squeeze, nn.AdaptiveAvgPool2d) for squeeze in squeezes)
    assert model.eval()(torch.rand(1, 3, 64, 64)).shape == (1, 1000)


def test_functional_pool_is_named():
    with torch.device("meta"):
        model = torchvision.models.mobilenet_v2(weights=None)
    for technique in (GlobalMax(), SpatialPyramidPooling()):
        with pytest.raises(NoEffect, match="adaptive_avg_pool2d"):
            apply_surgery("pooling", technique, model)


def test_pyramid_is_adaptive_maxima_level_by_level(x):
    model = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2)).double()
    apply_surgery("pooling", SpatialPyramidPooling(levels=(1, 2, 4)), model)
    y = model[0](x)
    assert y.shape == (2, 3 * 21, 1, 1)
    y = y.view(2, 3, 21)
    torch.testing.assert_close(y[:, :, 0], x.amax((2, 3)))
    # He et al.: from floor(i H / l) to ceil((i + 1) H / l).
    for level, offset in ((2, 1), (4, 5)):
        for i in range(level):
            for j in range(level):
                rows = slice(i * 7 // level, -(-(i + 1) * 7 // level))
                columns = slice(j * 5 // level, -(-(j + 1) * 5 // level))
                torch.testing.assert_close(y[:, :, offset + i * level + j], x[:, :, rows, columns].amax((2, 3)))


def test_pyramid_gives_one_length_for_any_image():
    model = ResNet(depth=8, width=4)((1, 16, 16), 5)
    apply_surgery("pooling", SpatialPyramidPooling(levels=(1, 3)), model)
    assert model.linear.in_features == 16 * 10
    for size in ((16, 16), (8, 8), (40, 23), (4, 4)):
        assert model(torch.rand(2, 1, *size)).shape == (2, 5)
    model(torch.rand(2, 1, 8, 8)).sum().backward()


@pytest.mark.parametrize(
    ("name", "linear", "inputs"),
    [
        ("resnet18", "fc", 21 * 512),
        ("vgg11_bn", "classifier.0", 21 * 512),
        ("efficientnet_b0", "classifier.1", 21 * 1280),
        ("mobilenet_v3_small", "classifier.0", 21 * 576),
        ("googlenet", "fc", 21 * 1024),
    ],
)
def test_pyramid_in_torchvision_families(name, linear, inputs):
    options = {"aux_logits": False, "init_weights": False} if name == "googlenet" else {}
    with torch.device("meta"):
        model = torchvision.models.get_model(name, weights=None, **options)
        assert apply_surgery("pooling", SpatialPyramidPooling(), model).swapped == 1
    assert model.get_submodule(linear).in_features == inputs
    assert model.eval()(torch.rand(2, 3, 64, 64, device="meta")).shape == (2, 1000)


def test_pyramid_behind_view_and_size():
    class Viewing(nn.Module):
        def __init__(self):
            super().__init__()
            self.pool, self.drop, self.fc = nn.AdaptiveAvgPool2d((2, 2)), nn.Dropout(), nn.Linear(12, 7, bias=False)

        def forward(self, x):
            x = self.pool(x)
            return self.fc(self.drop(x.view(x.size(0), -1)))

    model = Viewing().double()
    apply_surgery("pooling", SpatialPyramidPooling(levels=(1, 2)), model)
    assert (model.fc.in_features, model.fc.bias, model.fc.weight.dtype) == (15, None, torch.float64)
    assert model(torch.rand(4, 3, 5, 5).double()).shape == (4, 7)


class Branching(nn.Module):
    def __init__(self):
        super().__init__()
        self.pool, self.fc = nn.AdaptiveAvgPool2d(1), nn.Linear(3, 2)

    def forward(self, x):
        return self.fc(self.pool(x).flatten(1)) if x.sum() > 0 else x


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: torchvision.models.squeezenet1_1(weights=None), r"^classifier\.3: .*finds the model's end"),
        (lambda: torchvision.models.convnext_tiny(weights=None), r"^avgpool: .*finds LayerNorm2d"),
        (lambda: nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(3, 2, 1)), r"^0: .*finds Conv2d"),
        (lambda: nn.Sequential(nn.AdaptiveAvgPool2d(None), nn.Linear(3, 2)), "keeps its input's size"),
        (Branching, "^pool: the way from this pool to a linear layer can't be traced"),
    ],
)
def test_pyramid_without_a_linear_layer_behind(make, reason):
    with torch.device("meta"), pytest.raises(Unsupported, match=reason):
        apply_surgery("pooling", SpatialPyramidPooling(), make())


def test_pyramid_options():
    with pytest.raises(ValueError, match="twice"):
        SpatialPyramidPooling(levels=(1, 2, 2))


@pytest.mark.parametrize("technique", [GlobalGem(), SpatialPyramidPooling()], ids=lambda t: type(t).__name__)
def test_traces_copies_and_takes_any_format(technique):
    model = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2))
    apply_surgery("pooling", technique, model)
    x = torch.rand(2, 3, 5, 6)
    expected = model(x)
    torch.testing.assert_close(symbolic_trace(copy.deepcopy(model))(x), expected)
    torch.testing.assert_close(model(x.to(memory_format=torch.channels_last)), expected)
    assert model[0](x.bfloat16()).dtype == torch.bfloat16
