"""Datasets into in-memory splits: the same images for every seed, the seed's own validation split.

Importing this module imports no torch: the plan needs ``data_key`` alone.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

from cnnbench.errors import DataError
from cnnbench.lazy import torch
from cnnbench.seeds import Streams
from cnnbench.technique import card_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cnnbench.slots import Dataset
    from cnnbench.types import Choice, DataOptions, ImageData

PLACE_OPTIONS = ("path", "download")
"""Options of datasets that say where the data lies, not what it is; by convention so named in every dataset."""


@dataclass(frozen=True)
class Splits:
    """What a trial trains, validates and reports on, on one device.

    Attributes:
        train_images, validation_images, test_images: contiguous uint8 tensors [N, C, H, W]; validation may have N = 0.
        train_labels, validation_labels, test_labels: int64 tensors [N].
        class_names: names in label order.
    """

    train_images: torch.Tensor
    train_labels: torch.Tensor
    validation_images: torch.Tensor
    validation_labels: torch.Tensor
    test_images: torch.Tensor
    test_labels: torch.Tensor
    class_names: tuple[str, ...]

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.class_names)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Channels, height and width."""
        _, channels, height, width = self.train_images.shape
        return channels, height, width

    @property
    def tensors(self) -> tuple[torch.Tensor, ...]:
        """Images and labels of all splits."""
        return (
            *(self.train_images, self.validation_images, self.test_images),
            *(self.train_labels, self.validation_labels, self.test_labels),
        )

    def with_images(self, change: Callable[[torch.Tensor], torch.Tensor]) -> Splits:
        """The same labels with changed images."""
        return replace(
            self,
            train_images=change(self.train_images),
            validation_images=change(self.validation_images),
            test_images=change(self.test_images),
        )

    def first(self, count: int) -> Splits:
        """No more than the first ``count`` images of each split."""
        return replace(
            self,
            train_images=self.train_images[:count],
            train_labels=self.train_labels[:count],
            validation_images=self.validation_images[:count],
            validation_labels=self.validation_labels[:count],
            test_images=self.test_images[:count],
            test_labels=self.test_labels[:count],
        )


def fit_shape(images: torch.Tensor, shape: tuple[int, int, int]) -> torch.Tensor:
    """Images in another dataset's shape: gray repeated or colour weighed (ITU-R 601-2), then resized with antialiasing.

    Args:
        images: uint8 [N, C, H, W].
        shape: channels (1 or 3), height and width to have.
    """
    from torchvision.transforms.v2 import functional

    channels, height, width = shape
    if images.shape[1] != channels:
        images = functional.rgb_to_grayscale(images) if channels == 1 else images.expand(-1, channels, -1, -1)
    if images.shape[2:] != (height, width):
        images = functional.resize(images, [height, width], antialias=True)
    return images.contiguous()


def data_key(choice: Choice, options: DataOptions, fingerprint: str) -> str:
    """Digest of all that decides a dataset's content; where it lies on this machine does not.

    Args:
        choice: the dataset with its options.
        options: subset sizes and validation share.
        fingerprint: what the dataset's ``fingerprint`` returned, which stands for the options in ``PLACE_OPTIONS``.
    """
    content = {
        "name": choice.name,
        "options": {key: value for key, value in choice.options.items() if key not in PLACE_OPTIONS},
        "data": asdict(options),
        "fingerprint": fingerprint,
    }
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def load(dataset: Dataset) -> ImageData:
    """Load a dataset and check what it returned; the result serves any number of seeds.

    Raises:
        DataError: the data is missing or corrupt, or its tensors break the contract of ``ImageData``.
    """
    data = dataset()
    _check(data, card_of(dataset).name)
    return data


def split(data: ImageData, options: DataOptions, streams: Streams, device: str | torch.device) -> Splits:
    """Take the subset that ``options`` ask for, split off the validation images, and move all to ``device``.

    Imbalance, subset and label noise are drawn from streams of their own that no seed touches, so that all seeds see
    the same images. The subset is stratified. So is the validation split, drawn from the stream ``split`` of
    ``streams``. In both, each class's count is within one of its exact share, and chosen images keep their order in the
    file. Validation and test labels are never noisy.

    Raises:
        DataError: a size is larger than the dataset, or so small that a class would be left without an image.
    """
    if not 0 <= options.validation <= 0.5:
        raise DataError(f"dataset.validation is a share of the training images from 0 to 0.5, not {options.validation}")
    names = data.class_names
    train = _unbalanced(data.train_labels, options.imbalance, len(names))
    own = data.train_labels.cpu()[train]
    chosen = (
        _subset(own, options.train_size, "train", names) if options.shots is None else _shots(own, options.shots, names)
    )
    train = train[chosen]
    test = _subset(data.test_labels, options.test_size, "test", names)
    kept, held_out = _validation(data.train_labels, train, options.validation, streams, names)
    noisy = _noisy(data.train_labels, kept, options.label_noise, len(names))
    return Splits(
        train_images=_take(data.train_images, kept, device),
        train_labels=_take(noisy, kept, device),
        validation_images=_take(data.train_images, held_out, device),
        validation_labels=_take(data.train_labels, held_out, device),
        test_images=_take(data.test_images, test, device),
        test_labels=_take(data.test_labels, test, device),
        class_names=names,
    )


def _check(data: ImageData, name: str) -> None:
    """Hold what a dataset returned to the contract of ``ImageData``."""
    classes = len(data.class_names)
    if classes < 2:
        raise DataError(f"dataset {name!r}: classification needs at least two classes, found {classes}")
    for part, images, labels in (
        ("train", data.train_images, data.train_labels),
        ("test", data.test_images, data.test_labels),
    ):
        where = f"dataset {name!r}, {part} split"
        if images.dtype != torch.uint8 or images.dim() != 4 or images.shape[1] not in {1, 3}:
            raise DataError(
                f"{where}: images must be uint8 [N, 1 or 3, H, W], not "
                f"{str(images.dtype).removeprefix('torch.')} {list(images.shape)}"
            )
        if labels.dtype != torch.int64 or labels.dim() != 1 or len(labels) != len(images):
            raise DataError(
                f"{where}: labels must be int64 [{len(images)}], one for each image, not "
                f"{str(labels.dtype).removeprefix('torch.')} {list(labels.shape)}"
            )
        if not len(labels):
            raise DataError(f"{where}: no images")
        low, high = int(labels.min()), int(labels.max())
        if low < 0 or high >= classes:
            wrong = low if low < 0 else high
            raise DataError(f"{where}: label {wrong} is out of range: {classes} classes are 0 to {classes - 1}")
    if data.test_images.shape[1:] != data.train_images.shape[1:]:
        raise DataError(
            f"dataset {name!r}: test images are {list(data.test_images.shape[1:])}, "
            f"training images {list(data.train_images.shape[1:])} (channels, height, width)"
        )
    for index, count in enumerate(torch.bincount(data.train_labels, minlength=classes).tolist()):
        if not count:
            raise DataError(f"dataset {name!r}, train split: class {data.class_names[index]!r} has no image")


def _subset(labels: torch.Tensor, size: int | None, part: str, names: Sequence[str]) -> torch.Tensor:
    """Sorted indices of a stratified subset of ``size`` images, the same for every seed; None takes all."""
    if size is None or size == len(labels):
        return torch.arange(len(labels))
    if not 0 < size < len(labels):
        raise DataError(f"dataset.{part}_size = {size}, but the {part} split has {len(labels)} images")
    counts = torch.bincount(labels.cpu(), minlength=len(names)).tolist()
    quotas = _apportion(counts, size, counts)
    for name, count, quota in zip(names, counts, quotas, strict=True):
        if count and not quota:
            raise DataError(
                f"dataset.{part}_size = {size} leaves class {name!r} without an image "
                f"(it has {count} of {len(labels)}): take at least {-(-len(labels) // count)}"
            )
    return _draw(labels.cpu(), quotas, Streams(0, "subset").generator(part))


def _unbalanced(labels: torch.Tensor, ratio: float, classes: int) -> torch.Tensor:
    """Sorted indices that leave class k its count times ratio^(-k / (K - 1)), at least one; the same for every seed."""
    if ratio == 1:
        return torch.arange(len(labels))
    counts = torch.bincount(labels.cpu(), minlength=classes).tolist()
    quotas = [max(1, round(count * ratio ** (-k / (classes - 1)))) for k, count in enumerate(counts)]
    return _draw(labels.cpu(), quotas, Streams(0, "imbalance").generator("train"))


def _shots(labels: torch.Tensor, shots: int, names: Sequence[str]) -> torch.Tensor:
    """Sorted indices of ``shots`` images of each class, the same for every seed."""
    for name, count in zip(names, torch.bincount(labels, minlength=len(names)).tolist(), strict=True):
        if count < shots:
            raise DataError(f"dataset.shots = {shots}, but class {name!r} has {count} training images")
    return _draw(labels, [shots] * len(names), Streams(0, "subset").generator("train"))


def _noisy(labels: torch.Tensor, kept: torch.Tensor, share: float, classes: int) -> torch.Tensor:
    """Labels of which ``round(share x len(kept))`` among ``kept`` are wrong.

    An image that two seeds both train on and mislabel has the same wrong label in both.
    """
    if not share:
        return labels
    generator = Streams(0, "label noise").generator("train")
    rank = torch.randperm(len(labels), generator=generator)
    shift = torch.randint(1, classes, (len(labels),), generator=generator)
    wrong = kept[rank[kept].argsort()[: round(share * len(kept))]]
    noisy = labels.cpu().clone()
    noisy[wrong] = (noisy[wrong] + shift[wrong]) % classes
    return noisy.to(labels.device)


def _validation(
    labels: torch.Tensor, chosen: torch.Tensor, share: float, streams: Streams, names: Sequence[str]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Split the indices ``chosen`` into those kept for training and those held out, both sorted."""
    if share == 0:
        return chosen, chosen[:0]
    own = labels.cpu()[chosen]
    counts = torch.bincount(own, minlength=len(names)).tolist()
    quotas = _apportion(counts, round(share * len(chosen)), [count - 1 for count in counts])
    if not sum(quotas):
        raise DataError(
            f"dataset.validation = {share} of {len(chosen)} training images leaves none to hold out: "
            "use more images, or 0 for no validation split"
        )
    held_out = torch.zeros(len(chosen), dtype=torch.bool)
    held_out[_draw(own, quotas, streams.generator("split"))] = True
    return chosen[~held_out], chosen[held_out]


def _apportion(counts: Sequence[int], total: int, caps: Sequence[int]) -> list[int]:
    """Share ``total`` among classes in proportion to their counts, by largest remainder, none above its cap.

    Each share is within one of exact. Ties go to the class listed first. A cap that binds is not made up elsewhere.
    """
    everything = sum(counts)
    quotas = [total * count // everything for count in counts]
    by_remainder = sorted(range(len(counts)), key=lambda i: (-(total * counts[i] % everything), i))
    left = total - sum(quotas)
    for i in by_remainder:
        if left and total * counts[i] % everything and quotas[i] < caps[i]:
            quotas[i] += 1
            left -= 1
    return quotas


def _draw(labels: torch.Tensor, quotas: Sequence[int], generator: torch.Generator) -> torch.Tensor:
    """Sorted indices of ``quotas[k]`` random images of each class k."""
    order = torch.randperm(len(labels), generator=generator)
    shuffled = labels[order]
    return torch.cat([order[shuffled == k][:quota] for k, quota in enumerate(quotas)]).sort().values


def _take(tensor: torch.Tensor, indices: torch.Tensor, device: str | torch.device) -> torch.Tensor:
    """Rows of a tensor on a device; no copy where every row is taken and the device is the tensor's own."""
    rows = tensor if len(indices) == len(tensor) else tensor[indices.to(tensor.device)]
    return rows.contiguous().to(device)
