from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models import mobilenet_v2, resnet18, shufflenet_v2_x0_5

pytest.importorskip("torch_pruning")

from cnnbench.errors import NoEffect, Unsupported
from cnnbench_plugins.compressor.prune_filters import PruneFilters, ranking, remove_channels
from cnnbench_plugins.model.resnet import ResNet


def params(model):
    return sum(p.numel() for p in model.parameters())


def flops(model, x):
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(x)
    return counter.get_total_flops()


def generator():
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize("importance", ["l1", "l2", "bn_scale", "random"])
def test_tensors_shrink_and_the_classes_stay(model, context, importance):
    dense, work = params(model), flops(model, context.example)
    small = PruneFilters(ratio=0.5, importance=importance, epochs=0)(model, context)
    assert [m.out_channels for m in small.modules() if isinstance(m, nn.Conv2d)] == [8, 8, 8, 16, 16, 16]
    assert small[7].in_features == 16
    assert small(context.calibration(5)).shape == (5, 10)
    assert params(small) < 0.3 * dense
    assert flops(small, context.example) < 0.3 * work
    assert all(p.requires_grad and p.grad is None for p in small.parameters())
    assert not small.training


@pytest.mark.parametrize(("importance", "kept"), [("l1", [1, 3, 5]), ("l2", [0, 2, 4])])
def test_the_filters_with_the_smallest_norm_go(importance, kept):
    # Even filters hold one large weight (sum 3, squares 9), odd ones 27 small ones (sum 5.4, squares 1.08).
    model = nn.Sequential(nn.Conv2d(3, 6, 3, bias=False), nn.Conv2d(6, 4, 1, bias=False)).eval()
    with torch.no_grad():
        model[0].weight[1::2] = 0.2
        model[0].weight[::2] = 0
        model[0].weight[::2, 0, 0, 0] = 3
        model[1].weight.fill_(0.1)
        model[1].weight[:, 2] = torch.tensor([0.1, -0.1, 0.1, -0.1])[:, None, None]
    first, second = (layer.weight.detach().clone() for layer in model)
    remove_channels(model, torch.zeros(1, 3, 8, 8), 0.5, ranking(importance, generator()))
    torch.testing.assert_close(model[0].weight, first[kept], rtol=0, atol=0)
    torch.testing.assert_close(model[1].weight, second[:, kept], rtol=0, atol=0)


def test_the_norm_counts_every_layer_that_loses_the_channel():
    model = nn.Sequential(nn.Conv2d(3, 4, 1, bias=False), nn.Conv2d(4, 4, 1, bias=False)).eval()
    with torch.no_grad():
        model[0].weight.fill_(1)
        model[0].weight[:2] = 2
        model[1].weight.fill_(0)
        model[1].weight[:, 2:] = 5
    remove_channels(model, torch.zeros(1, 3, 8, 8), 0.5, ranking("l1", generator()))
    assert (model[0].weight == 1).all()
    assert (model[1].weight == 5).all()


def test_a_network_of_zeros_is_pruned_all_the_same():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1)).eval()
    for parameter in model.parameters():
        parameter.data.zero_()
    remove_channels(model, torch.zeros(1, 3, 8, 8), 0.5, ranking("l1", generator()))
    assert model[0].out_channels == 2


def test_bn_scale_removes_the_smallest_gamma():
    model = nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.Conv2d(6, 4, 1)).eval()
    model[1].weight.data = torch.tensor([0.1, -2.0, 0.3, 1.0, -0.2, 3.0])
    remove_channels(model, torch.zeros(1, 3, 8, 8), 0.5, ranking("bn_scale", generator()))
    assert model[1].weight.tolist() == [-2.0, 1.0, 3.0]


def test_dead_channels_cost_nothing():
    # Channels that are zero throughout go first, so outputs stay exactly as they were.
    model = nn.Sequential(nn.Conv2d(3, 6, 3, bias=False), nn.ReLU(), nn.Conv2d(6, 4, 1)).eval()
    with torch.no_grad():
        model[0].weight[[1, 3, 4]] = 0
        model[2].weight[:, [1, 3, 4]] = 0
    x = torch.randn(2, 3, 8, 8)
    before = model(x)
    remove_channels(model, x[:1], 0.5, ranking("l1", generator()))
    assert params(model) == 3 * 27 + 3 * 4 + 4
    torch.testing.assert_close(model(x), before)


def test_fine_tuning_recovers_accuracy(model, context):
    raw = PruneFilters(ratio=0.25, epochs=0)(copy.deepcopy(model), context)
    tuned = PruneFilters(ratio=0.25, epochs=2)(model, context)
    assert context.trained_epochs == [2]
    assert context.validation_accuracy(tuned) > max(0.85, context.validation_accuracy(raw))


def test_random_importance_draws_from_the_contexts_generator_alone(model, context):
    state = torch.get_rng_state()
    results = []
    for seed in (4, 4, 5):
        context.generator.manual_seed(seed)
        small = PruneFilters(importance="random", epochs=0)(copy.deepcopy(model), context)
        results.append(torch.cat([p.detach().flatten() for p in small.parameters()]))
    assert torch.equal(state, torch.get_rng_state())
    assert torch.equal(results[0], results[1])
    assert not torch.equal(results[0], results[2])


@pytest.mark.parametrize("make", [resnet18, mobilenet_v2])
def test_torchvision_networks(make):
    model = make(weights=None, num_classes=10)
    before = params(model)
    x = torch.randn(2, 3, 32, 32)
    remove_channels(model, x[:1], 0.5, ranking("l1", generator()))
    assert model(x).shape == (2, 10)
    assert params(model) < 0.3 * before


def test_a_group_norm_loses_as_many_channels_from_each_group():
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.GroupNorm(2, 8), nn.ReLU(), nn.Conv2d(8, 4, 1)).eval()
    remove_channels(model, torch.zeros(1, 3, 8, 8), 0.25, ranking("l2", generator()))
    assert (model[0].out_channels, model[1].num_channels, model[1].num_groups) == (6, 6, 2)


def test_what_torch_pruning_cannot_follow_is_unsupported_with_its_reason():
    with pytest.raises(Unsupported, match="torch-pruning can't follow the channels of ShuffleNetV2 "):
        remove_channels(shufflenet_v2_x0_5(weights=None), torch.randn(1, 3, 64, 64), 0.5, ranking("l1", generator()))
    padded = ResNet(depth=8, width=8, shortcut="pad")((3, 32, 32), 10)
    with pytest.raises(Unsupported, match="zero-padded shortcuts"):
        remove_channels(padded, torch.randn(1, 3, 32, 32), 0.5, ranking("l1", generator()))


def test_statistics_are_those_of_the_pruned_network_without_fine_tuning(model, context):
    small = PruneFilters(ratio=0.25, epochs=0)(model, context)
    features = {}
    small[1].register_forward_hook(lambda _, inputs, __: features.update(x=inputs[0]))
    mean = small[1].running_mean.clone()
    with torch.no_grad():
        small(context.train_images)
    torch.testing.assert_close(mean, features["x"].mean((0, 2, 3)), rtol=1e-4, atol=1e-5)
    assert context.trained_epochs == []


def test_nothing_removed_is_an_error():
    plain = nn.Sequential(nn.Conv2d(3, 6, 3), nn.Conv2d(6, 4, 1))
    with pytest.raises(NoEffect, match="none has what the importance ranks by"):
        remove_channels(plain, torch.zeros(1, 3, 8, 8), 0.5, ranking("bn_scale", generator()))
    with pytest.raises(NoEffect, match=r"removed no channel at ratio 0\.9: no layer would keep"):
        remove_channels(plain, torch.zeros(1, 3, 8, 8), 0.9, ranking("l1", generator()))
    with pytest.raises(NoEffect, match="no convolution or linear layer"):
        remove_channels(nn.Sequential(nn.Flatten()), torch.zeros(1, 3, 8, 8), 0.5, ranking("l1", generator()))
