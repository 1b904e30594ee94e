"""Reads a suite's dataset, or its list of them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from cnnbench.options import format_value, options_of
from cnnbench.types import Choice, DataOptions

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

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
    """Labelled by name; those of one name also by what they have in other ways than each other."""
    labels = []
    for one in found:
        name = one.choice.name if one.choice else ""
        others = [other for other in found if other.choice and other.choice.name == name]
        labels.append(" ".join([name, *(_differing(one, others, registry) if len(others) > 1 else ())]))
    return tuple(replace(one, label=text) for one, text in zip(found, labels, strict=True))


def _differing(one: DatasetDraft, others: Sequence[DatasetDraft], registry: Registry) -> Iterator[str]:
    """Options of a dataset that are not the same in all ``others``, itself among them; defaults go without saying."""
    assert one.choice is not None
    for key, option in options_of(registry.get("dataset", one.choice.name).cls).items():
        values = [other.choice.options[key] for other in others if other.choice]
        mine = one.choice.options[key]
        if any(value != mine for value in values) and (option.required or mine != option.plain(option.default)):
            yield f"{key}={format_value(mine, option, registry)}"
    plain = DataOptions()
    for key, mine in vars(one.data).items():
        if any(getattr(other.data, key) != mine for other in others) and mine != getattr(plain, key):
            yield f"{key}={mine}"
