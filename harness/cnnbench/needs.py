"""What a suite needs of this machine, looked for before anything runs: data, users' code and files, device and cores.

Only looking for an accelerator imports torch; the rest is part of reading a suite.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cnnbench.axes import flatten
from cnnbench.errors import DataError, MissingDependency, Problem, SuiteError, UsageError
from cnnbench.locate import dotted, line_of, lines_of
from cnnbench.options import make, nested
from cnnbench.types import Choice

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from cnnbench.axes import Axis
    from cnnbench.datasets import DatasetDraft
    from cnnbench.draft import Draft
    from cnnbench.locate import Place
    from cnnbench.reader import Reader
    from cnnbench.suite import Suite


def check_data(named: DatasetDraft, reader: Reader) -> None:
    """Report a dataset that is missing, corrupt or lacks a package, and sizes that it is known not to meet."""
    if named.choice is None:
        return  # its mistake is told already
    data = named.data
    lacking = [need for need in reader.registry.get("dataset", named.choice.name).card.requires if not need.installed]
    if lacking:
        need = lacking[0]
        missing = MissingDependency(need.module, need.extra, need.distribution)
        reader.report(named.place, f"{named.choice.name} {missing}")
        return
    try:
        dataset = make(named.choice, reader.registry)
        dataset.fingerprint()
        sizes: tuple[int, int] | None = dataset.sizes() if hasattr(dataset, "sizes") else None
    except DataError as error:
        reader.report(named.place, str(error))
        return
    wanted_of = {"train": data.train_size, "test": data.test_size}
    for (part, wanted), there in zip(wanted_of.items(), sizes or (), strict=False):
        if wanted is not None and wanted > there:
            message = f"expected at most {there}, the number of {part} images, got {wanted}"
            reader.report((*named.place, f"{part}_size"), message)
    images = min((count for count in (data.train_size, sizes and sizes[0]) if count), default=0)
    if images and data.validation and not round(data.validation * images):
        reader.report(
            (*named.place, "validation"),
            f"expected a share that holds out an image, or 0 for no validation split, got {data.validation} of "
            f"{images} training images",
        )


def check_sources(
    base: Draft, arms: Sequence[tuple[str, Draft]], axes: Sequence[Axis] | None, raw: Mapping[str, Any], reader: Reader
) -> None:
    """Report code and files of the user's that a technique names and that are not there, each at its first place.

    Args:
        base: the baseline.
        arms: the other arms by name.
        axes: of the design that the arms come from; None where the suite lists them.
        raw: the suite as TOML has it.
        reader: where to report.
    """
    seen: list[Choice] = []
    for name, draft in (("", base), *arms):
        for key, choice in _choices(draft):
            own = [
                inner
                for inner in (choice, *nested(choice.options))
                if hasattr(reader.registry.get(inner.slot, inner.name).cls, "fingerprint")
            ]
            if not own or choice in seen:
                continue
            seen.append(choice)
            for inner in own:
                try:
                    make(inner, reader.registry).fingerprint()
                except UsageError as error:
                    reader.report(_place(name, key, choice, axes, raw), str(error))


def check_machine(suite: Suite, *, device: bool = True) -> None:
    """Look for the device and the cores that a suite asks for.

    Args:
        suite: as it was read.
        device: look for its device; not where the command line names another.

    Raises:
        SuiteError: they are not on this machine.
    """
    from cnnbench.devices import resolve
    from cnnbench.environment import usable_cores

    found: list[tuple[Place, str]] = []
    if device and suite.device != "auto":
        try:
            resolve(suite.device)
        except UsageError as error:
            found.append((("device",), str(error).removeprefix("device ")))
    threads, cores = suite.measure.latency.threads, usable_cores()
    if threads is not None and threads > cores:  # they would wait for each other, and time would be that of waiting
        message = f"expected at most {cores}, the physical cores that can be used here, got {threads}"
        found.append((("measure", "latency", "threads"), message))
    if found:
        lines = lines_of(suite.text)
        raise SuiteError(sorted(Problem(suite.file, line_of(lines, at), dotted(at), what) for at, what in found))


def _choices(draft: Draft) -> Iterator[tuple[tuple[str, ...], Choice]]:
    """Techniques of a draft with their place in an arm; the dataset is looked for by itself."""
    if draft.model is not None:
        yield ("model",), draft.model
    for name, value in draft.recipe.items():
        if isinstance(value, Choice):
            yield ("recipe", name), value
    for slot, choices in draft.techniques.items():
        for choice in choices:
            yield (slot,), choice


def _place(
    name: str, key: tuple[str, ...], choice: Choice, axes: Sequence[Axis] | None, raw: Mapping[str, Any]
) -> Place:
    """Where the suite says what an arm (the baseline: no name) has at ``key``."""
    own: Place = key if key[0] in ("model", "recipe") else ("baseline", *key)
    if axes is None:
        return ("arms", name, *key) if name else own
    written = flatten(raw["design"]) if axes else {}
    for axis in axes:
        if axis.key == ".".join(key):
            for index, level in enumerate(axis.levels):
                if choice == level.value or (isinstance(level.value, tuple) and choice in level.value):
                    return ("design", *written[axis.key][1], index)
    for axis in axes:
        if axis.table == "model" == key[0]:
            return ("design", *written[axis.key][1])
    return own
