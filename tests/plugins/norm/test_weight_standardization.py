"""Weight standardization against timm's convolution and the formula, on the convolutions that it is meant for."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import nn

from cnnbench.errors import NoEffect, Unsupported
from cnnbench.surgery import apply_surgery, fold_for_inference
from cnnbench_plugins.model.resnet import ResNet
from cnnbench_plugins.norm._standardized import StandardizedConv2d, standardize
from cnnbench_plugins.norm.weight_standardization import WeightStandardization


def standardized_paths(model):
    return [path for path, module in model.named_modules() if isinstance(module, StandardizedConv2d)]


def operated(model, groups=1):
    report = apply_surgery("norm", WeightStandardization(groups=groups), model)
    return model, report


@pytest.mark.parametrize("groups", [1, 2])
def test_convolution_is_timms(groups):
    options = {"stride": 2, "padding": 1, "dilation": 1, "groups": groups, "bias": True}
    layers = pytest.importorskip("timm.layers")
    reference = layers.StdConv2d(4, 6, 3, eps=1e-5, **options).double()
    plain = nn.Conv2d(4, 6, 3, **options).double()
    plain.load_state_dict(reference.state_dict())
    model, _ = operated(nn.Sequential(plain, nn.BatchNorm2d(6).double()))
    conv = model[0]
    x = torch.randn(2, 4, 7, 8, dtype=torch.float64)
    torch.testing.assert_close(conv(x), reference(x))
    conv(x).square().sum().backward()
    reference(x).square().sum().backward()
    torch.testing.assert_close(conv.weight.grad, reference.weight.grad)


def test_formula():
    weight = torch.randn(5, 3, 2, 4, dtype=torch.float64) * 7 + 2
    rows = weight.numpy().reshape(5, -1)
    expected = (rows - rows.mean(1, keepdims=True)) / np.sqrt(rows.var(1, ddof=0, keepdims=True) + 1e-5)
    np.testing.assert_allclose(standardize(weight).numpy().reshape(5, -1), expected)


def test_gradient_is_orthogonal_to_the_constant_filter():
    """Shifting all weights of a filter changes nothing, and neither does scaling them (but for eps)."""
    model, _ = operated(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)))
    model(torch.randn(2, 3, 6, 6)).square().mul(torch.rand(2, 4, 4, 4)).sum().backward()
    gradient, weight = model[0].weight.grad.flatten(1), model[0].weight.detach().flatten(1)
    for direction in (torch.ones_like(weight), weight):
        assert (F.cosine_similarity(gradient, direction).abs() < 1e-3).all()


def test_group_norm_stands_behind():
    model, report = operated(nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)), groups=4)
    assert isinstance(model[1], nn.GroupNorm)
    assert model[1].num_groups == 4
    assert report.swapped == 1
    assert report.unreached == ()


def test_small_resnet_has_all_its_convolutions_standardized():
    model, _ = operated(ResNet(depth=8, width=4)((1, 8, 8), 3))
    assert standardized_paths(model) == [path for path, m in model.named_modules() if isinstance(m, nn.Conv2d)]


@pytest.mark.parametrize("name", ["resnet18", "densenet121", "mobilenet_v2", "shufflenet_v2_x0_5", "vgg11_bn"])
def test_torchvision_families(name):
    """Dense connections, residual streams and channel shuffles all lead from convolutions to norms."""
    with torch.device("meta"):
        model, report = operated(torchvision.models.get_model(name, weights=None))
    convolutions = [path for path, m in model.named_modules() if isinstance(m, nn.Conv2d)]
    assert set(standardized_paths(model)) == {*convolutions}
    # The first norm of densenet's first block reads the stem's norm.
    assert report.unreached == (("norms with no convolution right in front (1)",) if "dense" in name else ())


def test_gates_are_left_alone():
    with torch.device("meta"):
        model, _ = operated(torchvision.models.efficientnet_b0(weights=None))
    plain = {path for path, m in model.named_modules() if type(m) is nn.Conv2d}
    assert plain == {path for path, _ in model.named_modules() if path.endswith(("fc1", "fc2"))}


def test_gate_in_front_of_a_norm_is_left_alone():
    class Gated(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.fc, self.norm = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)

        def forward(self, x):
            x = self.conv(x)
            return self.norm(x * torch.sigmoid(self.fc(x.mean((2, 3), keepdim=True))))

    assert standardized_paths(operated(Gated())[0]) == ["conv"]


def test_a_filter_of_one_weight_can_not_be_standardized():
    model, _ = operated(nn.Sequential(nn.Conv2d(1, 4, 1), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4)))
    assert standardized_paths(model) == ["2"]


def test_norms_without_a_convolution_are_counted():
    model, report = operated(nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)))
    assert report.unreached == ("norms with no convolution right in front (1)",)
    assert standardized_paths(model) == ["1"]


def test_refusals():
    class Branching(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)

        def forward(self, x):
            return self.norm(self.conv(x)) if x.sum() > 0 else x

    with pytest.raises(Unsupported, match="found no convolution in front of a norm of Branching"):
        operated(Branching())
    with pytest.raises(Unsupported, match="3 groups do not divide 4 channels"):
        operated(nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)), groups=3)
    with pytest.raises(NoEffect):
        operated(nn.Sequential(nn.Conv2d(3, 4, 1)))


def test_weights_drawn_by_initializers_are_the_ones_that_are_used():
    model, _ = operated(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)))
    x = torch.randn(2, 3, 5, 5)
    before = model(x)
    with torch.no_grad():
        nn.init.normal_(model[0].weight)
    assert not torch.allclose(model(x), before)


def test_folds_into_a_plain_convolution():
    torch.manual_seed(0)
    conv = nn.Conv2d(4, 6, (3, 1), stride=2, padding=(2, 0), dilation=(2, 1), groups=2, padding_mode="reflect")
    model, _ = operated(nn.Sequential(conv, nn.BatchNorm2d(6)))
    x = torch.randn(2, 4, 9, 8)
    before = model(x)
    copied = copy.deepcopy(model)
    fold_for_inference(model)
    assert type(model[0]) is nn.Conv2d
    assert model[0].weight.is_leaf
    assert model[0].weight.requires_grad
    torch.testing.assert_close(model(x), before, rtol=0, atol=0)
    assert isinstance(copied[0], StandardizedConv2d)


def test_memory_format_autocast_and_batch_of_one():
    model, _ = operated(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)))
    model.to(memory_format=torch.channels_last)
    x = torch.randn(1, 3, 5, 5).to(memory_format=torch.channels_last)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.isfinite(model(x)).all()
    assert model.eval()(x).shape == (1, 4, 3, 3)
