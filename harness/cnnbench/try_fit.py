"""Finds a baseline on which techniques have something to act on, by two training steps each."""

from __future__ import annotations

import tomllib
import traceback
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cnnbench.data import load, split
from cnnbench.devices import resolve
from cnnbench.errors import CnnbenchError, MissingDependency, SuiteError, UsageError, words_of
from cnnbench.options import make
from cnnbench.reader import read_choice
from cnnbench.seeds import Streams
from cnnbench.stages.build import Builder
from cnnbench.stages.rehearse import rehearse
from cnnbench.suite import parse
from cnnbench.try_suite import BASES, Base, arms_of, suite_of
from cnnbench.types import Choice

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import nn

    from cnnbench.registry import Entry, Registry
    from cnnbench.suite import Suite
    from cnnbench.types import ImageData

STREAMS = Streams(0)
MOST_PIXELS = 600 * 32 * 32
"""Of all training images together; of a dataset that has more, a part is used."""
FEWEST_IMAGES, MOST_TEST_IMAGES = 300, 1_000
TRAINED_FIRST = frozenset({"compressor", "strategy"})
"""Slots whose effect on a network shows once it is trained."""


@dataclass(frozen=True)
class Asked:
    """What the user asked of a try.

    Attributes:
        model, dataset: as a suite would have them, in TOML or by name alone; None lets the techniques decide.
        seeds: how many.
        device: as in a suite.
    """

    model: str | None = None
    dataset: str | None = None
    seeds: int = 3
    device: str = "auto"


@dataclass(frozen=True)
class Fault:
    """Why a technique can't be tried.

    Attributes:
        name: of its arm.
        text: one line.
        trace: where in the code, for what was not raised on purpose.
    """

    name: str
    text: str
    trace: str = ""


@dataclass(frozen=True)
class Arm:
    """A technique that can be tried, or the baseline.

    Attributes:
        builder: of its networks.
        model: its network, as it is built; of what acts on a trained network, as that leaves it.
        before: the baseline's, likewise.
    """

    builder: Builder
    model: nn.Module
    before: nn.Module


@dataclass(frozen=True)
class Trial:
    """What is to be run.

    Attributes:
        base: what techniques are tried on.
        entries: those that can be.
        arms: by name, those of them that are an arm.
        faults: why others are left out.
        baseline: builds the baseline.
        data: the datasets, by their labels in the suite.
    """

    base: Base
    entries: tuple[Entry, ...]
    arms: Mapping[str, Arm]
    faults: tuple[Fault, ...]
    baseline: Builder
    data: Mapping[str, ImageData]


def example_of(entry: Entry, registry: Registry) -> Choice:
    """A technique with the options of its example, as a suite in the working directory would name it.

    Raises:
        UsageError: a suite could not name it so.
    """
    return read_choice(Choice(entry.card.slot, entry.card.name, entry.card.example), registry, Path.cwd())


def unusable(entry: Entry, registry: Registry) -> Fault | None:
    """Why a technique can't be made at all: it lacks a package, or options."""
    card = entry.card
    for need in card.requires:
        if not need.installed:
            return Fault(card.name, str(MissingDependency(need.module, need.extra, need.distribution)))
    try:
        make(example_of(entry, registry), registry)
    except UsageError as error:
        return Fault(card.name, f"{error}: give what to try it with in its decorator, example = {{...}}")
    return None


@dataclass(frozen=True)
class Fitter:
    """Looks for the base that suits some techniques.

    Attributes:
        asked: by the user.
        file: where the suite would lie: paths in it start there.
        plugins: what the suite has to name to know them.
        registry: of all techniques.
    """

    asked: Asked
    file: Path
    plugins: Sequence[str]
    registry: Registry

    def fit(self, entries: Sequence[Entry]) -> Trial:
        """Techniques on the first base on which all can act, or the one on which most can.

        Args:
            entries: of slots that a suite has a place for; each can be made.

        Raises:
            UsageError: the model or the dataset is not one.
        """
        best: Trial | None = None
        for base in self._bases():
            trial = self._tried(entries, base.suited(entries))
            if best is None or len(trial.faults) < len(best.faults):
                best = trial
            if not best.faults or any(fault.trace for fault in trial.faults):  # no other base mends what is broken
                break
        assert best is not None
        return best

    def check_asked(self) -> None:
        """Raise ``UsageError`` where what the user asked for is not there."""
        try:
            self.suite((), self._bases()[0].suited(()), data=True)
        except SuiteError as error:
            raise _as_asked(error) from None

    def text(self, entries: Sequence[Entry], base: Base) -> str:
        """The suite that tries techniques on a base."""
        return suite_of(entries, base, plugins=self.plugins, seeds=self.asked.seeds, device=self.asked.device)

    def suite(self, entries: Sequence[Entry], base: Base, *, data: bool = False) -> Suite:
        """The same, read; ``data``: also look for the datasets."""
        return parse(self.text(entries, base).encode(), str(self.file), self.registry, data=data)

    def _bases(self) -> list[Base]:
        model = None if self.asked.model is None else named("--model", self.asked.model)
        dataset = None if self.asked.dataset is None else named("--dataset", self.asked.dataset)
        found: list[Base] = []
        for base in BASES:
            other = replace(base, model=model or base.model, datasets=(dataset,) if dataset else base.datasets)
            if other not in found:
                found.append(other)
        return found

    def _tried(self, entries: Sequence[Entry], base: Base) -> Trial:
        beside = [entry for entry in entries if entry not in arms_of(entries).values()]
        try:
            suite = self.suite(beside, base, data=True)
        except SuiteError as error:
            raise _as_asked(error) from None
        data = {one.label: load(make(one.choice, self.registry)) for one in suite.datasets}
        parts = [{**one, **part_of(found, one)} for one, found in zip(base.datasets, data.values(), strict=True)]
        base = replace(base, datasets=tuple(parts))
        suite = self.suite(beside, base)
        device = resolve(suite.device)
        splits = split(next(iter(data.values())), suite.datasets[0].data, STREAMS, device.torch)
        baseline = Builder(suite.baseline, self.registry, splits, device)
        arms: dict[str, Arm] = {}
        faults: list[Fault] = []
        for name, entry in arms_of(entries).items():
            found = self._arm(name, entry, beside, base, baseline)
            if isinstance(found, Fault):
                faults.append(found)
            else:
                arms[name] = found
        kept = [*beside, *(entry for name, entry in arms_of(entries).items() if name in arms)]
        return Trial(base, tuple(kept), arms, tuple(faults), baseline, data)

    def _arm(self, name: str, entry: Entry, beside: Sequence[Entry], base: Base, baseline: Builder) -> Arm | Fault:
        try:
            arm = self.suite([*beside, entry], base).arms[0]
        except SuiteError as error:
            return Fault(name, error.problems[0].message)
        builder = replace(baseline, settings=arm.settings)
        try:
            if entry.card.slot == "runtime":  # it meets the finished model alone
                return Arm(builder, plain := baseline.model(STREAMS), plain)
            rehearsed = _rehearse(builder)
            if entry.card.slot in TRAINED_FIRST:
                return Arm(builder, rehearsed, _rehearse(baseline))
            return Arm(builder, builder.model(STREAMS), baseline.model(STREAMS))
        except CnnbenchError as error:
            return Fault(name, f"{type(error).__name__}: {error}")
        except Exception as error:  # noqa: BLE001 - a technique is another's code: what comes out of it is the answer
            return Fault(name, words_of(error), trace_of(error))


def _rehearse(builder: Builder) -> nn.Module:
    epochs = 2 if builder.settings.techniques.get("strategy") else 1  # what a strategy does often comes after the first
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the run itself shows them
        return rehearse(builder, STREAMS, epochs=epochs)


def trace_of(error: BaseException) -> str:
    """Where in the code an error came from, as Python tells it."""
    return "".join(traceback.format_exception(error)).rstrip()


def named(option: str, text: str) -> dict[str, Any]:
    """What an option names: by a name, or an inline table of TOML.

    Raises:
        UsageError: it is neither.
    """
    if not text.lstrip().startswith("{"):
        return {"name": text}
    try:
        return dict(tomllib.loads(f"x = {text}")["x"])
    except ValueError as error:
        raise UsageError(f"{option}: expected a name or an inline table of TOML, got {text!r}: {error}") from None


def _as_asked(error: SuiteError) -> UsageError:
    """A mistake in the suite as one in the option that it came from."""
    problem = error.problems[0]
    key = problem.place.partition(".")[0].partition("[")[0]
    return UsageError(f"--{key}: {problem.message}") if key in {"model", "dataset", "device"} else error


def part_of(data: ImageData, table: Mapping[str, Any]) -> dict[str, int]:
    """How many images of a dataset are used, where those that it has would take long.

    Args:
        data: the dataset.
        table: as a suite names it; nothing is taken off what it asks for itself.
    """
    if table.keys() & {"train_size", "shots"}:
        return {}
    _, height, width = data.image_shape
    most = max(FEWEST_IMAGES, MOST_PIXELS // (height * width))
    sizes = {"train_size": (len(data.train_labels), most), "test_size": (len(data.test_labels), MOST_TEST_IMAGES)}
    return {key: most for key, (there, most) in sizes.items() if there > most and key not in table}
