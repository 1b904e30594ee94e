"""Every norm, activation and initializer trains one step on real networks, copies, pickles, and keeps its mode."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
import torchvision
from torch import nn

from cnnbench.slots import SLOTS
from cnnbench.surgery import apply_surgery
from cnnbench.technique import card_of
from cnnbench_plugins import _techniques

TECHNIQUES = [
    cls()
    for slot in ("norm", "activation", "initializer")
    for cls in _techniques(slot)
    if not card_of(cls).requires and card_of(cls).name != "zero_gamma"  # acts on residual networks alone: has its own
]


def tiny():
    return nn.Sequential(
        *(nn.Conv2d(3, 16, 3, bias=False), nn.BatchNorm2d(16), nn.ReLU(inplace=True), nn.MaxPool2d(2)),
        *(nn.Conv2d(16, 8, 3, groups=8), nn.GroupNorm(2, 8), nn.Hardswish(), nn.Dropout(0.1, inplace=True)),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10)),
    )


def resnet18():
    return torchvision.models.resnet18(weights=None, num_classes=10)


def apply(technique, model):
    slot = card_of(technique).slot
    if slot == "initializer":
        technique(model, torch.Generator().manual_seed(0))
    else:
        assert apply_surgery(slot, technique, model).unreached == ()


def outputs(model, x):
    with torch.no_grad():
        return model.eval()(x)


def test_the_catalogue_is_all_here():
    names = {slot: {card_of(t).name for t in TECHNIQUES if card_of(t).slot == slot} for slot in SLOTS}
    assert names["norm"] >= {"none", "batch", "group", "layer", "instance"}
    assert names["activation"] >= {"relu", "leaky_relu", "elu", "prelu", "sigmoid", "tanh", "silu", "gelu"}
    scaled = {f"{family}_{shape}" for family in ("xavier", "he") for shape in ("normal", "uniform")}
    assert names["initializer"] >= {"default", "zeros", "normal", "uniform", "trunc_normal", "orthogonal"} | scaled


@pytest.mark.parametrize(
    "build", [tiny, pytest.param(resnet18, marks=pytest.mark.slow)], ids=lambda build: build.__name__
)
@pytest.mark.parametrize("technique", TECHNIQUES, ids=str)
def test_one_step(technique, build):
    torch.manual_seed(0)
    model = build().train()
    apply(technique, model)
    assert all(module.training for module in model.modules())
    # Five halvings of 32 pixels leave one, of which instance norm can make nothing.
    size = 64 if card_of(technique).name == "instance" else 32
    x, y = torch.randn(4, 3, size, size), torch.arange(4)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    loss = nn.functional.cross_entropy(model(x), y)
    loss.backward()
    optimizer.step()
    assert torch.isfinite(loss)
    assert all(torch.isfinite(p).all() for p in model.parameters())
    assert any(not torch.equal(p, q) for p, q in zip(model.parameters(), before, strict=True))
    expected = outputs(model, x)
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(outputs(twin, x), expected)
