"""Optimizers against the papers' update rules, written out."""

from __future__ import annotations

import copy
import dataclasses
import math

import pytest
import torch
from torch import nn

from cnnbench_plugins.optimizer.adaptive import Adam, AdamW, RmsProp
from cnnbench_plugins.optimizer.sgd import Sgd

STEPS = 6


def label(value: object) -> str | None:
    # Only options make an id: a function's text holds its address, which differs from run to run.
    return str(value) if dataclasses.is_dataclass(value) else None


def target() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()


def descend(model: nn.Module, step) -> list[torch.Tensor]:
    x = torch.linspace(-1, 1, 15, dtype=torch.float64).view(5, 3)
    for _ in range(STEPS):
        for parameter in model.parameters():
            parameter.grad = None
        model(x).square().sum().backward()
        step()
    return [p.detach() for p in model.parameters()]


def sgd(w, g, s, t, lr, momentum, nesterov, decay):
    g = g + decay * w
    s["v"] = momentum * s.get("v", 0) + g
    return w - lr * (g + momentum * s["v"] if nesterov else s["v"])


def adam(w, g, s, t, lr, b1, b2, eps, decay):
    w = w * (1 - lr * decay)
    s["m"] = b1 * s.get("m", 0) + (1 - b1) * g
    s["v"] = b2 * s.get("v", 0) + (1 - b2) * g**2
    return w - lr * (s["m"] / (1 - b1**t)) / ((s["v"] / (1 - b2**t)).sqrt() + eps)


def rmsprop(w, g, s, t, lr, alpha, eps, momentum):
    s["v"] = alpha * s.get("v", 0) + (1 - alpha) * g**2
    s["b"] = momentum * s.get("b", 0) + g / (s["v"].sqrt() + eps)
    return w - lr * s["b"]


@pytest.mark.parametrize(
    ("technique", "rule", "arguments"),
    [
        (Sgd(lr=0.05, momentum=0.0), sgd, (0.05, 0.0, False, 0.0)),
        (Sgd(lr=0.02), sgd, (0.02, 0.9, False, 0.0)),
        (Sgd(lr=0.02, momentum=0.8, nesterov=True, weight_decay=0.1), sgd, (0.02, 0.8, True, 0.1)),
        (Adam(lr=0.01), adam, (0.01, 0.9, 0.999, 1e-8, 0.0)),
        (Adam(lr=0.01, beta1=0.5, beta2=0.9, eps=1e-3), adam, (0.01, 0.5, 0.9, 1e-3, 0.0)),
        (AdamW(lr=0.01, weight_decay=0.3), adam, (0.01, 0.9, 0.999, 1e-8, 0.3)),
        (RmsProp(lr=0.01), rmsprop, (0.01, 0.99, 1e-8, 0.0)),
        (RmsProp(lr=0.01, alpha=0.9, eps=1e-3, momentum=0.5), rmsprop, (0.01, 0.9, 1e-3, 0.5)),
    ],
    ids=label,
)
def test_updates_follow_the_rule(technique, rule, arguments):
    model = target()
    reference = copy.deepcopy(model)
    optimizer = technique(model)
    state: dict[nn.Parameter, dict] = {p: {} for p in reference.parameters()}
    count = 0

    def by_hand():
        nonlocal count
        count += 1
        with torch.no_grad():
            for parameter, kept in state.items():
                parameter.copy_(rule(parameter, parameter.grad, kept, count, *arguments))

    for ours, expected in zip(descend(model, optimizer.step), descend(reference, by_hand), strict=True):
        torch.testing.assert_close(ours, expected, atol=1e-9, rtol=1e-7)
    assert not torch.equal(next(model.parameters()), next(target().parameters()))


@pytest.mark.parametrize("technique", [Sgd(), Adam(), AdamW(), RmsProp()], ids=str)
def test_frozen_parameters_stay_out_and_the_rate_can_be_scheduled(technique):
    model = target()
    model[0].weight.requires_grad_(False)
    optimizer = technique(model)
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert held == {id(p) for p in model.parameters() if p.requires_grad}
    before = [p.detach().clone() for p in model.parameters()]
    for group in optimizer.param_groups:
        assert group["lr"] == technique.lr
        group["lr"] = 0.0
    for now, then in zip(descend(model, optimizer.step), before, strict=True):
        assert torch.equal(now, then)


@pytest.mark.parametrize("technique", [Sgd(), Adam(), AdamW(), RmsProp()], ids=str)
def test_two_runs_give_identical_weights(technique):
    first, second = target(), target()
    runs = [descend(model, technique(model).step) for model in (first, second)]
    assert all(torch.equal(a, b) for a, b in zip(*runs, strict=True))
    assert all(math.isfinite(value) for tensor in runs[0] for value in tensor.flatten().tolist())


def test_nesterov_needs_momentum():
    with pytest.raises(ValueError, match="momentum above 0"):
        Sgd(momentum=0.0, nesterov=True)


@pytest.mark.parametrize("technique", [Sgd(), Sgd(momentum=0.0), Adam(), AdamW(), RmsProp(momentum=0.5)], ids=label)
def test_a_parameter_may_join_later(technique):
    """As layers do that are frozen at first: its first step is that of an optimizer of its own."""
    early, late, alone = (nn.Parameter(torch.tensor([1.0, -2.0])) for _ in range(3))
    both, single = (technique(nn.ParameterList(parameters)) for parameters in ([early, late], [alone]))
    early.grad = torch.tensor([0.5, 0.25])
    both.step()
    assert late.tolist() == [1.0, -2.0]
    late.grad, alone.grad = torch.tensor([3.0, -1.0]), torch.tensor([3.0, -1.0])
    both.step()
    single.step()
    torch.testing.assert_close(late, alone)
