"""Boxes: random erasing and cutmix against torchvision and closed forms."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as tv

from cnnbench_plugins.augmentation import _draw
from cnnbench_plugins.augmentation._box import inside
from cnnbench_plugins.augmentation.erasing import RandomErasing, fitting_box
from cnnbench_plugins.augmentation.mixing import CutMix, paste

SHAPES = [(7, 3, 12, 9), (6, 1, 7, 7), (1, 3, 8, 11)]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def make(shape: tuple[int, int, int, int], seed: int = 7) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.rand(shape, generator=generator(seed)), torch.eye(4)[torch.arange(shape[0]) % 4]


def bounds(mask: torch.Tensor) -> tuple[int, int, int, int]:
    """Top, left, height and width of the true pixels of a mask [H, W], which fill a box."""
    rows, columns = mask.any(1).nonzero().flatten(), mask.any(0).nonzero().flatten()
    if not len(rows):
        return 0, 0, 0, 0
    top, left = int(rows[0]), int(columns[0])
    height, width = int(rows[-1]) + 1 - top, int(columns[-1]) + 1 - left
    assert mask.sum() == height * width
    return top, left, height, width


@settings(deadline=None, max_examples=50)
@given(st.data())
def test_inside_is_the_box_within_the_image(data):
    size = data.draw(st.integers(1, 6)), data.draw(st.integers(1, 6))
    box = [data.draw(st.integers(-3, 7)) for _ in range(2)] + [data.draw(st.integers(0, 8)) for _ in range(2)]
    top, left, height, width = box
    mask = inside(torch.zeros(1, 2, *size), *(torch.tensor([value]) for value in box))
    assert mask.shape == (1, 1, *size)
    for row in range(size[0]):
        for column in range(size[1]):
            assert mask[0, 0, row, column] == (top <= row < top + height and left <= column < left + width)


# Random erasing.


@pytest.mark.parametrize("shape", SHAPES)
def test_erasing_equals_torchvisions_with_the_same_box_and_values(shape):
    images, targets = make(shape)
    out, same = RandomErasing(p=1, area_max=0.5)(images, targets, generator(3))
    assert torch.equal(same, targets)
    erased = 0
    for sample, result in zip(images, out, strict=True):
        top, left, height, width = bounds((result != sample).any(0))
        values = result[:, top : top + height, left : left + width]
        assert torch.equal(result, tv.erase(sample, top, left, height, width, values))
        assert ((values >= 0) & (values <= 1)).all()
        erased += height > 0
    assert erased == shape[0]


def test_erased_boxes_have_the_papers_areas_and_aspects():
    count, height, width = 3000, 100, 60
    images = torch.full((count, 1, height, width), 2.0)
    out, _ = RandomErasing(p=1)(images, torch.ones(count, 1), generator(1))
    boxes = torch.tensor([bounds(mask) for mask in (out < 2)[:, 0]]).double()
    tops, lefts, heights, widths = boxes.T
    areas, aspects = heights * widths / (height * width), heights / widths
    # Sides are rounded to pixels: the smallest boxes have some 6 x 20 of them.
    assert 0.02 * 0.9 <= areas.min() < 0.025
    assert 0.38 < areas.max() <= 0.4 * 1.05
    assert 0.3 * 0.9 <= aspects.min() < 0.32
    assert 3.2 < aspects.max() <= 1.1 / 0.3
    assert (heights < height).all()
    assert (widths < width).all()
    # As drawn one by one, after the paper's algorithm 1.
    drawing = torch.Generator().manual_seed(2)
    expected: list[tuple[float, float]] = []
    while len(expected) < count:
        share, aspect = torch.rand(2, generator=drawing, dtype=torch.float64).tolist()
        area, aspect = (0.02 + 0.38 * share) * height * width, 0.3 + (1 / 0.3 - 0.3) * aspect
        h, w = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if h < height and w < width:
            expected.append((h, w))
    for own, reference in zip((heights, widths), zip(*expected, strict=True), strict=True):
        assert scipy.stats.ks_2samp(own.numpy(), reference).pvalue > 1e-3
    # The place is uniform over those where the box fits.
    places = [(tops / (height - heights)).numpy(), (lefts / (width - widths)).numpy()]
    for share in places:
        assert share.max() == 1
        assert share.min() == 0
        assert share.mean() == pytest.approx(0.5, abs=0.03)


def test_the_fill_is_uniform_noise_of_its_own_for_every_value():
    images = torch.full((200, 3, 16, 16), 2.0)
    out, _ = RandomErasing(p=1)(images, torch.ones(200, 1), generator())
    levels = 255 * out[out < 2]
    torch.testing.assert_close(levels, levels.round())
    assert scipy.stats.chisquare(torch.bincount(levels.round().long(), minlength=256).numpy()).pvalue > 1e-3
    noise = _draw.noise_levels(torch.zeros(40, 3, 31, 31), generator(1)).flatten(1)
    # Neighbours, channels and images are independent.
    for shift in (1, 31, 31 * 31):
        assert abs(torch.corrcoef(torch.stack([noise[:, shift:].flatten(), noise[:, :-shift].flatten()]))[0, 1]) < 0.01
    assert abs(torch.corrcoef(noise).triu(1)).max() < 0.1


def test_erasing_probability_is_p():
    images = torch.full((2000, 1, 8, 8), 2.0)
    out, _ = RandomErasing(p=0.3, area_min=0.2)(images, torch.ones(2000, 1), generator())
    assert (out < 2).flatten(1).any(1).float().mean().item() == pytest.approx(0.3, abs=0.03)


def test_the_first_box_that_fits_is_taken_and_else_none():
    images = torch.zeros(3, 1, 10, 20)
    areas = torch.tensor([[0.5, 0.5, 0.5], [0.25, 0.5, 0.1]])
    aspects = torch.tensor([[1.0, 4.0, 0.1], [1.0, 4.0, 2.0]])  # 10 rows are too many, as are 20; and 32 columns
    height, width = fitting_box(images, areas, aspects)
    assert height.tolist() == [7, 0, 6]
    assert width.tolist() == [7, 0, 3]


def test_erasing_refuses_an_empty_range():
    with pytest.raises(ValueError, match=r"area_min must not be above area_max, not 0.5 and 0.4"):
        RandomErasing(area_min=0.5)


# CutMix.


def drawn(images: torch.Tensor, alpha: float, seed: int) -> tuple[torch.Tensor, ...]:
    drawing = generator(seed)
    partners = torch.randperm(len(images), generator=drawing)
    row, column = (_draw.integers(images, 0, length - 1, drawing) for length in images.shape[-2:])
    return partners, row, column, _draw.beta(images, alpha, drawing)


@pytest.mark.parametrize("alpha", [0.3, 1.0])
@pytest.mark.parametrize("shape", SHAPES)
def test_cutmix_pastes_the_clipped_box_and_mixes_labels_by_its_area(shape, alpha):
    images, targets = make(shape)
    out, mixed = CutMix(alpha=alpha)(images, targets, generator(5))
    for i, (j, row, column, share) in enumerate(zip(*(t.tolist() for t in drawn(images, alpha, 5)), strict=True)):
        height, width = shape[-2:]
        side_y, side_x = (int(0.5 * math.sqrt(1 - share) * side) for side in (height, width))
        top, bottom = max(row - side_y, 0), min(row + side_y, height)
        left, right = max(column - side_x, 0), min(column + side_x, width)
        expected = images[i].clone()
        expected[:, top:bottom, left:right] = images[j][:, top:bottom, left:right]
        assert torch.equal(out[i], expected)
        kept = 1 - (bottom - top) * (right - left) / (height * width)
        torch.testing.assert_close(mixed[i], kept * targets[i] + (1 - kept) * targets[j])


@pytest.mark.parametrize("share", [0.0, 0.2, 0.55, 0.9, 1.0])
def test_cutmix_equals_torchvisions_with_the_same_box(share):
    images, targets = make((6, 3, 9, 14))
    reference = v2.CutMix(num_classes=4)
    reference._dist = SimpleNamespace(sample=lambda shape: share)
    partners = torch.arange(6).roll(1)
    for seed in range(5):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            expected, labels = reference(images, targets)
            torch.manual_seed(seed)
            column, row = torch.randint(14, (1,)), torch.randint(9, (1,))
        out, mixed = paste(images, targets, partners, row.expand(6), column.expand(6), torch.full((6,), share))
        assert torch.equal(out, expected)
        torch.testing.assert_close(mixed, labels)


def test_labels_say_how_much_of_the_image_is_the_partners():
    # Image i is all i: the share of each value in the result is the share of its label.
    count = 64
    images = torch.arange(count, dtype=torch.float32).view(-1, 1, 1, 1).expand(count, 1, 10, 10)
    out, mixed = CutMix()(images, torch.eye(count), generator(2))
    shown = torch.stack([(out == i).flatten(1).float().mean(1) for i in range(count)], 1)
    torch.testing.assert_close(mixed, shown)
    assert 0.2 < mixed.diagonal().mean() < 0.9


def test_cutmix_draws_a_box_for_each_sample():
    images, targets = make((64, 1, 12, 12))
    out, _ = CutMix()(images, targets, generator())
    boxes = {bounds((result != sample).any(0)) for sample, result in zip(images, out, strict=True)}
    assert len(boxes) > 32


# What both draw with.


@pytest.mark.parametrize("alpha", [0.1, 1.0, 5.0])
def test_shares_follow_the_dirichlet_distribution(alpha):
    shares = _draw.dirichlet(torch.zeros(4000, 1, 1, 1), alpha, 3, generator(1))
    assert shares.shape == (3, 4000)
    torch.testing.assert_close(shares.sum(0), torch.ones(4000))
    reference = scipy.stats.dirichlet([alpha] * 3)
    for own in shares.double():
        assert own.mean().item() == pytest.approx(1 / 3, abs=0.03)
        assert own.var().item() == pytest.approx(reference.var()[0], rel=0.12)
        # Each share is Beta(alpha, 2 alpha); away from the ends, where float32 piles up.
        for bound in (0.05, 0.3, 0.7):
            expected = scipy.stats.beta.cdf(bound, alpha, 2 * alpha)
            assert (own < bound).double().mean().item() == pytest.approx(expected, abs=0.03)
