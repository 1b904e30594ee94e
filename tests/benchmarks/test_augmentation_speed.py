"""Batched augmentation on the device against the same transforms by torchvision, image by image in a DataLoader.

Both turn the same 8-bit images into augmented float batches, one epoch a turn, in turns in one process. The batched
side has one thread, the loader none beside or two worker processes, started before anything is timed.
"""

from __future__ import annotations

import math
import os
import statistics
import time
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import InterpolationMode, v2

from cnnbench_plugins.augmentation.blur import GaussianBlur
from cnnbench_plugins.augmentation.color import ColorJitter
from cnnbench_plugins.augmentation.distortion import Elastic, Perspective
from cnnbench_plugins.augmentation.erasing import RandomErasing
from cnnbench_plugins.augmentation.flip import HFlip
from cnnbench_plugins.augmentation.geometric import Affine, Rotate
from cnnbench_plugins.augmentation.noise import GaussianNoise
from cnnbench_plugins.augmentation.policies import AugMix, RandAugment, TrivialAugment
from cnnbench_plugins.augmentation.shift import Crop
from cnnbench_plugins.augmentation.tone import Equalize

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from cnnbench.slots import Augmentation

COUNT = 1024
BATCH = 128
SIDE = 32
WORKERS = (0, 2)
ROUNDS = int(os.environ.get("CNNBENCH_BENCHMARK_ROUNDS", "9"))
"""Epochs of each side; more of them narrow the ratio on a busy machine."""

BILINEAR = InterpolationMode.BILINEAR
TO_FLOAT = v2.ToDtype(torch.float32, scale=True)
# Those of torchvision's that need floats, or are faster on them, come after TO_FLOAT; the others before, as is usual.
CASES: dict[str, tuple[Sequence[Augmentation], list[Callable[..., Any]]]] = {
    "flip + crop": ((HFlip(), Crop()), [v2.RandomHorizontalFlip(), v2.RandomCrop(SIDE, padding=4), TO_FLOAT]),
    "rotate": ((Rotate(),), [v2.RandomRotation(15, BILINEAR), TO_FLOAT]),
    "affine": ((Affine(),), [v2.RandomAffine(15, (0.1, 0.1), (0.9, 1.1), 5, BILINEAR), TO_FLOAT]),
    "perspective": ((Perspective(),), [v2.RandomPerspective(0.3, 1.0, BILINEAR), TO_FLOAT]),
    "elastic": ((Elastic(),), [v2.ElasticTransform(34.0, 4.0), TO_FLOAT]),
    "color_jitter": ((ColorJitter(),), [v2.ColorJitter(0.4, 0.4, 0.4, 0.1), TO_FLOAT]),
    "equalize": ((Equalize(),), [v2.RandomEqualize(), TO_FLOAT]),
    "gaussian_noise": ((GaussianNoise(),), [TO_FLOAT, v2.GaussianNoise()]),
    "gaussian_blur": ((GaussianBlur(p=1.0),), [v2.GaussianBlur(5, (0.1, 1.0)), TO_FLOAT]),
    "random_erasing": ((RandomErasing(),), [TO_FLOAT, v2.RandomErasing(value="random")]),
    "randaugment": ((RandAugment(),), [v2.RandAugment(2, 9), TO_FLOAT]),
    "trivial_augment": ((TrivialAugment(),), [v2.TrivialAugmentWide(), TO_FLOAT]),
    "augmix": ((AugMix(),), [v2.AugMix(all_ops=False), TO_FLOAT]),
}


class PerSample(Dataset[tuple[torch.Tensor, torch.Tensor]]):
    """The usual way: transforms in ``__getitem__``."""

    def __init__(self, images: torch.Tensor, labels: torch.Tensor, transform: Callable[..., Any]) -> None:
        self.images, self.labels, self.transform = images, labels, transform

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        return self.transform(self.images[index]), self.labels[index]


@pytest.fixture(scope="module", params=["cpu", "cuda"])
def device(request: pytest.FixtureRequest) -> torch.device:
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    return torch.device(request.param)


@pytest.fixture(scope="module")
def ratios(device: torch.device) -> dict[str, dict[int, float]]:
    """Median ratios by technique and number of workers, filled by the tests of this device."""
    return {}


@pytest.fixture
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def seconds(run: Callable[[], object], device: torch.device) -> float:
    began = time.perf_counter()
    run()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - began


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_batched_against_per_sample(name, device, ratios, one_thread, benchmark, capsys):
    techniques, transforms = CASES[name]
    generator = torch.Generator(device).manual_seed(0)
    images = torch.randint(0, 256, (COUNT, 3, SIDE, SIDE), dtype=torch.uint8)
    labels = torch.arange(COUNT) % 10
    here, own_labels, one_hot = images.to(device), labels.to(device), torch.eye(10, device=device)
    per_sample = PerSample(images, labels, v2.Compose(transforms))
    loaders = {
        workers: DataLoader(per_sample, BATCH, shuffle=True, num_workers=workers, persistent_workers=workers > 0)
        for workers in WORKERS
    }

    def batched() -> None:
        for rows in torch.randperm(COUNT).to(device).split(BATCH):
            x, targets = here[rows].float().div_(255), one_hot[own_labels[rows]]
            for technique in techniques:
                x, targets = technique(x, targets, generator)
        assert x.shape == (BATCH, 3, SIDE, SIDE)

    def loaded(workers: int) -> None:
        for x, y in loaders[workers]:
            last = x.to(device), y.to(device)
        assert last[0].shape == (BATCH, 3, SIDE, SIDE)

    theirs: dict[int, list[float]] = {workers: [] for workers in WORKERS}
    ours: list[float] = []

    def others() -> None:
        for workers in WORKERS:
            theirs[workers].append(seconds(lambda workers=workers: loaded(workers), device))

    others()
    batched()
    theirs = {workers: [] for workers in WORKERS}
    benchmark.pedantic(lambda: ours.append(seconds(batched, device)), setup=others, rounds=ROUNDS)

    ratios[name] = {
        workers: statistics.median(own / other for own, other in zip(ours, theirs[workers], strict=True))
        for workers in WORKERS
    }
    benchmark.extra_info["ratio"] = {f"{workers} workers": ratio for workers, ratio in ratios[name].items()}
    found = ", ".join(f"{ratio:.3f} of a loader with {workers} workers" for workers, ratio in ratios[name].items())
    with capsys.disabled():
        print(f"\n{device.type} {name}: {1e3 * statistics.median(ours):.1f} ms for {COUNT} images, {found}")


@pytest.mark.slow
def test_overall(device, ratios, capsys):
    if not ratios:
        pytest.skip("sums up the tests above")
    with capsys.disabled():
        for workers in WORKERS:
            found = [ratio[workers] for ratio in ratios.values()]
            mean = math.exp(statistics.fmean(map(math.log, found)))
            worst = max(ratios, key=lambda name: ratios[name][workers])
            print(
                f"\n{device.type}, {len(found)} techniques, {workers} workers: geometric mean of ratios {mean:.3f}, "
                f"largest {ratios[worst][workers]:.3f} ({worst})"
            )
