"""Regularizers against closed formulas and PyTorch's own."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import nn

from cnnbench.errors import NoEffect
from cnnbench.slots import REGULARIZER_METHODS
from cnnbench_plugins import _techniques
from cnnbench_plugins.regularizer._layers import ChannelDropout
from cnnbench_plugins.regularizer.dropout import Dropout, SpatialDropout
from cnnbench_plugins.regularizer.penalties import L1, L2, ConfidencePenalty
from cnnbench_plugins.regularizer.targets import LabelSmoothing
from cnnbench_plugins.regularizer.updates import GradClip, MaxNorm, WeightDecay

ALL = tuple(_techniques("regularizer"))


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.layer_norm = nn.LayerNorm((4, 4, 4))
        self.act = nn.PReLU(4)
        self.fc = nn.Linear(64, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.act(self.layer_norm(self.norm(self.conv(x)))).flatten(1))


@pytest.fixture
def model() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Small()


@pytest.fixture
def batch() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(8, 3, 6, 6, generator=generator), torch.arange(8) % 5


LOGITS = torch.zeros(1, 2)
WEIGHTS = {"conv.weight", "fc.weight"}


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize("everything", [False, True])
@pytest.mark.parametrize(
    ("technique", "value", "gradient"),
    [
        (L1, lambda w: 0.3 * w.abs().sum(), lambda w: 0.3 * w.sign()),
        (L2, lambda w: 0.15 * (w * w).sum(), lambda w: 0.3 * w),
    ],
)
def test_penalties_and_their_gradients_follow_the_formula(model, technique, value, gradient, everything):
    penalty = technique(strength=0.3, norms_and_biases=everything).penalty(model, LOGITS)
    penalty.backward()
    named = dict(model.named_parameters())
    chosen = set(named) if everything else WEIGHTS
    torch.testing.assert_close(penalty.detach(), sum(value(named[name].detach()) for name in chosen))
    for name, parameter in named.items():
        if name in chosen:
            torch.testing.assert_close(parameter.grad, gradient(parameter.detach()))
        else:
            assert parameter.grad is None


def test_l2_is_the_weight_decay_of_sgd(model, batch):
    images, labels = batch
    other = copy.deepcopy(model)
    ours = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    theirs = torch.optim.SGD(other.parameters(), lr=0.1, momentum=0.9, weight_decay=0.02)
    technique = L2(strength=0.02, norms_and_biases=True)
    for _ in range(4):
        for net, optimizer in ((model, ours), (other, theirs)):
            logits = net(images)
            loss = F.cross_entropy(logits, labels)
            if net is model:
                loss = loss + technique.penalty(net, logits)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    for a, b in zip(model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)


def test_shared_weights_count_once_and_frozen_ones_not_at_all(model):
    tied = nn.Linear(64, 5)
    tied.weight = model.fc.weight
    model.conv.weight.requires_grad_(False)
    expected = model.fc.weight.abs().sum()
    torch.testing.assert_close(L1(strength=1.0).penalty(nn.Sequential(model.fc, tied, model.conv), LOGITS), expected)


@pytest.mark.parametrize("call", [lambda m: L1().penalty(m, LOGITS), lambda m: WeightDecay().weights(m, 0.1)])
def test_without_weights_there_is_no_effect(call):
    with pytest.raises(NoEffect, match="no trainable weight"):
        call(nn.Sequential(nn.BatchNorm2d(3), nn.ReLU()))


def test_confidence_penalty_is_minus_the_entropy(model):
    logits = torch.randn(7, 5, generator=generator()).requires_grad_()
    expected = -0.2 * torch.distributions.Categorical(logits=logits).entropy().mean()
    torch.testing.assert_close(ConfidencePenalty(strength=0.2).penalty(model, logits), expected)


@pytest.mark.parametrize("epsilon", [0.05, 0.1, 0.5])
def test_label_smoothing_equals_pytorchs(epsilon):
    logits = torch.randn(9, 6, generator=generator())
    labels = torch.arange(9) % 6
    smoothed = LabelSmoothing(epsilon=epsilon).targets(F.one_hot(labels, 6).float())
    torch.testing.assert_close(smoothed.sum(1), torch.ones(9))
    expected = nn.CrossEntropyLoss(label_smoothing=epsilon)(logits, labels)
    torch.testing.assert_close(F.cross_entropy(logits, smoothed), expected)


@pytest.mark.parametrize("everything", [False, True])
def test_weight_decay_multiplies_the_weights(model, everything):
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    model(torch.zeros(1, 3, 6, 6)).sum().backward()
    WeightDecay(strength=0.5, norms_and_biases=everything).weights(model, 0.2)
    for name, parameter in model.named_parameters():
        factor = 0.9 if everything or name in WEIGHTS else 1.0
        torch.testing.assert_close(parameter.detach(), factor * before[name])


@pytest.mark.parametrize("everything", [False, True])
def test_what_is_frozen_or_had_no_gradient_does_not_decay(model, everything):
    model.unused = nn.Linear(3, 2)
    model.conv.weight.requires_grad_(False)
    before = copy.deepcopy(model)
    sgd = torch.optim.SGD(model.parameters(), lr=0.1, weight_decay=0.5)
    theirs = torch.optim.SGD(before.parameters(), lr=0.1, weight_decay=0.5)
    for net, optimizer in ((model, sgd), (before, theirs)):
        net(torch.ones(2, 3, 6, 6)).sum().backward()
        for parameter in net.parameters():
            if parameter.grad is not None:
                parameter.grad.zero_()
        if net is before:
            optimizer.step()
    WeightDecay(strength=0.5, norms_and_biases=everything).weights(model, 0.1)
    assert torch.equal(model.conv.weight, before.conv.weight)
    assert torch.equal(model.unused.weight, before.unused.weight)
    torch.testing.assert_close(model.fc.weight, before.fc.weight)
    assert torch.allclose(model.fc.bias, before.fc.bias) is everything


def test_weight_decay_with_adam_is_adamw(model, batch):
    # The order within a step differs, which leaves a difference in the square of the learning rate.
    images, labels = batch
    lr, strength = 1e-3, 5.0
    plain, adamw = copy.deepcopy(model), copy.deepcopy(model)
    nets = (model, plain, adamw)
    optimizers = (
        torch.optim.Adam(model.parameters(), lr=lr),
        torch.optim.Adam(plain.parameters(), lr=lr),
        torch.optim.AdamW(adamw.parameters(), lr=lr, weight_decay=strength),
    )
    for _ in range(20):
        for net, optimizer in zip(nets, optimizers, strict=True):
            optimizer.zero_grad()
            F.cross_entropy(net(images), labels).backward()
            optimizer.step()
        WeightDecay(strength=strength, norms_and_biases=True).weights(model, lr)
    ours, none, theirs = (torch.cat([p.detach().flatten() for p in net.parameters()]) for net in nets)
    assert (ours - theirs).norm() < 0.02 * (none - theirs).norm()


@pytest.mark.parametrize("norm", [0.01, 1e6])
def test_grad_clip_scales_the_whole_gradient(model, batch, norm):
    images, labels = batch
    F.cross_entropy(model(images), labels).backward()
    before = torch.cat([p.grad.flatten() for p in model.parameters()])
    GradClip(norm=norm).gradients(model, generator(), 0)
    after = torch.cat([p.grad.flatten() for p in model.parameters()])
    torch.testing.assert_close(after, before * min(1.0, norm / before.norm().item()), atol=1e-7, rtol=1e-4)


def test_max_norm_caps_each_filter(model):
    with torch.no_grad():
        model.conv.weight[0] *= 100
    before = model.conv.weight.detach().clone()
    bias = model.fc.bias.detach().clone()
    MaxNorm(limit=2.0).weights(model, 0.1)
    lengths = before.flatten(1).norm(dim=1)
    expected = before * (2.0 / lengths).clamp(max=1).view(-1, 1, 1, 1)
    assert lengths[0] > 2 > lengths[1]
    torch.testing.assert_close(model.conv.weight.detach(), expected)
    assert torch.equal(model.fc.bias, bias)


def test_dropout_stands_before_the_classifier(model, batch):
    images, _ = batch
    model.eval()
    before = model(images)
    assert Dropout(p=0.4).prepare(model, generator()) == 1
    inserted, linear = model.fc
    assert isinstance(inserted, nn.Dropout)
    assert inserted.p == 0.4
    assert isinstance(linear, nn.Linear)
    assert torch.equal(model(images), before)
    model.train()
    with torch.random.fork_rng():
        torch.manual_seed(3)
        ours = model.fc(torch.ones(2, 64))
        torch.manual_seed(3)
        expected = linear(F.dropout(torch.ones(2, 64), 0.4))
    torch.testing.assert_close(ours, expected)


def test_dropout_in_blocks_follows_every_activation():
    net = torchvision.models.resnet18(num_classes=3)
    activations = sum(isinstance(m, nn.ReLU) for m in net.modules())
    assert Dropout(p=0.2, where="blocks").prepare(net, generator()) == activations
    assert sum(isinstance(m, nn.Dropout) for m in net.modules()) == activations
    assert isinstance(net.layer1[0].relu, nn.Sequential)
    net(torch.randn(2, 3, 32, 32, generator=generator())).sum().backward()


def test_dropout_finds_the_classifier_of_models_without_linear_layers():
    net = torchvision.models.squeezenet1_1(num_classes=3)
    assert Dropout().prepare(net, generator()) == 1
    assert isinstance(net.classifier[1][0], nn.Dropout)
    assert isinstance(net.classifier[1][1], nn.Conv2d)


def test_dropout_on_a_model_without_layers_inserts_nothing():
    assert Dropout().prepare(nn.Sequential(nn.Flatten(), nn.ReLU()), generator()) == 0
    with pytest.raises(NoEffect):
        Dropout(where="blocks").prepare(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), generator())


def test_spatial_dropout_drops_whole_channels():
    net = nn.Sequential(nn.Conv2d(1, 64, 1), nn.ReLU(), nn.Flatten())
    assert SpatialDropout(p=0.25).prepare(net, generator()) == 1
    layer = net[1][1]
    assert isinstance(layer, ChannelDropout)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        out = layer(torch.ones(50, 64, 3, 3))
        flat = layer(torch.ones(50, 64))
    channels = out.flatten(2)
    assert torch.equal(channels.amin(2), channels.amax(2))
    for values in (channels[..., 0], flat):
        assert values.unique().tolist() == pytest.approx([0, 1 / 0.75])
        assert (values == 0).float().mean().item() == pytest.approx(0.25, abs=0.03)
    assert torch.equal(layer.eval()(out), out)


@pytest.mark.parametrize("cls", ALL)
def test_every_regularizer_acts_somewhere(cls):
    assert [name for name in REGULARIZER_METHODS if callable(getattr(cls(), name, None))]
