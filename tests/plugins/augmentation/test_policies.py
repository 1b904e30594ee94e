"""RandAugment, TrivialAugment and AugMix, sample by sample, against torchvision's transforms with the same draws."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import scipy.stats
import torch
from torchvision.transforms import InterpolationMode, v2

from cnnbench_plugins.augmentation import _draw
from cnnbench_plugins.augmentation._operations import OPERATIONS, Space, apply, tallies
from cnnbench_plugins.augmentation.policies import (
    AUGMIX,
    LEVELS,
    RANDAUGMENT,
    TRIVIAL_AUGMENT_WIDE,
    AugMix,
    RandAugment,
    TrivialAugment,
)

NAMES = {
    "identity": "Identity",
    "shear_x": "ShearX",
    "shear_y": "ShearY",
    "translate_x": "TranslateX",
    "translate_y": "TranslateY",
    "rotate": "Rotate",
    "brightness": "Brightness",
    "color": "Color",
    "contrast": "Contrast",
    "sharpness": "Sharpness",
    "posterize": "Posterize",
    "solarize": "Solarize",
    "autocontrast": "AutoContrast",
    "equalize": "Equalize",
}
SHAPES = [(14, 3, 32, 32), (9, 1, 28, 28), (6, 3, 17, 23)]
REFERENCES = {"randaugment": v2.RandAugment(), "trivial_augment": v2.TrivialAugmentWide(), "augmix": v2.AugMix()}
SPACES = {"randaugment": RANDAUGMENT, "trivial_augment": TRIVIAL_AUGMENT_WIDE, "augmix": AUGMIX}
PLAIN = v2.AugMix._PARTIAL_AUGMENTATION_SPACE
CASES = [(policy, name) for policy in REFERENCES for name in OPERATIONS if policy != "augmix" or NAMES[name] in PLAIN]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def make(shape: tuple[int, ...], seed: int = 7) -> torch.Tensor:
    # Not of 8-bit levels: thresholds would fall onto values, where the last bit of either decides.
    return torch.rand(shape, generator=generator(seed))


def magnitude(reference: Any, operation: str, strength: float, sign: int, size: tuple[int, int], bins: int) -> float:
    """What torchvision's own table gives for a strength of 0 (first bin) to 1 (last bin)."""
    table, signed = reference._AUGMENTATION_SPACE[NAMES[operation]]
    values = table(bins, *size)
    if values is None:
        return 0.0
    value = float(values[round(strength * (bins - 1))])
    if operation.startswith("translate"):
        value = round(value, 3)  # of float32 steps 16 pixels can be 15.999999, which would be cut to 15
    return value * (sign if signed else 1)


def expected(
    reference: Any, image: torch.Tensor, operation: str, value: float, interpolation: str | None = None
) -> torch.Tensor:
    mode = reference.interpolation if interpolation is None else InterpolationMode(interpolation)
    return reference._apply_image_or_video_transform(image[None], NAMES[operation], value, mode, reference._fill)[0]


def check(out: torch.Tensor, reference: torch.Tensor, pixels: float = 0.0) -> None:
    """Equal values but for a share of ``pixels``: those that lie half-way between two, where nearest is a toss-up."""
    wrong = ((out - reference).abs() > 1e-4).any(0).float().mean().item()
    assert wrong <= pixels, wrong


@pytest.mark.parametrize(("policy", "operation"), CASES)
@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 28, 28), (3, 17, 23)], ids=str)
@pytest.mark.parametrize("interpolation", ["nearest", "bilinear"])
def test_every_operation_at_every_level_equals_torchvisions(policy, shape, operation, interpolation):
    reference, space = REFERENCES[policy], dataclasses.replace(SPACES[policy], interpolation=interpolation)
    bins = 10 if policy == "augmix" else LEVELS + 1
    strengths = torch.arange(bins).repeat(2) / (bins - 1)
    signs = torch.tensor([-1, 1]).repeat_interleave(bins)
    images = make((2 * bins, *shape))
    operations = torch.full((2 * bins,), OPERATIONS.index(operation))
    out = apply(space, images, operations, strengths, signs, tallies(operations[None])[0])
    for image, result, strength, sign in zip(images, out, strengths.tolist(), signs.tolist(), strict=True):
        value = magnitude(reference, operation, strength, sign, shape[1:], bins)
        # A shear by a fifth, say, puts some pixels half-way between two.
        toss_up = interpolation == "nearest" and operation in ("shear_x", "shear_y", "rotate")
        check(result, expected(reference, image, operation, value, interpolation), 0.1 if toss_up else 0)


def test_interpolation_is_the_papers():
    for policy, reference in REFERENCES.items():
        assert SPACES[policy].interpolation == InterpolationMode(reference.interpolation).value


@pytest.mark.parametrize("policy", REFERENCES)
def test_operations_are_the_papers(policy):
    # AugMix leaves out what overlaps with the corruptions of its robustness test.
    reference = set(PLAIN if policy == "augmix" else REFERENCES[policy]._AUGMENTATION_SPACE)
    images = torch.zeros(4000, 1, 1, 1)
    drawn: set[int] = set()

    def record(space: Space, images: torch.Tensor, operations: torch.Tensor, *rest: Any) -> torch.Tensor:
        drawn.update(operations.tolist())
        return images

    technique = {"randaugment": RandAugment, "trivial_augment": TrivialAugment, "augmix": lambda: AugMix(depth=2)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cnnbench_plugins.augmentation.policies.apply", record)
        technique[policy]()(images, torch.ones(4000, 1), generator())
    assert {NAMES[OPERATIONS[number]] for number in drawn} == reference


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize(("num_ops", "level"), [(1, 9), (2, 9), (3, 30)])
def test_randaugment_equals_torchvision_sample_by_sample(shape, num_ops, level):
    images = make(shape)
    drawing = generator(4)
    operations = [_draw.integers(images, 0, 13, drawing) for _ in range(num_ops)]
    signs = [2 * _draw.integers(images, 0, 1, drawing) - 1 for _ in range(num_ops)]
    targets = torch.ones(shape[0], 2) / 2
    out, same = RandAugment(num_ops=num_ops, magnitude=level)(images, targets, generator(4))
    assert torch.equal(same, targets)
    reference = v2.RandAugment(num_ops=num_ops, magnitude=level)
    for i, result in enumerate(out):
        image = images[i]
        for operation, sign in zip(operations, signs, strict=True):
            name = OPERATIONS[operation[i]]
            value = magnitude(reference, name, level / LEVELS, int(sign[i]), shape[-2:], LEVELS + 1)
            image = expected(reference, image, name, value)
        check(result, image, 0.01)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("seed", range(4))
def test_trivial_augment_equals_torchvision_sample_by_sample(shape, seed):
    images = make(shape)
    drawing = generator(seed)
    operations = _draw.integers(images, 0, 13, drawing)
    levels = _draw.integers(images, 0, LEVELS, drawing)
    signs = 2 * _draw.integers(images, 0, 1, drawing) - 1
    out, _ = TrivialAugment()(images, torch.ones(shape[0], 2) / 2, generator(seed))
    reference = v2.TrivialAugmentWide()
    for image, result, number, level, sign in zip(images, out, operations, levels, signs, strict=True):
        name = OPERATIONS[number]
        value = magnitude(reference, name, level.item() / LEVELS, int(sign), shape[-2:], LEVELS + 1)
        check(result, expected(reference, image, name, value), 0.1)


def augmix_operation(image: torch.Tensor, name: str, strength: float, sign: int) -> torch.Tensor:
    """One operation of AugMix, from the ranges of the authors' code and with torchvision's functional forms."""
    height, width = image.shape[-2:]
    value = {
        "shear_x": sign * 0.3 * strength,
        "shear_y": sign * 0.3 * strength,
        "translate_x": sign * width / 3 * strength,
        "translate_y": sign * height / 3 * strength,
        "rotate": sign * 30 * strength,
        "posterize": round(4 - 4 * strength),
        "solarize": 1 - strength,
    }.get(name, 0.0)
    return expected(v2.AugMix(interpolation=InterpolationMode.BILINEAR), image, name, value)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize(
    ("severity", "width", "depth", "alpha"), [(3, 3, None, 1.0), (8, 2, 2, 0.5), (1, 1, 1, 1.0), (10, 4, None, 2.0)]
)
def test_augmix_mixes_chains_of_torchvisions_operations(shape, severity, width, depth, alpha):
    images = make(shape)
    count, most = shape[0], depth or 3
    chains = torch.zeros(width * count, 1, 1, 1)
    drawing = generator(6)
    operations = torch.stack([_draw.integers(chains, 1, 9, drawing) for _ in range(most)])
    strengths = torch.stack([_draw.uniform(chains, 0.1, severity, drawing) for _ in range(most)]) / 10
    signs = torch.stack([2 * _draw.integers(chains, 0, 1, drawing) - 1 for _ in range(most)])
    depths = _draw.integers(chains, 1, 3, drawing) if depth is None else torch.full((width * count,), depth)
    own = _draw.beta(images, alpha, drawing)
    weights = _draw.dirichlet(images, alpha, width, drawing)
    technique = AugMix(severity=severity, width=width, depth=depth, alpha=alpha)
    out, _ = technique(images, torch.ones(count, 2) / 2, generator(6))
    for i, result in enumerate(out):
        mixture = torch.zeros_like(images[i])
        for k in range(width):
            row = k * count + i
            image = images[i]
            for step in range(int(depths[row])):
                name = OPERATIONS[operations[step, row]]
                image = augmix_operation(image, name, strengths[step, row].item(), int(signs[step, row]))
            mixture += weights[k, i] * image
        # Rounding in an interpolated value can tip a threshold or a level of a later operation.
        check(result, own[i] * images[i] + (1 - own[i]) * mixture, 0.02)


def test_operations_of_a_batch_do_not_mix_up_samples():
    # The same image with each operation in turn, forwards and shuffled: results follow their operations.
    images = make((1, 3, 24, 24)).expand(len(OPERATIONS), -1, -1, -1)
    operations = torch.arange(len(OPERATIONS))
    strengths, signs = torch.full((len(OPERATIONS),), 0.5), torch.ones(len(OPERATIONS), dtype=torch.int64)
    shuffle = torch.randperm(len(OPERATIONS), generator=generator())
    straight = apply(RANDAUGMENT, images, operations, strengths, signs, tallies(operations[None])[0])
    mixed = apply(RANDAUGMENT, images, operations[shuffle], strengths, signs, tallies(operations[shuffle][None])[0])
    assert torch.equal(mixed, straight[shuffle])
    assert len(torch.unique(straight.flatten(1), dim=0)) == len(OPERATIONS)
    assert torch.equal(straight[0], images[0])


def test_tallies_count_each_round():
    operations = torch.tensor([[0, 3, 3, 13], [1, 1, 1, 1]])
    counts = tallies(operations)
    assert [sum(row) for row in counts] == [4, 4]
    assert (counts[0][0], counts[0][3], counts[0][13], counts[1][1]) == (1, 2, 1, 4)


def test_operations_levels_and_directions_are_uniform(monkeypatch):
    seen: list[tuple[torch.Tensor, ...]] = []

    def record(space: Space, images: torch.Tensor, *drawn: Any) -> torch.Tensor:
        seen.append(drawn[:3])
        return images

    monkeypatch.setattr("cnnbench_plugins.augmentation.policies.apply", record)
    images = torch.zeros(14 * 400, 1, 1, 1)
    TrivialAugment()(images, torch.ones(len(images), 1), generator(1))
    RandAugment(num_ops=2)(images, torch.ones(len(images), 1), generator(2))
    for operations, _, signs in seen:
        assert scipy.stats.chisquare(torch.bincount(operations, minlength=14).numpy()).pvalue > 1e-3
        assert scipy.stats.chisquare(torch.bincount(signs + 1, minlength=3)[[0, 2]].numpy()).pvalue > 1e-3
    levels = torch.bincount((seen[0][1] * LEVELS).round().long(), minlength=LEVELS + 1)
    assert len(levels) == LEVELS + 1
    assert scipy.stats.chisquare(levels.numpy()).pvalue > 1e-3
    assert not torch.equal(seen[1][0], seen[2][0])  # each round draws its own
    torch.testing.assert_close(seen[1][1], torch.full((len(images),), 9 / 30))


def test_augmix_depths_are_one_to_three_unless_told(monkeypatch):
    rounds: list[torch.Tensor] = []

    def record(space: Space, images: torch.Tensor, operations: torch.Tensor, *rest: Any) -> torch.Tensor:
        rounds.append(operations)
        return images

    monkeypatch.setattr("cnnbench_plugins.augmentation.policies.apply", record)
    images = torch.rand(1000, 1, 1, 1, generator=generator())
    out, _ = AugMix()(images, torch.ones(1000, 1), generator())
    depths = (torch.stack(rounds) > 0).sum(0)
    assert scipy.stats.chisquare(torch.bincount(depths, minlength=4)[1:].numpy()).pvalue > 1e-3
    torch.testing.assert_close(out, images)  # a mixture of the image with itself
    rounds.clear()
    AugMix(depth=5)(images, torch.ones(1000, 1), generator())
    assert len(rounds) == 5
    assert all((operations > 0).all() for operations in rounds)


@pytest.mark.parametrize("technique", [RandAugment(), TrivialAugment(), AugMix()])
def test_gray_images_give_the_same_as_equal_channels(technique):
    # What acts on colour alone leaves both as they are.
    gray = make((20, 1, 16, 16))
    out, _ = technique(gray, torch.ones(20, 1), generator(8))
    colour, _ = technique(gray.expand(-1, 3, -1, -1), torch.ones(20, 1), generator(8))
    wrong = ((out - colour).abs() > 1e-3).float().mean().item()  # luma of gray rounds: a level may tip
    assert wrong < 0.01
