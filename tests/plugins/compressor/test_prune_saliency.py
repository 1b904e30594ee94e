"""prune_gradient, prune_movement and the taylor importance of prune_filters, against derivatives taken by hand."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from cnnbench.errors import NoEffect
from cnnbench_plugins.compressor._gradients import weight_saliency
from cnnbench_plugins.compressor._taylor import gate_gradients
from cnnbench_plugins.compressor.prune_filters import PruneFilters, ranking, remove_channels
from cnnbench_plugins.compressor.prune_gradient import PruneGradient
from cnnbench_plugins.compressor.prune_movement import Movement, PruneMovement
from cnnbench_plugins.compressor.prune_weights import PruneMagnitude, PruneRandom


def weights(model):
    return {name: m.weight for name, m in model.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)}


def zeros(model):
    return sum(int((w == 0).sum()) for w in weights(model).values())


def count(model):
    return sum(w.numel() for w in weights(model).values())


def batches(context):
    """What the context's loop shows a model in one epoch."""
    order = torch.randperm(len(context.train_images), generator=torch.Generator().manual_seed(3))
    for index in order.view(-1, 64):
        yield context.train_images[index], context.train_labels[index]


class Gate(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.z = nn.Parameter(torch.ones(1, channels, 1, 1))

    def forward(self, x):
        return x * self.z


def test_weight_saliency_is_the_sum_over_batches_of_weight_times_gradient(model, context):
    before = copy.deepcopy(model.state_dict())
    found = weight_saliency(model, context)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    reference = copy.deepcopy(model).train()
    expected = {name: torch.zeros_like(weight) for name, weight in weights(model).items()}
    for images, labels in batches(context):
        loss = F.cross_entropy(reference(images), labels)
        gradients = torch.autograd.grad(loss, list(weights(reference).values()))
        for (name, weight), gradient in zip(weights(reference).items(), gradients, strict=True):
            expected[name] += (weight.detach() * gradient).abs()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-6)


def test_gradient_pruning_spares_what_the_loss_depends_on(context):
    # A large weight on an input that is always zero, and one behind a unit that nothing reads: no gradient, so they go.
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 4), nn.ReLU(), nn.Linear(4, 10))
    with torch.no_grad():
        model[1].weight[:, 0] = 100  # the corner pixel, 0 in every image
        model[3].weight[:, 0] = 0
        model[1].weight[0] = 100
    corner = replace_images(context)
    PruneGradient(sparsity=0.3, scope="layer", epochs=0)(model, corner)
    assert (model[1].weight[:, 0] == 0).all()
    assert (model[1].weight[0] == 0).all()


def replace_images(context):
    images = context.train_images.clone()
    images[:, :, 0, 0] = 0
    return type(context)(images, context.train_labels, context.test_images, context.test_labels)


@pytest.mark.parametrize("scope", ["global", "layer"])
def test_gradient_pruning_holds_the_exact_share(model, context, scope):
    pruned = PruneGradient(sparsity=0.7, scope=scope, epochs=1)(model, context)
    shares = [round(0.7 * w.numel()) for w in weights(pruned).values()]
    assert zeros(pruned) == (sum(shares) if scope == "layer" else round(0.7 * count(pruned)))


def test_gradient_pruning_is_far_better_than_random_at_90_percent(model, context):
    chosen = PruneGradient(sparsity=0.9)(copy.deepcopy(model), context)
    random = PruneRandom(sparsity=0.9)(copy.deepcopy(model), context)
    assert zeros(chosen) == zeros(random) == round(0.9 * count(model))
    assert context.validation_accuracy(chosen) > context.validation_accuracy(random) + 0.15


def test_movement_keeps_small_weights_that_grow_and_magnitude_large_ones_that_shrink(context):
    # Source weights are large on two columns of constant noise; the digits are told by the other pixels.
    images = context.train_images.clone()
    noise = torch.Generator().manual_seed(0)
    images[:, :, :, [0, 7]] = torch.randn(images[:, :, :, [0, 7]].shape, generator=noise)
    shifted = type(context)(images, context.train_labels, context.test_images, context.test_labels)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    with torch.no_grad():
        model[1].weight.view(10, 8, 8).normal_(std=0.01, generator=noise)[:, :, [0, 7]] = 0.3
    magnitude = PruneMagnitude(sparsity=0.75, epochs=4)(copy.deepcopy(model), shifted)
    movement = PruneMovement(sparsity=0.75, epochs=4)(copy.deepcopy(model), shifted)
    assert zeros(magnitude) == zeros(movement) == 480
    kept = [int(m[1].weight.view(10, 8, 8)[:, :, [0, 7]].count_nonzero()) for m in (magnitude, movement)]
    assert kept[0] == 160 > 4 * kept[1]


def test_movement_scores_are_minus_weight_times_gradient_summed_with_masked_weights_frozen():
    # One linear layer under plain SGD, followed by hand with explicit masks.
    x, y = torch.randn(6, 5, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 2, 0, 1, 2])
    layer = nn.Linear(5, 3, bias=False)
    model = nn.Sequential(layer)
    dense = layer.weight.detach().clone()
    score = torch.zeros_like(dense)
    movement = Movement(model, 0.6, "global")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    returned = 0

    def choose(score, level):
        mask = torch.ones(15)
        mask[score.flatten().argsort(stable=True)[:level]] = 0
        return mask.view(3, 5)

    for epoch in range(3):
        movement.before_epoch(model, epoch, 3)
        level = [0, 8, 9][epoch]  # round(15 * 0.6 * (1 - (1 - epoch / 2)^3))
        mask = choose(score, level)
        for step in range(4):
            optimizer.zero_grad()
            F.cross_entropy(model(x), y).backward()
            optimizer.step()
            movement.after_step(model, step)
            masked = (dense * mask).requires_grad_()
            (gradient,) = torch.autograd.grad(F.cross_entropy(x @ masked.T, y), masked)
            score -= dense * gradient
            dense = dense - 0.5 * gradient * mask
            torch.testing.assert_close(movement.scores["0"], score)
            before, mask = mask, choose(score, level)
            returned += int(((mask == 1) & (before == 0)).sum())
            torch.testing.assert_close(layer.weight.detach(), dense * mask)
    assert returned > 0


def test_movement_lets_a_masked_weight_come_back():
    layer = nn.Linear(2, 1, bias=False)
    layer.weight.data = torch.tensor([[0.3, 0.7]])
    movement = Movement(nn.Sequential(layer), 0.5, "global")
    movement.scores = {"0": torch.tensor([[-1.0, 1.0]])}
    movement.before_epoch(layer, 0, 1)
    assert layer.weight.tolist() == [[0, pytest.approx(0.7)]]
    layer.weight.grad = torch.tensor([[-20.0, 10.0]])
    movement.after_step(layer, 0)  # 0.3 gains 6, 0.7 loses 7
    assert layer.weight.tolist() == [[pytest.approx(0.3), 0]]


def test_gate_gradients_are_those_of_explicit_gates(context):
    # Gates in front of an ordinary, a grouped and a linear layer, and no gate for the depthwise layer's own input.
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Conv2d(4, 6, 3, groups=2),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(6, 10),
    )
    found = gate_gradients(model, context)
    gates = [Gate(4), Gate(6)]
    gated = nn.Sequential(*model[:3], gates[0], *model[3:6], gates[1], *model[6:])
    gated.train()
    for row, (images, labels) in enumerate(batches(context)):
        loss = F.cross_entropy(gated(images), labels)
        grouped, linear = torch.autograd.grad(loss, [gate.z for gate in gates])
        torch.testing.assert_close(found[model[3]][row], grouped.flatten(), rtol=1e-3, atol=1e-6)
        torch.testing.assert_close(found[model[7]][row], linear.flatten(), rtol=1e-3, atol=1e-6)


class Branches(nn.Module):
    """Two branches, concatenated: one layer reads both, so both groups cut its inputs."""

    def __init__(self):
        super().__init__()
        self.left, self.right = nn.Conv2d(1, 4, 1), nn.Conv2d(1, 4, 1)
        self.swapped = False
        self.gate = Gate(8)
        self.joint = nn.Conv2d(8, 6, 1)
        self.head = nn.Linear(6 * 4, 10)

    def forward(self, x):
        return self.head(self.joint(self.both(x) * self.gate.z).flatten(1))

    def both(self, x):
        parts = [self.right(x), self.left(x)] if self.swapped else [self.left(x), self.right(x)]
        return F.adaptive_avg_pool2d(torch.cat(parts, 1).tanh(), 2)


@pytest.mark.parametrize("swapped", [False, True])  # whichever is pruned first shifts the other's places once
@pytest.mark.parametrize("seed", [0, 1])
def test_taylor_removes_the_channels_of_the_smallest_gate_gradients(context, swapped, seed):
    pytest.importorskip("torch_pruning")
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = Branches()
    model.swapped = swapped
    reference, joint = torch.zeros(8), torch.zeros(6)
    hidden = {}
    hook = model.joint.register_forward_hook(lambda _, __, output: hidden.update(joint=output))
    for images, labels in batches(context):
        loss = F.cross_entropy(model(images), labels)
        gate, features = torch.autograd.grad(loss, [model.gate.z, hidden["joint"]])
        reference += gate.flatten().abs()
        joint += (features * hidden["joint"]).sum((0, 2, 3)).detach().abs()
    hook.remove()
    kept = [half.argsort(descending=True)[:2].sort().values for half in reference.split(4)]
    last = joint.argsort(descending=True)[:3].sort().values
    of_left, of_right = reversed(kept) if swapped else kept
    expected = model.left.weight[of_left], model.right.weight[of_right]
    middle = model.joint.weight[last][:, torch.cat([kept[0], kept[1] + 4])]
    gates = gate_gradients(model, context)
    model.gate.z.requires_grad_(False)
    plain = Ungated(model)
    remove_channels(plain, context.example, 0.5, ranking("taylor", context.generator, gates))
    torch.testing.assert_close(plain.left.weight, expected[0], rtol=0, atol=0)
    torch.testing.assert_close(plain.right.weight, expected[1], rtol=0, atol=0)
    torch.testing.assert_close(plain.joint.weight, middle, rtol=0, atol=0)


class Ungated(Branches):
    def __init__(self, gated):
        nn.Module.__init__(self)
        self.left, self.right, self.joint, self.head = gated.left, gated.right, gated.joint, gated.head
        self.swapped = gated.swapped

    def forward(self, x):
        return self.head(self.joint(self.both(x)).flatten(1))


def test_taylor_prunes_a_residual_network(model, context):
    pytest.importorskip("torch_pruning")
    small = PruneFilters(importance="taylor", epochs=0)(model, context)
    assert [m.out_channels for m in small.modules() if isinstance(m, nn.Conv2d)] == [8, 8, 8, 16, 16, 16]
    assert all(p.grad is None for p in small.parameters())
    assert small(context.calibration(5)).shape == (5, 10)


@pytest.mark.parametrize("epochs", [1, 2, 3])
def test_movement_reaches_the_whole_sparsity_in_however_many_epochs_there_are(model, context, epochs):
    # A rehearsal has one epoch whatever the technique asks for.
    movement = Movement(model, 0.9, "global")
    for epoch in range(epochs):
        movement.before_epoch(model, epoch, epochs)
    assert zeros(model) == round(0.9 * count(model))


@pytest.mark.parametrize("technique", [PruneGradient(epochs=0), PruneMovement()])
def test_nothing_to_prune_is_an_error(technique, context):
    with pytest.raises(NoEffect, match="no convolution or linear layer"):
        technique(nn.Sequential(nn.BatchNorm2d(1)), context)
