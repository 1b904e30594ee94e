"""Batch renorm and ghost batch norm against the papers' algorithms in numpy, and as the harness uses them."""

from __future__ import annotations

import copy
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from cnnbench.devices import Device
from cnnbench.seeds import Streams
from cnnbench.stages.train import recalibrate
from cnnbench.surgery import apply_surgery, fold_for_inference
from cnnbench_plugins.compressor.fold_bn import fold
from cnnbench_plugins.norm.batch_variants import BatchRenorm, GhostBatchNorm
from cnnbench_plugins.norm.standard import BatchNorm

C = 6


def made(technique):
    """The technique's layer in place of a batch norm with scale and shift of its own, float64."""
    generator = torch.Generator().manual_seed(1)
    old = nn.BatchNorm2d(C).double()
    for parameter in old.parameters():
        parameter.data.normal_(generator=generator)
    model = nn.Sequential(old)
    apply_surgery("norm", technique, model)
    return model[0]


def images(count, seed=0, spread=1.0):
    generator = torch.Generator().manual_seed(seed)
    offset = torch.arange(C).view(1, C, 1, 1) * spread
    return torch.randn(count, C, 3, 4, dtype=torch.float64, generator=generator) * (1 + offset / 3) + offset


def moments(x):
    return x.mean((0, 2, 3)).numpy(), x.var((0, 2, 3), correction=0).numpy()


def renormalized(batches, layer, *, r_max, d_max, hold, r_full, d_full, momentum, eps):
    """Algorithm 1 of the paper, step by step; outputs of all batches, and the final moving mean and deviation."""
    weight, bias = (p.detach().numpy()[:, None, None] for p in (layer.weight, layer.bias))
    mu, sigma = np.zeros(C), np.sqrt(np.ones(C) + eps)
    outputs = []
    for step, x in enumerate(batches):
        mean, variance = moments(x)
        deviation = np.sqrt(variance + eps)
        r_now = np.interp(step, [hold, r_full], [1, r_max])
        d_now = np.interp(step, [hold, d_full], [0, d_max])
        r = np.clip(deviation / sigma, 1 / r_now, r_now)
        d = np.clip((mean - mu) / sigma, -d_now, d_now)
        normal = (x.numpy() - mean[:, None, None]) / deviation[:, None, None]
        outputs.append((normal * r[:, None, None] + d[:, None, None]) * weight + bias)
        mu = mu + momentum * (mean - mu)
        sigma = sigma + momentum * (deviation - sigma)
    return outputs, mu, sigma


RENORM = {"r_max": 2.0, "d_max": 0.5, "hold": 2, "r_full": 6, "d_full": 4, "momentum": 0.3, "eps": 1e-3}


def test_renorm_is_the_papers_algorithm():
    layer = made(BatchRenorm(**RENORM))
    batches = [images(5, seed) for seed in range(10)]
    expected, mu, sigma = renormalized(batches, layer, **RENORM)
    for x, y in zip(batches, expected, strict=True):
        np.testing.assert_allclose(layer(x).detach().numpy(), y, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(layer.running_mean.numpy(), mu, rtol=1e-9)
    np.testing.assert_allclose((layer.running_var + layer.eps).sqrt().numpy(), sigma, rtol=1e-9)


def test_renorm_in_full_gives_in_training_what_inference_gives():
    """Without limits r and d replace the batch's statistics by the running ones altogether."""
    layer = made(BatchRenorm(r_max=1e9, d_max=1e9, hold=0, r_full=0, d_full=0))
    for seed in range(5):
        layer(images(8, seed))
    x = images(8, 99)
    inference = copy.deepcopy(layer).eval()(x)
    torch.testing.assert_close(layer(x), inference, rtol=1e-6, atol=1e-6)


def test_renorm_begins_as_batch_norm():
    layer, plain = made(BatchRenorm(hold=3)), made(BatchNorm())
    for seed in range(3):
        torch.testing.assert_close(layer(images(5, seed)), plain(images(5, seed)))


def test_renorm_takes_no_gradient_through_r_and_d():
    """The gradient is batch norm's times r, the constants held."""
    layer = made(BatchRenorm(**RENORM | {"r_max": 1.5, "hold": 0, "r_full": 0, "d_full": 0}))
    layer.running_mean += 0.3
    layer.running_var *= 1.7
    x = images(5, 3).requires_grad_()
    upstream = torch.randn(x.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    _, variance = moments(x.detach())
    deviation, running = np.sqrt(variance + 1e-3), (layer.running_var + 1e-3).sqrt().numpy()
    r = torch.from_numpy(np.clip(deviation / running, 1 / 1.5, 1.5))
    assert 1.5 in r
    assert (r < 1.5).any()
    (layer(x) * upstream).sum().backward()
    other = x.detach().clone().requires_grad_()
    plain = F.batch_norm(other, None, None, layer.weight.detach() * r, None, training=True, eps=1e-3)
    (plain * upstream).sum().backward()
    torch.testing.assert_close(x.grad, other.grad)


def test_renorm_ramp():
    layer = made(BatchRenorm(r_max=3, d_max=5, hold=10, r_full=30, d_full=20))
    seen = {}
    for step in (0, 10, 15, 20, 30, 100):
        layer.steps.fill_(step)
        seen[step] = tuple(float(limit) for limit in layer.limits())
    assert seen == {0: (1, 0), 10: (1, 0), 15: (1.5, 2.5), 20: (2, 5), 30: (3, 5), 100: (3, 5)}


@pytest.mark.parametrize("options", [{"r_full": 10}, {"d_full": 49}, {"r_max": 1, "d_max": 0}])
def test_renorm_options_that_make_no_sense(options):
    with pytest.raises(ValueError, match=r"hold|is batch norm"):
        BatchRenorm(**options)


@given(st.integers(2, 40), st.integers(2, 20))
@settings(deadline=None, max_examples=40)
def test_ghost_parts_are_normalized_apart(count, virtual_batch):
    layer, plain = made(GhostBatchNorm(virtual_batch=virtual_batch)), made(BatchNorm())
    x = images(count)
    y = layer(x)
    if count % virtual_batch == 0:
        parts = x.split(virtual_batch)
    else:
        parts = x.tensor_split(max(1, min(round(count / virtual_batch), count // 2)))
        assert max(map(len, parts)) - min(map(len, parts)) <= 1
        assert min(map(len, parts)) >= 2
        assert len(parts) == 1 or min(map(len, parts)) >= virtual_batch / 2
    torch.testing.assert_close(y, torch.cat([plain(part) for part in parts]))


def test_ghost_running_statistics_are_the_papers():
    """(1 - momentum)^k of the old value, the later parts weighing more."""
    layer = made(GhostBatchNorm(virtual_batch=4, momentum=0.2))
    layer.running_mean.fill_(2.0)
    x = images(12)
    layer(x)
    means = [part.mean((0, 2, 3)) for part in x.split(4)]
    expected = 0.8**3 * 2 + 0.2 * (0.8**2 * means[0] + 0.8 * means[1] + means[2])
    torch.testing.assert_close(layer.running_mean, expected)


def test_ghost_of_the_whole_batch_is_batch_norm():
    layer, plain = made(GhostBatchNorm(virtual_batch=16)), made(BatchNorm())
    torch.testing.assert_close(layer(images(16)), plain(images(16)))
    torch.testing.assert_close(layer.running_var, plain.running_var)
    apart = made(GhostBatchNorm(virtual_batch=4))
    assert (apart(images(16)) - plain(images(16))).abs().max() > 0.05


BOTH = [BatchRenorm(hold=2, r_full=4, d_full=4), GhostBatchNorm(virtual_batch=4)]


@pytest.mark.parametrize("technique", BOTH, ids=lambda t: type(t).__name__)
class TestBoth:
    def trained(self, technique):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(3, C, 3), nn.BatchNorm2d(C), nn.ReLU(), nn.Flatten(), nn.LazyLinear(2))
        apply_surgery("norm", technique, model)
        for _ in range(12):
            model(torch.rand(8, 3, 5, 5)).square().mean().backward()
        return model.eval()

    def test_folds_to_batch_norm_and_into_the_convolution(self, technique):
        model = self.trained(technique)
        x = torch.rand(1, 3, 5, 5)
        before = model(x)
        fold_for_inference(model)
        assert type(model[1]) is nn.BatchNorm2d
        assert torch.equal(model(x), before)
        assert fold(model) == 1
        assert isinstance(model[1], nn.Identity)
        torch.testing.assert_close(model(x), before, rtol=0, atol=1e-5)

    def test_recalibration_gives_the_training_splits_statistics(self, technique):
        """As of batch norm: means over all images, variances over the parts that training takes them from."""
        model = self.trained(technique)
        steps = float(model[1].steps) if hasattr(model[1], "steps") else None
        pixels = torch.randint(0, 256, (24, 3, 5, 5), dtype=torch.uint8, generator=torch.Generator().manual_seed(3))
        splits = SimpleNamespace(train_images=pixels)
        how = SimpleNamespace(splits=splits, batch_size=8, input=nn.Identity(), device=Device("cpu"))
        model[1].running_mean.fill_(50)
        recalibrate(model, how)
        order = torch.randperm(
            24, generator=Streams(0, "recalibration").generator("order")
        )  # as the harness mixes them
        features = model[0](pixels[order] / 255)
        torch.testing.assert_close(model[1].running_mean, features.mean((0, 2, 3)))
        size = 24 if steps is not None else 4
        variances = torch.stack([part.var((0, 2, 3)) for part in features.split(size)])
        torch.testing.assert_close(model[1].running_var, variances.mean(0), rtol=1e-4, atol=1e-6)
        assert model[1].momentum == 0.1
        if steps is not None:
            assert float(model[1].steps) == steps, "fine-tuning would begin anew as batch norm"

    def test_statistics_and_scale_of_the_norm_replaced_stay(self, technique):
        old = nn.BatchNorm2d(C)
        old.running_mean.fill_(3)
        old.weight.data.fill_(0)
        model = nn.Sequential(old)
        apply_surgery("norm", technique, model)
        assert model[0].running_mean.tolist() == [3] * C
        assert model[0].weight.tolist() == [0] * C

    def test_memory_format_and_autocast(self, technique):
        model = nn.Sequential(nn.BatchNorm2d(C))
        apply_surgery("norm", technique, model)
        x = images(9).float().to(memory_format=torch.channels_last)
        assert model(x).is_contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert model(x.bfloat16()).dtype == torch.bfloat16
        assert model[0].running_mean.dtype == torch.float32
        assert copy.deepcopy(model).eval()(x[:1]).shape == (1, C, 3, 4)
