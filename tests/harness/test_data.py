from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from cnnbench.data import Splits, data_key, fit_shape, load, split
from cnnbench.errors import DataError
from cnnbench.seeds import Streams
from cnnbench.technique import technique
from cnnbench.types import Choice, DataOptions, ImageData


def images_of(labels: torch.Tensor) -> torch.Tensor:
    """Images that say which one they are: the index in base 256."""
    index = torch.arange(len(labels))
    return torch.stack([index // 256, index % 256], 1).to(torch.uint8).view(-1, 1, 1, 2)


def indices_of(images: torch.Tensor) -> list[int]:
    pixels = images.view(-1, 2).long()
    return (pixels[:, 0] * 256 + pixels[:, 1]).tolist()


def data_of(train: list[int], test: list[int]) -> ImageData:
    """So many images of each class, classes interleaved by a fixed shuffle."""
    labels = [torch.arange(len(c)).repeat_interleave(torch.tensor(c)) for c in (train, test)]
    labels = [part[torch.randperm(len(part), generator=torch.Generator().manual_seed(5))] for part in labels]
    names = tuple(f"class {k}" for k in range(len(train)))
    return ImageData(images_of(labels[0]), labels[0], images_of(labels[1]), labels[1], names)


counts = st.lists(st.integers(1, 40), min_size=2, max_size=6)
shares = st.floats(0, 0.5)


def splits_or_assume(data: ImageData, options: DataOptions, seed: int) -> Splits:
    try:
        return split(data, options, Streams(seed), "cpu")
    except DataError:
        assume(False)
        raise


@settings(deadline=None, max_examples=80)
@given(counts, shares, st.integers(0, 9))
def test_validation_is_disjoint_complete_and_stratified(train: list[int], share: float, seed: int) -> None:
    data = data_of(train, [1] * len(train))
    made = splits_or_assume(data, DataOptions(validation=share), seed)
    kept, held = indices_of(made.train_images), indices_of(made.validation_images)
    assert sorted(kept + held) == list(range(sum(train)))
    total = round(share * sum(train))
    held_counts = torch.bincount(made.validation_labels, minlength=len(train)).tolist()
    for count, got in zip(train, held_counts, strict=True):
        assert abs(got - total * count / sum(train)) < 1
        assert got < count
    if min(train) > 1:
        assert len(held) == total
    assert torch.equal(made.train_labels, data.train_labels[kept])
    assert torch.equal(made.validation_labels, data.train_labels[held])


@settings(deadline=None, max_examples=80)
@given(counts, st.data())
def test_subset_is_stratified_and_exact_in_size(per_class: list[int], draw: st.DataObject) -> None:
    size = draw.draw(st.integers(1, sum(per_class)))
    made = splits_or_assume(
        data_of(per_class, per_class), DataOptions(train_size=size, test_size=size, validation=0), seed=0
    )
    for labels in (made.train_labels, made.test_labels):
        assert len(labels) == size
        for count, got in zip(per_class, torch.bincount(labels, minlength=len(per_class)).tolist(), strict=True):
            assert abs(got - size * count / sum(per_class)) < 1
            assert got >= 1


def test_every_seed_sees_the_same_images_and_draws_its_own_validation_split() -> None:
    data = data_of([50, 100, 30], [20, 20, 20])
    options = DataOptions(train_size=90, test_size=30, validation=0.2)
    first, again, other = (split(data, options, Streams(seed), "cpu") for seed in (0, 0, 1))
    assert torch.equal(first.train_images, again.train_images)
    assert torch.equal(first.validation_images, again.validation_images)
    assert not torch.equal(first.validation_images, other.validation_images)
    everything = [sorted(indices_of(s.train_images) + indices_of(s.validation_images)) for s in (first, other)]
    assert everything[0] == everything[1]
    assert torch.equal(first.test_images, other.test_images)
    assert everything[0] != list(range(90))
    for made in (first, other):  # 25, 50 and 15 images, of which a fifth
        assert torch.bincount(made.validation_labels).tolist() == [5, 10, 3]
        assert torch.bincount(made.train_labels).tolist() == [20, 40, 12]


def test_the_placebo_family_draws_another_validation_split() -> None:
    data = data_of([50, 50], [5, 5])
    one, other = (split(data, DataOptions(), Streams(0, family), "cpu") for family in ("", "placebo"))
    assert not torch.equal(one.validation_images, other.validation_images)


def test_without_subset_or_validation_nothing_is_copied() -> None:
    data = data_of([5, 5], [5, 5])
    made = split(data, DataOptions(validation=0), Streams(0), "cpu")
    assert made.train_images.data_ptr() == data.train_images.data_ptr()
    assert made.validation_images.shape == (0, 1, 1, 2)
    assert made.image_shape == (1, 1, 2)
    assert made.num_classes == 2


def test_splits_are_contiguous() -> None:
    data = data_of([5, 5], [5, 5])
    strided = replace(data, train_images=torch.zeros(10, 4, 4, 3, dtype=torch.uint8).permute(0, 3, 1, 2))
    strided = replace(strided, test_images=strided.train_images)
    made = split(strided, DataOptions(validation=0), Streams(0), "cpu")
    assert made.train_images.is_contiguous()
    assert made.test_images.is_contiguous()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (DataOptions(train_size=101), "train_size = 101, but the train split has 100 images"),
        (DataOptions(train_size=0), "train_size = 0"),
        (DataOptions(train_size=10), "leaves class 'class 1' without an image .* take at least 50"),
        (DataOptions(test_size=1), "test_size = 1 leaves class"),
        (DataOptions(validation=0.001), "leaves none to hold out"),
        (DataOptions(validation=0.6), "from 0 to 0.5, not 0.6"),
    ],
)
def test_sizes_that_cannot_be_met(options: DataOptions, message: str) -> None:
    with pytest.raises(DataError, match=message):
        split(data_of([98, 2], [5, 5]), options, Streams(0), "cpu")


def test_single_images_leave_none_to_hold_out() -> None:
    with pytest.raises(DataError, match="leaves none to hold out"):
        split(data_of([1, 1], [1, 1]), DataOptions(validation=0.5), Streams(0), "cpu")


def test_the_size_that_the_message_asks_for_is_enough() -> None:
    split(data_of([98, 2], [5, 5]), DataOptions(train_size=50), Streams(0), "cpu")


@technique("dataset", "given")
class Given:
    """Hands back what it was given."""

    data: ImageData

    def fingerprint(self) -> str:
        return "given"

    def __call__(self) -> ImageData:
        return self.data


GOOD = data_of([5, 5], [5, 5])


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (replace(GOOD, class_names=("one",)), "at least two classes, found 1"),
        (replace(GOOD, train_images=GOOD.train_images.float()), "train split: images must be uint8 .* not float32"),
        (replace(GOOD, test_images=GOOD.test_images[:, 0]), r"test split: images .* not uint8 \[10, 1, 2\]"),
        (replace(GOOD, test_images=GOOD.test_images.expand(-1, 2, -1, -1)), r"\[N, 1 or 3, H, W\]"),
        (replace(GOOD, train_labels=GOOD.train_labels[:9]), r"labels must be int64 \[10\], .* not int64 \[9\]"),
        (replace(GOOD, train_labels=GOOD.train_labels.int()), "labels must be int64"),
        (replace(GOOD, train_labels=GOOD.train_labels + 1), "label 2 is out of range: 2 classes are 0 to 1"),
        (replace(GOOD, test_labels=GOOD.test_labels - 1), "test split: label -1 is out of range"),
        (replace(GOOD, train_labels=GOOD.train_labels * 0), "class 'class 1' has no image"),
        (replace(GOOD, test_images=GOOD.test_images[:0], test_labels=GOOD.test_labels[:0]), "test split: no images"),
        (replace(GOOD, test_images=GOOD.test_images.repeat(1, 3, 1, 1)), r"test images are \[3, 1, 2\]"),
    ],
)
def test_data_that_breaks_the_contract(bad: ImageData, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        load(Given(bad))
    assert "\n" not in str(caught.value)
    assert "'given'" in str(caught.value)


def test_loaded_data_splits() -> None:
    made = split(load(Given(GOOD)), DataOptions(validation=0.2), Streams(0), "cpu")
    assert (len(made.train_labels), len(made.validation_labels), len(made.test_labels)) == (8, 2, 10)
    assert made.class_names == GOOD.class_names


def test_data_key_stands_for_content_and_not_for_place() -> None:
    def key(options: dict[str, object], data: DataOptions | None = None, fingerprint: str = "f") -> str:
        return data_key(Choice("dataset", "folder", options), data or DataOptions(), fingerprint)

    base = key({"path": "/here", "size": 8})
    assert base == key({"size": 8, "path": "/there"})
    assert base == key({"size": 8, "download": True})
    assert base != key({"path": "/here", "size": 16})
    assert base != key({"path": "/here", "size": 8}, DataOptions(train_size=10))
    assert base != key({"path": "/here", "size": 8}, fingerprint="g")
    assert base != data_key(Choice("dataset", "parquet", {"size": 8}), DataOptions(), "f")


def test_the_plan_needs_no_torch() -> None:
    code = (
        "import sys; from cnnbench.data import data_key; from cnnbench_plugins import cnnbench_register_datasets as d, "
        "cnnbench_register_models as m; classes = [*d(), *m()]; "
        "next(c for c in classes if c.__name__ == 'Digits')().fingerprint(); "
        "print(len(classes), 'torch' in sys.modules, 'sklearn' in sys.modules)"
    )
    number, torch_there, sklearn_there = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert int(number) >= 11
    assert (torch_there, sklearn_there) == ("False", "False")


# Another shape.


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 8, 8), (1, 5, 9), (3, 16, 4)])
@pytest.mark.parametrize("channels", [1, 3])
def test_images_in_another_shape_are_torchvision_s(shape, channels):
    from torchvision.transforms.v2 import RGB, Compose, Grayscale, Resize

    images = torch.randint(0, 256, (4, channels, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    expected = Compose([Grayscale() if shape[0] == 1 else RGB(), Resize(shape[1:], antialias=True)])(images)
    found = fit_shape(images, shape)
    assert found.dtype == torch.uint8
    assert found.is_contiguous()
    assert torch.equal(found, expected)


# Few shots, long tails, wrong labels.


def test_shots_are_so_many_of_each_class_the_same_for_every_seed():
    data = data_of([30, 50, 20], [5, 5, 5])
    options = DataOptions(shots=8, validation=0.25)
    one, other = (split(data, options, Streams(seed), "cpu") for seed in (0, 1))
    for splits in (one, other):
        both = torch.cat([splits.train_labels, splits.validation_labels])
        assert torch.bincount(both).tolist() == [8, 8, 8]
        assert torch.bincount(splits.validation_labels).tolist() == [2, 2, 2]

    chosen = [sorted(indices_of(torch.cat([s.train_images, s.validation_images]))) for s in (one, other)]
    assert chosen[0] == chosen[1]
    with pytest.raises(DataError, match=r"shots = 21, but class 'class 2' has 20 training images"):
        split(data, DataOptions(shots=21), Streams(0), "cpu")


def test_a_long_tail_follows_the_closed_formula():
    data = data_of([100, 100, 100], [5, 5, 5])
    splits = split(data, DataOptions(imbalance=25, validation=0), Streams(0), "cpu")
    assert torch.bincount(splits.train_labels).tolist() == [100, 20, 4]
    assert torch.bincount(splits.test_labels).tolist() == torch.bincount(data.test_labels).tolist()
    smaller = split(data, DataOptions(imbalance=25, train_size=62, validation=0), Streams(0), "cpu")
    assert torch.bincount(smaller.train_labels).tolist() == [50, 10, 2]


@settings(deadline=None, max_examples=30)
@given(share=st.floats(0, 0.99), seed=st.integers(0, 5))
def test_so_many_training_labels_are_wrong_and_no_others(share, seed):
    data = data_of([30, 50, 20], [5, 5, 5])
    clean = split(data, DataOptions(validation=0.2), Streams(seed), "cpu")
    noisy = split(data, DataOptions(validation=0.2, label_noise=share), Streams(seed), "cpu")
    assert int((clean.train_labels != noisy.train_labels).sum()) == round(share * len(clean.train_labels))
    assert torch.equal(clean.train_images, noisy.train_images)
    assert torch.equal(clean.validation_labels, noisy.validation_labels)
    assert torch.equal(clean.test_labels, noisy.test_labels)
    assert noisy.train_labels.min() >= 0
    assert noisy.train_labels.max() <= 2


def test_wrong_labels_are_the_same_in_every_seed_and_spread_over_the_other_classes():
    data = data_of([300, 300, 300], [5, 5, 5])
    found = []
    for seed in (0, 1):
        splits = split(data, DataOptions(validation=0.1, label_noise=0.4), Streams(seed), "cpu")
        found.append(dict(zip(indices_of(splits.train_images), splits.train_labels.tolist(), strict=True)))
    wrong = [{row for row, label in labels.items() if label != data.train_labels[row]} for labels in found]
    both = wrong[0] & wrong[1]
    assert len(both) > 0.9 * len(wrong[0] & found[1].keys())
    assert all(found[0][row] == found[1][row] for row in both)
    shifts = torch.bincount(torch.tensor([(found[0][row] - int(data.train_labels[row])) % 3 for row in wrong[0]]))
    assert shifts[0] == 0
    assert abs(int(shifts[1]) - int(shifts[2])) < 60
