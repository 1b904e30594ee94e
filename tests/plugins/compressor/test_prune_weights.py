from __future__ import annotations

import copy
import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils import prune as torch_prune

from cnnbench.errors import NoEffect
from cnnbench.slots import Observer
from cnnbench_plugins.compressor._sparsity import cubic_sparsity, smallest
from cnnbench_plugins.compressor.prune_weights import PruneMagnitude, PruneRandom


def weights(model):
    return {name: m.weight for name, m in model.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)}


def zeros(model):
    return sum(int((w == 0).sum()) for w in weights(model).values())


def count(model):
    return sum(w.numel() for w in weights(model).values())


@settings(deadline=None, max_examples=60)
@given(
    sizes=st.lists(st.integers(1, 40), min_size=1, max_size=4),
    share=st.floats(0, 1),
    scope=st.sampled_from(["global", "layer"]),
    ties=st.booleans(),
)
def test_masks_hold_the_exact_count_and_the_lowest_scores(sizes, share, scope, ties):
    generator = torch.Generator().manual_seed(sum(sizes))
    scores = {str(i): torch.rand(n, generator=generator) for i, n in enumerate(sizes)}
    if ties:
        scores = {name: score.round(decimals=1) for name, score in scores.items()}
    masks = smallest(scores, share, scope)
    groups = [list(scores)] if scope == "global" else [[name] for name in scores]
    for group in groups:
        score = torch.cat([scores[name] for name in group])
        kept = torch.cat([masks[name] for name in group])
        assert int((~kept).sum()) == round(share * score.numel())
        if kept.any() and not kept.all():
            assert score[~kept].max() <= score[kept].min()


@pytest.mark.parametrize("scope", ["global", "layer"])
def test_one_shot_agrees_with_torchs_own_pruning(model, context, scope):
    ours = PruneMagnitude(sparsity=0.7, scope=scope, epochs=0)(copy.deepcopy(model), context)
    layers = [(m, "weight") for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    if scope == "global":
        torch_prune.global_unstructured(layers, pruning_method=torch_prune.L1Unstructured, amount=0.7)
    else:
        for layer, name in layers:
            torch_prune.l1_unstructured(layer, name, amount=0.7)
    for layer, name in layers:
        torch_prune.remove(layer, name)
    for name, weight in weights(model).items():
        torch.testing.assert_close(weights(ours)[name], weight, rtol=0, atol=0)
    assert context.trained_epochs == []


@pytest.mark.parametrize("cls", [PruneMagnitude, PruneRandom])
@pytest.mark.parametrize("schedule", ["oneshot", "gradual"])
def test_zeros_survive_fine_tuning_and_the_rest_is_trained(model, context, cls, schedule):
    before = {name: weight.detach().clone() for name, weight in weights(model).items()}
    pruned = cls(sparsity=0.8, schedule=schedule, epochs=2)(model, context)
    assert zeros(pruned) == round(0.8 * count(pruned))
    assert not any("mask" in name or "orig" in name for name in pruned.state_dict())
    moved = [(weights(pruned)[name] != before[name])[weights(pruned)[name] != 0] for name in before]
    assert torch.cat(moved).float().mean() > 0.9


def test_masks_are_held_after_each_step(model, context):
    seen = []

    class Watching(type(context)):
        def train(self, model, *, observers=(), **options):
            class Look(Observer):
                def after_step(self, model, step):
                    seen.append(zeros(model))

            return super().train(model, observers=[*observers, Look()], **options)

    watching = Watching(context.train_images, context.train_labels, context.test_images, context.test_labels)
    PruneMagnitude(sparsity=0.8, schedule="gradual", epochs=3)(model, watching)
    levels = [round(0.8 * (1 - (1 - e / 3) ** 3) * count(model)) for e in (1, 2, 3)]
    assert sorted(set(seen)) == levels == [seen[0], seen[len(seen) // 2], seen[-1]]


def test_cubic_schedule_starts_at_zero_ends_at_the_target_and_rises_fastest_first():
    levels = [cubic_sparsity(0.9, step, 10) for step in range(11)]
    steps = [b - a for a, b in itertools.pairwise(levels)]
    assert levels[0] == 0
    assert levels[-1] == pytest.approx(0.9)
    assert all(a > b > 0 for a, b in itertools.pairwise(steps))


def test_magnitude_beats_random_by_far_at_90_percent(model, context):
    magnitude = PruneMagnitude(sparsity=0.9)(copy.deepcopy(model), context)
    random = PruneRandom(sparsity=0.9)(copy.deepcopy(model), context)
    assert zeros(magnitude) == zeros(random) == round(0.9 * count(model))
    assert context.validation_accuracy(magnitude) > context.validation_accuracy(random) + 0.15


def test_random_draws_from_the_contexts_generator_alone(model, context):
    state = torch.get_rng_state()
    first = PruneRandom(epochs=0)(copy.deepcopy(model), context)
    context.generator.manual_seed(1)
    second = PruneRandom(epochs=0)(copy.deepcopy(model), context)
    third = PruneRandom(epochs=0)(copy.deepcopy(model), context)
    assert torch.equal(state, torch.get_rng_state())
    pairs = [(weights(first)[name], weights(second)[name], weights(third)[name]) for name in weights(model)]
    assert all(torch.equal(a, b) for a, b, _ in pairs)
    assert not all(torch.equal(b, c) for _, b, c in pairs)


def test_nothing_pruned_is_an_error(context):
    with pytest.raises(NoEffect, match="leaves no new zero"):
        PruneMagnitude(sparsity=0.01, epochs=0)(nn.Sequential(nn.Flatten(), nn.Linear(2, 2)), context)
    with pytest.raises(NoEffect, match="no convolution or linear layer"):
        PruneMagnitude(epochs=0)(nn.Sequential(nn.BatchNorm2d(3)), context)


def test_gradual_needs_epochs():
    with pytest.raises(ValueError, match="epochs of 2 or more, found 1"):
        PruneMagnitude(schedule="gradual", epochs=1)
