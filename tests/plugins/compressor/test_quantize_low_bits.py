from __future__ import annotations

import copy
import itertools

import pytest
import torch
from torch import nn

from cnnbench.errors import NoEffect, Unsupported
from cnnbench.slots import Observer
from cnnbench_plugins.compressor._fake_flow import HoldZeros
from cnnbench_plugins.compressor._fake_layers import QuantizedLayer
from cnnbench_plugins.compressor.mixed_precision import WIDTHS, MixedPrecision, allocate, sensitivities
from cnnbench_plugins.compressor.prune_weights import PruneMagnitude
from cnnbench_plugins.compressor.quantize_ptq import QuantizePtq
from cnnbench_plugins.compressor.quantize_qat import QuantizeQat
from cnnbench_plugins.compressor.quantize_weights import QuantizeWeights


def layers(model):
    return {name: m for name, m in model.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)}


def error(changed, model, context):
    with torch.no_grad():
        exact = model(context.test_images)
        return ((changed(context.test_images) - exact).norm() / exact.norm()).item()


@pytest.mark.parametrize("cls", [QuantizeWeights, QuantizePtq])
def test_error_of_the_outputs_grows_as_bits_fall(fresh, context, cls):
    widths = (8, 6, 4, 3, 2) if cls is QuantizeWeights else (7, 6, 4, 3, 2)
    errors = [error(cls(bits=bits)(copy.deepcopy(fresh), context), fresh, context) for bits in widths]
    assert all(a < b for a, b in itertools.pairwise(errors))
    assert 0 < errors[0] < 0.05


@pytest.mark.parametrize("per_channel", [True, False])
@pytest.mark.parametrize("symmetric", [True, False])
def test_weights_have_at_most_as_many_values_as_there_are_codes(model, context, per_channel, symmetric):
    made = QuantizeWeights(bits=3, per_channel=per_channel, symmetric=symmetric)(model, context)
    for layer in layers(made).values():
        for row in layer.weight if per_channel else [layer.weight]:
            assert len(row.unique()) <= 8
            step = row.unique().diff()
            multiples = row.unique() / step.min()
            torch.testing.assert_close(multiples, multiples.round(), atol=1e-4, rtol=0)


def test_eight_bits_without_data_lose_nothing(model, context):
    made = QuantizeWeights()(copy.deepcopy(model), context)
    assert abs(context.validation_accuracy(made) - context.validation_accuracy(model)) <= 0.01


def test_inputs_of_every_layer_are_rounded_and_the_edges_have_more_bits(model, context):
    made = QuantizePtq(bits=2, edge_bits=3)(model, context)
    quantized = [m for m in made.modules() if isinstance(m, QuantizedLayer)]
    assert len(quantized) == len(layers(made)) == 7
    seen = {}
    for layer in quantized:
        layer.layer.register_forward_pre_hook(lambda m, inputs: seen.setdefault(m, inputs[0]))
    made(context.test_images)
    values = [len(seen[layer.layer].unique()) for layer in quantized]
    assert [2 < n <= 8 for n in (values[0], values[-1])] == [True, True]
    assert all(1 < n <= 4 for n in values[1:-1])
    rows = [max(len(row.unique()) for row in layer.layer.weight) for layer in quantized]
    assert [4 < n <= 8 for n in (rows[0], rows[-1])] == [True, True]
    assert all(n <= 4 for n in rows[1:-1])


def test_qat_beats_ptq_at_two_and_three_bits_and_keeps_its_levels(model, context):
    for bits, gain in ((2, 0.3), (3, 0.01)):
        after = QuantizePtq(bits=bits)(copy.deepcopy(model), context)
        during = QuantizeQat(bits=bits, epochs=2)(copy.deepcopy(model), context)
        assert context.validation_accuracy(during) > context.validation_accuracy(after) + gain
        assert context.validation_accuracy(during) > 0.85
        inner = list(layers(during).values())[1:-1]
        assert all(len(row.unique()) <= 2**bits for layer in inner for row in layer.weight)
        assert during.deployed_bytes == after.deployed_bytes
    assert context.trained_epochs == [2, 2]


def test_training_computes_with_the_weights_that_it_ends_with(model, context):
    outputs = []

    class Look(Observer):
        def after_step(self, model, step):
            outputs.append(model.eval()(context.test_images).detach())
            model.train()

    class Watching(type(context)):
        def train(self, model, *, observers=(), **options):
            return super().train(model, observers=[*observers, Look()], **options)

    watching = Watching(context.train_images, context.train_labels, context.test_images, context.test_labels)
    made = QuantizeQat(bits=3, epochs=2)(model, watching)
    torch.testing.assert_close(made(context.test_images), outputs[-1], atol=1e-5, rtol=1e-5)


def test_what_was_pruned_stays_so(model, context):
    pruned = PruneMagnitude(sparsity=0.8, epochs=0)(model, context)
    zeros = {name: layer.weight == 0 for name, layer in layers(pruned).items()}
    tuned = QuantizeQat(bits=4, epochs=1)(copy.deepcopy(pruned), context)
    inner = {name.replace("network.", "").removesuffix(".layer"): m for name, m in layers(tuned).items()}
    assert inner.keys() == zeros.keys()
    assert all((inner[name].weight[zero] == 0).all() for name, zero in zeros.items())
    # Zeros are worth something: the nonzero codes with their places are smaller than all codes.
    whole = QuantizeWeights(bits=8)(copy.deepcopy(pruned), context)
    for layer in layers(pruned).values():
        layer.weight.data[layer.weight == 0] = 1e-3
    assert whole.deployed_bytes < 0.8 * QuantizeWeights(bits=8)(pruned, context).deployed_bytes
    held = HoldZeros([nn.Linear(3, 3)])
    held.after_step(model, 0)  # nothing to hold


@pytest.mark.parametrize("budget", [2.0, 2.5, 3.0, 5.0, 8.0])
def test_mixed_precision_stays_within_its_budget(model, context, budget):
    made = MixedPrecision(budget=budget, calibration_images=64)(model, context)
    found = {name.removeprefix("network."): m.weight for name, m in layers(made).items()}
    bits = {name: width for name, (width, _) in made.formats.items()}
    assert found.keys() == bits.keys()
    total = sum(w.numel() for w in found.values())
    assert budget - 1 < sum(w.numel() * bits[name] for name, w in found.items()) / total <= budget
    assert all(len(row.unique()) <= 2 ** bits[name] for name, w in found.items() for row in w)


def test_mixed_precision_beats_the_same_bits_everywhere(model, context):
    mixed = MixedPrecision(budget=3.0)(copy.deepcopy(model), context)
    assert context.validation_accuracy(mixed) > 0.85
    assert len({width for width, _ in mixed.formats.values()}) > 1
    mixed = MixedPrecision(budget=2.5)(copy.deepcopy(model), context)
    uniform = QuantizeWeights(bits=2)(copy.deepcopy(model), context)
    assert context.validation_accuracy(mixed) > context.validation_accuracy(uniform) + 0.2


def test_sensitivity_is_the_divergence_with_one_layer_rounded(model, context):
    images = context.calibration(70)
    before = copy.deepcopy(model.state_dict())
    found = sensitivities(model, images, WIDTHS)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(row[0] > row[-1] >= 0 for row in found.values())
    changed = copy.deepcopy(model)
    single = QuantizeWeights(bits=2)(nn.Sequential(copy.deepcopy(model[7])), context).network[0]
    changed[7] = single
    with torch.no_grad():
        p, q = (torch.softmax(m(images).double(), 1) for m in (model, changed))
    by_hand = (p * (p / q).log()).sum(1).mean().item()
    assert found["7"][WIDTHS.index(2)] == pytest.approx(by_hand, rel=1e-4)


@pytest.mark.parametrize("seed", range(8))
def test_the_allocation_is_the_best_there_is(seed):
    generator = torch.Generator().manual_seed(seed)
    costs = torch.rand(4, len(WIDTHS), generator=generator).sort(1, descending=True).values.tolist()
    sizes = torch.randint(1, 500, (4,), generator=generator).tolist()
    budget = 2 + 5 * torch.rand(1, generator=generator).item()
    every = itertools.product(range(len(WIDTHS)), repeat=4)
    allowed = [c for c in every if sum(s * WIDTHS[i] for s, i in zip(sizes, c, strict=True)) <= budget * sum(sizes)]
    best = min(sum(costs[layer][i] for layer, i in enumerate(c)) for c in allowed)
    chosen = allocate(costs, sizes, WIDTHS, budget)
    assert sum(s * b for s, b in zip(sizes, chosen, strict=True)) <= budget * sum(sizes) + 1e-6
    assert sum(costs[layer][WIDTHS.index(b)] for layer, b in enumerate(chosen)) == pytest.approx(best)


class Functional(nn.Module):
    """Grouped and depthwise convolutions, functional activations, a layer used twice, one never used."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(1, 8, 3, padding=1)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.grouped = nn.Conv2d(8, 8, 1, groups=2)
        self.unused = nn.Linear(3, 3)
        self.head = nn.Linear(8, 10)

    def forward(self, x):
        x = torch.relu(self.stem(x))
        x = nn.functional.silu(self.grouped(self.depthwise(x)))
        x = nn.functional.silu(self.grouped(x))
        return self.head(x.mean((2, 3)))


@pytest.mark.parametrize(
    "technique",
    [
        QuantizeWeights(bits=4),
        QuantizePtq(bits=4),
        QuantizeQat(bits=4, epochs=1, learning_rate=1e-3),
        MixedPrecision(budget=6.0),
    ],
    ids=lambda t: type(t).__name__,
)
def test_any_model(context, technique):
    torch.manual_seed(0)
    model = Functional().eval()
    made = technique(copy.deepcopy(model), context)
    for batch in (context.test_images[:1], context.test_images[:5, :, :7, :5]):
        assert made(batch).shape == (len(batch), 10)
    if not isinstance(technique, QuantizeQat):
        assert 0 < error(made, model, context) < 0.5
    assert made.deploy(context.example)(context.example).shape == (1, 10)


def test_nothing_to_quantize_is_an_error(context):
    for technique in (QuantizeWeights(), QuantizePtq(bits=4), QuantizeQat(), MixedPrecision()):
        with pytest.raises(NoEffect, match="quantized nothing"):
            technique(nn.Sequential(nn.ReLU(), nn.Flatten()), context)
    two = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(72, 10))
    with pytest.raises(NoEffect, match="all 2 layers are first or last; set edge_bits"):
        QuantizePtq(bits=4)(copy.deepcopy(two), context)
    assert QuantizePtq(bits=4, edge_bits=4)(two, context)(context.example).shape == (1, 10)
    zeros = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    nn.init.zeros_(zeros[1].weight)
    with pytest.raises(NoEffect, match="none that 8 bits can't hold"):
        QuantizeWeights(bits=8)(zeros, context)
    with pytest.raises(Unsupported, match="the model is itself a Linear"):
        QuantizePtq(bits=4, edge_bits=4)(nn.Linear(8, 8), context)
    with pytest.raises(ValueError, match="edge_bits belongs to bits below 8: expected 8, found 4"):
        QuantizePtq(edge_bits=4)
