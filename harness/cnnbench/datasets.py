"""Reads a suite's dataset, or its list of them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from cnnbench.options import label, options_of
from cnnbench.types import Choice, DataOptions

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cnnbench.locate import Place
    from cnnbench.reader import Reader
    from cnnbench.registry import Registry


@dataclass(frozen=True)
class Dataset:
    """A dataset that all arms are tried on.

    Attributes:
        label: its name in tables, distinct within the suite.
        choice: in slot ``dataset``.
        data: what is asked of it.
    """

    label: str
    choice: Choice
    data: DataOptions


@dataclass(frozen=True)
class DatasetDraft:
    """A dataset while a suite is read.

    Attributes:
        label: as in ``Dataset``.
        choice: None where it has mistakes.
        data: what is asked of it, as far as that is sound.
        place: where the suite names it.
    """

    label: str
    choice: Choice | None
    data: DataOptions
    place: Place

    def finish(self) -> Dataset | None:
        """The dataset, or None where it has mistakes."""
        return None if self.choice is None else Dataset(self.label, self.choice, self.data)


def read_datasets(raw: Mapping[str, Any], reader: Reader) -> tuple[DatasetDraft, ...]:
    """The suite's datasets in the file's order; empty where there is none. Mistakes are reported.

    Args:
        raw: the suite as TOML has it.
        reader: where to report.
    """
    if "dataset" not in raw:
        reader.report(("dataset",), 'missing: expected a dataset, such as dataset = "digits"')
        return ()
    value = raw["dataset"]
    if not isinstance(value, list):
        return _labelled([_read(value, ("dataset",), reader)], reader.registry)
    if not value:
        reader.report(("dataset",), "expected at least one dataset, got an empty list")
        return ()
    found: list[DatasetDraft] = []
    for i, item in enumerate(value):
        one = _read(item, ("dataset", i), reader)
        if one.choice and any((one.choice, one.data) == (other.choice, other.data) for other in found):
            reader.report(one.place, f"{one.choice.name!r} is listed twice with the same options")
            continue
        found.append(one)
    return _labelled(found, reader.registry)


def _read(value: Any, place: Place, reader: Reader) -> DatasetDraft:
    common = options_of(DataOptions)
    asked = {key: item for key, item in value.items() if key in common} if isinstance(value, dict) else {}
    own = {key: item for key, item in value.items() if key not in common} if isinstance(value, dict) else value
    data = DataOptions(**reader.given(common, asked, place, "the dataset"))
    if data.shots is not None and data.train_size is not None:
        reader.report((*place, "shots"), "expected either shots or train_size: both say how many images to train on")
    return DatasetDraft("", reader.choice("dataset", own, place, also=tuple(common)), data, place)


def _labelled(found: Sequence[DatasetDraft], registry: Registry) -> tuple[DatasetDraft, ...]:
    """With the shortest labels that tell them apart: the name; with its own options; with what is asked of it too."""
    names = [one.choice.name if one.choice else "" for one in found]
    own = [label(one.choice, registry) if one.choice else "" for one in found]
    whole = [f"{text} {_asked(one.data)}".strip() for text, one in zip(own, found, strict=True)]
    counts = [Counter(names), Counter(own)]
    labels = [
        name if counts[0][name] == 1 else text if counts[1][text] == 1 else every
        for name, text, every in zip(names, own, whole, strict=True)
    ]
    return tuple(replace(one, label=text) for text, one in zip(labels, found, strict=True))


def _asked(data: DataOptions) -> str:
    plain = DataOptions()
    return ", ".join(f"{key}={value}" for key, value in vars(data).items() if value != getattr(plain, key))
