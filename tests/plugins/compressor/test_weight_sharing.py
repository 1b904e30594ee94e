from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans
from torch import nn

from cnnbench.errors import NoEffect
from cnnbench.slots import Observer
from cnnbench.stages.profile import saved_bytes
from cnnbench_plugins.compressor.prune_weights import PruneMagnitude
from cnnbench_plugins.compressor.weight_sharing import WeightSharing, cluster


def layers(model):
    return [m for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]


@pytest.mark.parametrize("count", [2, 5, 16])
def test_centroids_are_those_of_scikit_learn(count):
    values = torch.rand(400, generator=torch.Generator().manual_seed(count), dtype=torch.float64)
    centroids, index = cluster(values, count)
    points = values.numpy()[:, None]
    start = np.linspace(points.min(), points.max(), count)[:, None]
    reference = KMeans(count, init=start, n_init=1, algorithm="lloyd", tol=0, max_iter=100).fit(points)
    np.testing.assert_allclose(centroids, reference.cluster_centers_[:, 0], atol=1e-12)
    np.testing.assert_array_equal(index, reference.labels_)


def test_centroids_without_values_stay():
    values = torch.tensor([0.0, 0.0, 0.1, 9.9, 10.0])
    centroids, index = cluster(values, 4)
    torch.testing.assert_close(centroids.float(), torch.tensor([0.1 / 3, 10 / 3, 20 / 3, 9.95]))
    assert index.tolist() == [0, 0, 0, 3, 3]


@pytest.mark.parametrize("bits", [1, 2, 4])
@pytest.mark.parametrize("epochs", [0, 2])
def test_layers_have_at_most_as_many_values_as_codes(model, context, bits, epochs):
    made = WeightSharing(bits=bits, epochs=epochs)(copy.deepcopy(model), context)
    assert all(len(layer.weight.unique()) <= 2**bits for layer in layers(made))
    assert max(len(layer.weight.unique()) for layer in layers(made)) == 2**bits
    if epochs:
        assert context.trained_epochs == [epochs]
        still = WeightSharing(bits=bits, epochs=0)(model, context)
        assert context.validation_accuracy(made) > context.validation_accuracy(still) - 0.02


def test_clusters_move_together_by_their_mean(model, context):
    still = WeightSharing(bits=2, epochs=0)(copy.deepcopy(model), context)
    made = WeightSharing(bits=2, epochs=1)(copy.deepcopy(model), context)
    for before, after in zip(layers(still), layers(made), strict=True):
        for value in before.weight.unique():
            assert len(after.weight[before.weight == value].unique()) == 1
        assert not torch.equal(before.weight, after.weight)

    class OneStep(type(context)):
        def train(self, model, *, observers, **options):
            with torch.no_grad():
                model[0].weight += torch.arange(model[0].weight.numel()).view_as(model[0].weight)
            for observer in observers:
                observer.after_step(model, 0)

    one = OneStep(context.train_images, context.train_labels, context.test_images, context.test_labels)
    moved = WeightSharing(bits=2, epochs=1)(model, one).network[0].weight
    start = still.network[0].weight
    place = torch.arange(start.numel()).view_as(start)
    for value in start.unique():
        torch.testing.assert_close(moved[start == value][0], value + place[start == value].float().mean())


def test_training_never_sees_more_values_than_codes(model, context):
    seen = []

    class Look(Observer):
        def after_step(self, model, step):
            seen.append(max(len(layer.weight.unique()) for layer in layers(model)))

    class Watching(type(context)):
        def train(self, model, *, observers=(), **options):
            return super().train(model, observers=[*observers, Look()], **options)

    watching = Watching(context.train_images, context.train_labels, context.test_images, context.test_labels)
    WeightSharing(bits=2, epochs=1)(model, watching)
    assert set(seen) == {4}


def test_zero_takes_one_of_the_codes(model, context):
    pruned = PruneMagnitude(sparsity=0.5, epochs=0)(model, context)
    made = WeightSharing(bits=1, epochs=0)(pruned, context)
    assert all(len(layer.weight.unique()) == 2 and (layer.weight == 0).any() for layer in layers(made))


def test_deep_compression_keeps_zeros_and_counts_the_nonzero(model, context):
    pruned = PruneMagnitude(sparsity=0.9, epochs=0)(model, context)
    zeros = [layer.weight == 0 for layer in layers(pruned)]
    made = WeightSharing(bits=4, epochs=1)(pruned, context)
    size = saved_bytes(made.network)
    for layer, zero in zip(layers(made), zeros, strict=True):
        assert torch.equal(layer.weight == 0, zero)
        assert len(layer.weight.unique()) <= 16
        reach = 8 if layer.weight.dim() == 4 else 5
        nonzero = layer.weight.count_nonzero().item()
        # The distances here never outgrow their bits, or a filler or two would come on top.
        size += min(layer.weight.numel() * 4, nonzero * (4 + reach)) / 8 + 4 * 16 - 4 * layer.weight.numel()
    assert size <= made.deployed_bytes < size + 20


def test_nothing_to_share_is_an_error(model, context):
    with pytest.raises(NoEffect, match="shared nothing: no layer has more than 32 different weights"):
        WeightSharing()(nn.Sequential(nn.Flatten(), nn.Linear(2, 3)), context)
    made = WeightSharing(bits=3, epochs=0)(model, context)
    with pytest.raises(NoEffect, match="more than 8"):
        WeightSharing(bits=3)(made, context)


def test_a_layer_that_is_pruned_to_nothing_stays_so(context):
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 20), nn.Linear(20, 10))
    nn.init.zeros_(model[2].weight)
    assert WeightSharing(bits=2, epochs=1)(model, context).network[2].weight.count_nonzero() == 0
