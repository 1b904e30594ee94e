"""What every augmentation promises, whatever it does."""

from __future__ import annotations

import copy
import importlib
import pkgutil

import pytest
import torch

import cnnbench_plugins.augmentation as folder
from cnnbench.errors import NoEffect
from cnnbench.technique import card_of

MODULES = [m.name for m in pkgutil.iter_modules(folder.__path__) if not m.name.startswith("_")]
FOUND = [cls for name in MODULES for cls in importlib.import_module(f"{folder.__name__}.{name}").TECHNIQUES]
TECHNIQUES = [cls for cls in FOUND if not card_of(cls).requires]  # other packages' have tests of their own
SHAPES = [(8, 3, 16, 16), (8, 1, 16, 16), (6, 3, 13, 9), (5, 1, 7, 10), (1, 3, 8, 8), (1, 1, 5, 5)]

ON_COLOURS = {"saturation", "hue", "grayscale"}
"""Change nothing on gray images, and say so."""

every_technique = pytest.mark.parametrize("cls", TECHNIQUES, ids=lambda cls: card_of(cls).name)


def batch(shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, torch.Tensor]:
    # From 8-bit values, as the loop makes its batches.
    pixels = torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(5), dtype=torch.uint8)
    return pixels.to(dtype) / 255, torch.eye(10, dtype=dtype)[torch.arange(shape[0]) % 10]


def has_effect(cls: type, shape: tuple[int, ...]) -> bool:
    name = card_of(cls).name
    return not (name in ON_COLOURS and shape[1] == 1) and not (name == "equalize" and shape[2] * shape[3] < 256)


def run(technique, images, targets, seed=0):
    return technique(images, targets, torch.Generator().manual_seed(seed))


def test_the_named_augmentations_are_there():
    names = {card_of(cls).name for cls in TECHNIQUES}
    moving = {"hflip", "vflip", "rotate", "translate", "crop", "scale", "shear", "affine", "perspective", "elastic"}
    colour = {"brightness", "contrast", "saturation", "hue", "color_jitter", "grayscale"}
    tone = {"solarize", "posterize", "equalize"}
    noise = {"gaussian_noise", "salt_pepper", "gaussian_blur"}
    mixing = {"cutout", "random_erasing", "mixup", "cutmix", "randaugment", "trivial_augment", "augmix"}
    assert names >= moving | colour | tone | noise | mixing


@every_technique
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_shapes_ranges_and_targets(cls, shape):
    images, targets = batch(shape)
    if not has_effect(cls, shape):
        with pytest.raises(NoEffect, match=f"{card_of(cls).name} changes nothing"):
            run(cls(), images, targets)
        return
    out, mapped = run(cls(), images, targets)
    assert out.shape == images.shape
    assert out.dtype == images.dtype
    assert out.device == images.device
    assert out.min() >= -1e-6
    assert out.max() <= 1 + 1e-6
    assert mapped.shape == targets.shape
    assert mapped.dtype == targets.dtype
    assert (mapped >= 0).all()
    torch.testing.assert_close(mapped.sum(1), torch.ones(shape[0]))


@every_technique
def test_arguments_stay_as_they_were(cls):
    images, targets = batch((8, 3, 18, 18))
    before = copy.deepcopy((images, targets))
    run(cls(), images, targets)
    assert torch.equal(images, before[0])
    assert torch.equal(targets, before[1])


@every_technique
def test_the_same_generator_gives_the_same_batch(cls):
    images, targets = batch((8, 3, 18, 18))
    first, second, other = (run(cls(), images, targets, seed) for seed in (1, 1, 2))
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[1], second[1])
    assert not torch.equal(first[0], other[0])


@every_technique
def test_each_sample_draws_its_own(cls):
    # Two sides of different colours, so that every augmentation shows; the same image 16 times but for those that
    # need partners that differ.
    image = torch.rand(1, 3, 18, 18, generator=torch.Generator().manual_seed(3))
    images = image.repeat(16, 1, 1, 1)
    if card_of(cls).name in ("mixup", "cutmix"):
        images[::2] = images[::2] * 0.5
    out, _ = run(cls(), images, torch.eye(16))
    assert len(torch.unique((out - images).flatten(1), dim=0)) > 1


@every_technique
@pytest.mark.parametrize("seed", [0, 1])
def test_global_random_state_and_default_dtype_stay_as_they_were(cls, seed):
    images, targets = batch((4, 3, 18, 18))
    state, dtype = torch.get_rng_state(), torch.get_default_dtype()
    torch.manual_seed(seed)
    try:
        before = torch.get_rng_state()
        out, _ = run(cls(), images, targets)
        assert torch.equal(torch.get_rng_state(), before)
        assert torch.get_default_dtype() == dtype
        # ... nor do results follow the global state.
        torch.manual_seed(seed + 100)
        assert torch.equal(run(cls(), images, targets)[0], out)
    finally:
        torch.set_rng_state(state)


@every_technique
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_precisions_keep_their_dtype_and_their_draws(cls, dtype):
    images, targets = batch((6, 3, 18, 18))
    expected, _ = run(cls(), images, targets)
    out, mapped = run(cls(), images.to(dtype), targets.to(dtype))
    assert out.dtype == dtype
    assert mapped.dtype == dtype
    assert (out.float() - expected).abs().mean() < (0.02 if dtype == torch.bfloat16 else 1e-6)


@every_technique
def test_channels_last_images_give_the_same_values(cls):
    images, targets = batch((6, 3, 18, 18))
    expected, _ = run(cls(), images, targets)
    out, _ = run(cls(), images.contiguous(memory_format=torch.channels_last), targets)
    torch.testing.assert_close(out, expected)


@every_technique
def test_only_mixing_touches_the_targets(cls):
    images, targets = batch((8, 3, 18, 18))
    _, mapped = run(cls(), images, targets)
    assert torch.equal(mapped, targets) == (card_of(cls).name not in ("mixup", "cutmix"))


@pytest.mark.gpu
@every_technique
def test_on_the_gpu(cls):
    images, targets = (tensor.cuda() for tensor in batch((6, 3, 18, 18)))
    generators = [torch.Generator("cuda").manual_seed(0) for _ in range(2)]
    first, second = (cls()(images, targets, generator) for generator in generators)
    assert first[0].is_cuda
    assert first[1].is_cuda
    assert torch.equal(first[0], second[0])
    torch.testing.assert_close(first[1].sum(1).cpu(), torch.ones(6))


@pytest.mark.gpu
@every_technique
def test_the_gpu_is_not_waited_for(cls):
    if card_of(cls).name in ("randaugment", "trivial_augment", "augmix"):
        pytest.skip("sorts samples by operation, for which it looks at the device once a batch")
    images, targets = (tensor.cuda() for tensor in batch((6, 3, 18, 18)))
    generator = torch.Generator("cuda").manual_seed(0)
    cls()(images, targets, generator)
    torch.cuda.set_sync_debug_mode("error")
    try:
        cls()(images, targets, generator)
    finally:
        torch.cuda.set_sync_debug_mode("default")
