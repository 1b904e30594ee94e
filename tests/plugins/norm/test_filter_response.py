"""Filter response normalization against timm and numpy, and its units in the places of activations."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import nn

from cnnbench.errors import Unsupported
from cnnbench.surgery import apply_surgery
from cnnbench_plugins.model.resnet import ResNet
from cnnbench_plugins.norm._filter_response import FilterResponseNorm, ThresholdedLinearUnit
from cnnbench_plugins.norm.filter_response import FilterResponse


def operated(model):
    return model, apply_surgery("norm", FilterResponse(), model)


def paths(model, kind):
    return [path for path, module in model.named_modules() if isinstance(module, kind)]


@pytest.fixture
def unit():
    """Norm and threshold with weights of their own, float64."""
    model, _ = operated(nn.Sequential(nn.BatchNorm2d(5), nn.ReLU()).double())
    generator = torch.Generator().manual_seed(0)
    for parameter in (model[0].weight, model[0].bias, *model[1].parameters()):
        parameter.data.normal_(generator=generator)
    return model


@pytest.fixture
def x():
    return torch.randn(3, 5, 4, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) * 2 + 1


def test_formula(unit, x):
    unit[0].eps.data.fill_(-0.02)
    weight, bias, threshold = (
        p.detach().numpy()[:, None, None] for p in (unit[0].weight, unit[0].bias, unit[1].thresholds[0])
    )
    power = np.square(x.numpy()).mean((2, 3), keepdims=True)
    expected = np.maximum(x.numpy() / np.sqrt(power + 1e-6 + 0.02) * weight + bias, threshold)
    np.testing.assert_allclose(unit(x).detach().numpy(), expected)


def test_is_timms(unit, x):
    layers = pytest.importorskip("timm.layers.filter_response_norm")
    unit[0].eps.data.fill_(1e-5 - 1e-6)
    reference = layers.FilterResponseNormTlu2d(5, eps=1e-5).double()
    for mine, theirs in zip(unit.parameters(), (reference.weight, reference.bias, None, reference.tau), strict=True):
        if theirs is not None:
            theirs.data.copy_(mine)
    torch.testing.assert_close(unit(x), reference(x))
    unit(x).square().sum().backward()
    reference(x).square().sum().backward()
    torch.testing.assert_close(unit[0].weight.grad, reference.weight.grad)
    torch.testing.assert_close(unit[1].thresholds[0].grad, reference.tau.grad)


def test_begins_as_relu_of_the_response():
    model, _ = operated(nn.Sequential(nn.BatchNorm2d(5), nn.SiLU()))
    x = torch.randn(2, 5, 4, 4)
    expected = F.relu(x / (x.square().mean((2, 3), keepdim=True) + 1e-4 + 1e-6).sqrt())
    torch.testing.assert_close(model(x), expected)


def test_does_not_see_the_batch(unit, x):
    torch.testing.assert_close(unit(x[:1]), unit(x)[:1], rtol=0, atol=1e-12)


def test_single_pixels_get_a_gradient():
    """Without the learned eps the norm of one pixel would be its sign."""
    model, _ = operated(nn.Sequential(nn.BatchNorm2d(2), nn.ReLU()))
    x = torch.tensor([[0.01], [0.02]]).expand(2, 2).reshape(2, 2, 1, 1).clone().requires_grad_()
    y = model(x)
    assert y[0, 0] < 0.9 * y[1, 0]
    y.sum().backward()
    assert (x.grad > 1).all()
    assert model[0].eps.grad.abs() > 0


def test_small_resnet_has_units_for_all_its_activations():
    model, report = operated(ResNet(depth=8, width=4)((1, 8, 8), 3))
    assert paths(model, nn.ReLU) == []
    assert report.unreached == ()
    assert model.stage2[0].relu2.widths == [8]
    model(torch.rand(2, 1, 8, 8)).sum().backward()
    assert all(p.grad is not None for p in model.parameters())


@pytest.mark.parametrize(("name", "widths"), [("resnet18", [64]), ("resnet50", [64, 256])])
def test_shared_activation_has_thresholds_for_each_width(name, widths):
    model, report = operated(torchvision.models.get_model(name, weights=None))
    assert paths(model, nn.ReLU) == []
    assert model.layer1[0].relu.widths == widths
    assert report.unreached == ()
    model.eval()(torch.rand(1, 3, 64, 64))


def test_linear_bottlenecks_and_gates_stay_as_they_are():
    with torch.device("meta"):
        model, report = operated(torchvision.models.efficientnet_b0(weights=None))
    assert {path.rpartition(".")[2] for path in paths(model, nn.SiLU)} == {"activation"}, "those inside of the gates"
    assert len(paths(model, nn.Sigmoid)) == 16
    # 49 norms, 16 of them at the end of a bottleneck.
    assert (report.swapped, len(paths(model, ThresholdedLinearUnit))) == (49, 33)


def test_functional_activation_is_named():
    with torch.device("meta"):
        _, report = operated(torchvision.models.densenet121(weights=None))
    assert "activations called as functions behind norms (1)" in report.unreached


def test_functional_throughout_is_unsupported():
    with pytest.raises(Unsupported, match=r"no activation module behind a norm.*functions behind norms \(\d+\)"):
        operated(torchvision.models.inception_v3(weights=None, init_weights=False))


def test_activation_that_is_called_elsewhere_too_stays():
    class Shared(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm, self.act = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), nn.ReLU()
            self.norm2, self.act2 = nn.BatchNorm2d(3), nn.ReLU()

        def forward(self, x):
            x = self.act2(self.norm2(self.act(self.conv(x))))
            return self.act(self.norm(x))

    model, report = operated(Shared())
    assert isinstance(model.act, nn.ReLU)
    assert isinstance(model.act2, ThresholdedLinearUnit)
    assert report.unreached == ("act (an activation behind a norm and elsewhere)",)


def test_scale_and_shift_of_the_norm_replaced_stay():
    old = nn.BatchNorm2d(3)
    old.weight.data.fill_(0)
    old.bias.data.fill_(2)
    model, _ = operated(nn.Sequential(old, nn.ReLU()))
    assert model[0].weight.tolist() == [0] * 3
    assert model[0].bias.tolist() == [2] * 3


def test_memory_format_autocast_and_copies(unit):
    model = copy.deepcopy(unit).float().eval()
    x = torch.randn(1, 5, 3, 7).to(memory_format=torch.channels_last)
    assert model(x).is_contiguous(memory_format=torch.channels_last)
    y = model(x.bfloat16())
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y.float(), model(x), rtol=0.05, atol=0.05)
    assert isinstance(model[0], FilterResponseNorm)
