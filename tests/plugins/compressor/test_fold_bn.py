from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torchvision.models import mobilenet_v2, resnet18

from cnnbench.errors import NoEffect, Unsupported
from cnnbench_plugins.compressor.fold_bn import FoldBn, fold
from cnnbench_plugins.strategy._combined import Ensemble, ViewAverage


def params(module):
    return sum(p.numel() for p in module.parameters())


def test_outputs_stay_and_parameters_fall(fresh, context):
    x = torch.randn(6, 1, 8, 8)
    with torch.no_grad():
        before = fresh(x)
    size = params(fresh)
    channels = [m.num_features for m in fresh.modules() if isinstance(m, nn.BatchNorm2d)]
    folded = FoldBn()(fresh, context)
    with torch.no_grad():
        torch.testing.assert_close(folded(x), before, atol=1e-5, rtol=1e-5)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in folded.modules())
    assert params(folded) == size - sum(channels)  # gamma and beta go, a bias comes


def test_agrees_with_torchs_fusion(fresh):
    reference = fuse_conv_bn_eval(copy.deepcopy(fresh[0]), copy.deepcopy(fresh[1]))
    fold(fresh)
    torch.testing.assert_close(fresh[0].weight, reference.weight)
    torch.testing.assert_close(fresh[0].bias, reference.bias)


@pytest.mark.parametrize(("make", "norms"), [(resnet18, 20), (mobilenet_v2, 52)])
def test_every_norm_of_torchvision_networks_is_folded(make, norms):
    model = make(weights=None, num_classes=10).eval()
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        before = model(x)
        assert fold(model) == norms
        torch.testing.assert_close(model(x), before, atol=1e-5, rtol=1e-4)


def test_linear_layers_fold_too():
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4, affine=False, eps=0.5)).train()
    model(torch.randn(20, 3) * 3 + 2)
    model.eval()
    x = torch.randn(5, 3)
    before = model(x)
    assert fold(model) == 1
    torch.testing.assert_close(model(x), before, atol=1e-5, rtol=1e-5)


class Twice(nn.Module):
    """The convolution's output is read twice, the norm's layer called twice: neither may be folded."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)
        self.norm_a, self.norm_b = nn.BatchNorm2d(3), nn.BatchNorm2d(3)

    def forward(self, x):
        y = self.a(x)
        y = y + self.norm_a(y)
        return self.norm_b(self.b(self.b(y)))


class Branching(nn.Module):
    def forward(self, x):
        return x if x.sum() > 0 else -x


def test_what_is_read_elsewhere_or_called_twice_is_left_alone(context):
    with pytest.raises(NoEffect, match="folded nothing"):
        FoldBn()(Twice(), context)


def test_a_model_that_cannot_be_traced_is_unsupported(context):
    with pytest.raises(Unsupported, match="can't trace Branching"):
        FoldBn()(Branching(), context)


@pytest.mark.parametrize(
    ("wrap", "norms"),
    [
        (lambda model: Ensemble([model, copy.deepcopy(model)]), 12),
        (lambda model: ViewAverage(model, hflip=True, shift=1), 6),
        (lambda model: ViewAverage(Ensemble([model, copy.deepcopy(model)]), hflip=True, shift=0), 12),
    ],
)
def test_networks_within_networks_are_folded(fresh, context, wrap, norms):
    model, x = wrap(fresh).eval(), torch.randn(6, 1, 8, 8)
    assert sum(isinstance(m, nn.BatchNorm2d) for m in model.modules()) == norms
    with torch.no_grad():
        before = model(x)
        folded = FoldBn()(model, context)
        assert not any(isinstance(m, nn.BatchNorm2d) for m in folded.modules())
        torch.testing.assert_close(folded(x), before, atol=1e-5, rtol=1e-5)


class Parts(nn.Module):
    """Can't be traced as a whole; what it calls in two places is a part that could be, or lies in one."""

    def __init__(self, *, twice: bool):
        super().__init__()
        self.part = nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3))
        if twice:
            self.layer = self.part[0]

    def forward(self, x):
        x = self.part(x) if x.sum() < 1e9 else x
        return self.layer(x) if hasattr(self, "layer") else x


def settled(model):
    """The model with statistics that matter."""
    model.train()(torch.randn(16, 3, 4, 4) * 2 + 1)
    return model.eval()


def test_parts_of_what_cannot_be_traced_are_folded():
    model, x = settled(Parts(twice=False)), torch.randn(2, 3, 4, 4)
    before = model(x)
    assert fold(model) == 1
    assert type(model.part[1]) is nn.Identity
    torch.testing.assert_close(model(x), before, atol=1e-5, rtol=1e-5)


def test_a_layer_that_code_beyond_tracing_may_call_is_left_alone(context):
    with pytest.raises(Unsupported, match="can't trace Parts"):
        FoldBn()(Parts(twice=True), context)
