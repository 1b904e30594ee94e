"""SAM on functions whose gradient is known everywhere, and noise on gradients by its moments."""

from __future__ import annotations

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from scipy import stats
from torch import nn

from cnnbench_plugins.regularizer.sam import Sam
from cnnbench_plugins.regularizer.updates import GradientNoise


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


class Quadratic(nn.Module):
    """Half of w A w over two parameters of different shape, whose gradient is A w."""

    def __init__(self):
        super().__init__()
        self.a = nn.Parameter(torch.randn(2, 2, generator=generator(1)).double())
        self.b = nn.Parameter(torch.randn(3, generator=generator(2)).double())
        root = torch.randn(7, 7, generator=generator(3)).double()
        self.matrix = root @ root.T

    def flat(self):
        return torch.cat([self.a.flatten(), self.b])

    def forward(self):
        return 0.5 * self.flat() @ self.matrix @ self.flat()

    def gradient(self):
        return torch.cat([self.a.grad.flatten(), self.b.grad])


@pytest.mark.parametrize("rho", [0.05, 2.0])
def test_sam_takes_the_gradient_at_the_end_of_one_normalized_step_uphill(rho):
    model = Quadratic()
    w = model.flat().detach()
    model().backward()
    technique = Sam(rho=rho)
    state = technique.perturb(model)
    g = model.matrix @ w
    torch.testing.assert_close(model.flat().detach(), w + rho * g / g.norm())
    assert (model.flat() - w).norm().item() == pytest.approx(rho), "over all parameters together"
    model.zero_grad()
    model().backward()
    technique.restore(model, state)
    assert torch.equal(model.flat(), w), "bit for bit"
    torch.testing.assert_close(model.gradient(), model.matrix @ (w + rho * g / g.norm()))


def test_sam_stays_where_the_gradient_is_zero():
    model = Quadratic()
    (0 * model()).backward()
    before = model.flat().detach()
    state = Sam().perturb(model)
    assert torch.equal(model.flat(), before)
    Sam().restore(model, state)
    assert torch.equal(model.flat(), before)


class Normed(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.cumulative = nn.BatchNorm2d(4, momentum=None)
        self.fc = nn.Linear(4, 3)
        self.unused = nn.Linear(2, 2)
        self.frozen = nn.Parameter(torch.ones(3), requires_grad=False)

    def forward(self, x):
        return self.fc(self.cumulative(self.norm(self.conv(x))).mean((2, 3))) * self.frozen


def test_sam_leaves_no_trace_in_batch_norm_statistics_nor_in_what_has_no_gradient():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Normed().train()
    images, labels = torch.randn(8, 1, 6, 6, generator=generator()), torch.arange(8) % 3
    once = copy.deepcopy(model)
    once(images)
    F.cross_entropy(model(images), labels).backward()
    first = model.conv.weight.grad.clone()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = Sam(rho=0.5).perturb(model)
    assert torch.equal(model.unused.weight, before["unused.weight"])
    assert torch.equal(model.frozen, before["frozen"])
    model.zero_grad()
    F.cross_entropy(model(images), labels).backward()
    assert not torch.equal(model.norm.running_mean, before["norm.running_mean"])
    Sam(rho=0.5).restore(model, state)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name
    for name, buffer in once.named_buffers():
        assert torch.equal(model.get_buffer(name), buffer), name
    assert model.norm.num_batches_tracked == 1
    assert not torch.allclose(model.conv.weight.grad, first)


def test_sam_holds_no_state():
    one, two = Quadratic(), Quadratic()
    with torch.no_grad():
        two.a.mul_(3)
    starts = one.flat().detach(), two.flat().detach()
    technique = Sam()
    one().backward()
    two().backward()
    states = technique.perturb(one), technique.perturb(two)
    technique.restore(one, states[0])
    technique.restore(two, states[1])
    assert torch.equal(one.flat(), starts[0])
    assert torch.equal(two.flat(), starts[1])


def with_gradients(value=0.0):
    model = nn.Sequential(nn.Linear(100, 300), nn.Linear(300, 10), nn.Linear(4, 4))
    for parameter in (*model[0].parameters(), *model[1].parameters()):
        parameter.grad = torch.full_like(parameter, value)
    return model


@pytest.mark.parametrize(("eta", "gamma", "step"), [(0.01, 0.55, 0), (1.0, 0.55, 999), (0.3, 0.0, 10)])
def test_gradient_noise_has_the_papers_variance(eta, gamma, step):
    model = with_gradients(2.0)
    GradientNoise(eta=eta, gamma=gamma).gradients(model, generator(), step)
    noise = torch.cat([p.grad.flatten() for p in model[:2].parameters()]) - 2
    variance = eta / (1 + step) ** gamma
    assert noise.var().item() == pytest.approx(variance, rel=5 * math.sqrt(2 / len(noise)))
    assert stats.kstest(noise.numpy(), stats.norm(0, math.sqrt(variance)).cdf).pvalue > 0.001
    assert model[2].weight.grad is None, "what had no gradient has none"


def test_gradient_noise_draws_from_its_generator_alone_and_on_any_layout():
    torch.manual_seed(0)
    before = torch.random.get_rng_state()
    models = [nn.Conv2d(3, 5, 3), nn.Conv2d(3, 5, 3).to(memory_format=torch.channels_last), nn.Conv2d(3, 5, 3)]
    torch.random.set_rng_state(before)
    for model, seed in zip(models, (0, 0, 1), strict=True):
        for parameter in model.parameters():
            parameter.grad = torch.zeros_like(parameter)
        GradientNoise().gradients(model, generator(seed), 0)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(models[0].weight.grad, models[1].weight.grad)
    assert not torch.equal(models[0].weight.grad, models[2].weight.grad)


@pytest.mark.gpu
def test_sam_and_noise_on_gpu():
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4)).cuda().train()
    model(torch.randn(8, 4, device="cuda")).square().sum().backward()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = Sam().perturb(model)
    assert not torch.equal(model[0].weight, before["0.weight"])
    Sam().restore(model, state)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    grad = model[0].weight.grad.clone()
    GradientNoise().gradients(model, torch.Generator("cuda").manual_seed(0), 0)
    assert not torch.equal(model[0].weight.grad, grad)
