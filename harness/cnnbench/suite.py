"""Suite files: bytes to a frozen, validated ``Suite``.

Every mistake is told at once, each with its line, its place, what was expected, and the nearest right name. Nothing
here imports torch: a mistake in a suite shows at once.
"""

from __future__ import annotations

import codecs
import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from annotated_types import Ge, Gt, Le, MinLen
from pydantic import StringConstraints

from cnnbench.axes import DesignReader
from cnnbench.changes import describe
from cnnbench.datasets import read_datasets
from cnnbench.design import cells
from cnnbench.draft import ARM_SLOTS, RECIPE_DEFAULTS, TOP, Draft, change, change_model, change_recipe, unknown_key
from cnnbench.errors import Problem, SuiteError
from cnnbench.expect import show
from cnnbench.inference import Inference
from cnnbench.locate import dotted, line_of, lines_of
from cnnbench.measuring import read_measure
from cnnbench.needs import check_data, check_sources
from cnnbench.options import options_of
from cnnbench.paths import name_fault
from cnnbench.plain import settings_plain
from cnnbench.reader import Reader
from cnnbench.references import AGAINST, BASELINE, read_references
from cnnbench.registry import nearest
from cnnbench.text import LONGEST_NAME, cut, printable, unsteered
from cnnbench.toml import parse_toml, read_file
from cnnbench.types import Recipe, Settings

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cnnbench.axes import Axis
    from cnnbench.datasets import Dataset, DatasetDraft
    from cnnbench.design import Kind
    from cnnbench.locate import Place
    from cnnbench.registry import Registry
    from cnnbench.types import Measure

MOST_SEEDS = 10_000
DEVICES = ("auto", "cpu", "cuda", "mps", "xla", "tpu")
RESERVED = (BASELINE, "placebo")
"""Names of the arms that every suite has or can ask for."""


@dataclass(frozen=True)
class Arm:
    """One row of the ablation.

    Attributes:
        name: as the table shows it.
        role: the baseline, an arm, or the baseline again with other random streams.
        settings: all that it comes to.
        changes: what differs from the baseline, in words.
        against: name of the arm that this one is compared with; empty for the baseline, which is compared with none.
    """

    name: str
    role: Literal["baseline", "arm", "placebo"]
    settings: Settings
    changes: str
    against: str


@dataclass(frozen=True)
class Design:
    """The design that a suite's arms come from.

    Attributes:
        kind: which one.
        axes: what it varies, in the file's order.
    """

    kind: Kind
    axes: tuple[Axis, ...]

    def plain(self, names: Sequence[str]) -> dict[str, Any]:
        """JSON-ready data: kind, axes with their levels in words, and by arm the index of its level of each axis.

        Args:
            names: the baseline's, then the arms' in the design's order.
        """
        reference, others = cells(self.kind, [len(axis.levels) for axis in self.axes])
        taken = zip(names, [reference, *others], strict=True) if self.axes else ()  # else it leaves out techniques
        return {
            "kind": self.kind,
            "axes": [{"key": axis.key, "levels": [level.text for level in axis.levels]} for axis in self.axes],
            "cells": {name: list(cell) for name, cell in taken},
        }


@dataclass(frozen=True)
class Suite:
    """A validated suite.

    Attributes:
        name: the file's name without its ending.
        file: the path as the user gave it.
        text: the file's text, for publishing beside the results.
        sha256: digest of the file's bytes.
        question: what the suite asks.
        datasets: where it runs, in the file's order; at least one.
        baseline: what all arms start from, on the first dataset.
        arms: the arms but baseline and placebo, in the file's (or the design's) order, on the first dataset.
        design: where the arms come from, if not from a list.
        seeds: distinct, in order.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1`` ...
        placebo: the baseline also runs under other random streams.
        time_limit: seconds that one stage may take; None for no limit.
        measure: what is measured and reported.
        inference: how comparisons are decided.
        plugins: files and modules that its techniques come from beside the installed plugins, as it names them.
        code: their files, by path below the folder that they are imported from; see ``opening``.
    """

    name: str
    file: str
    text: str = field(repr=False)
    sha256: str
    question: str
    datasets: tuple[Dataset, ...]
    baseline: Settings
    arms: tuple[Arm, ...]
    design: Design | None
    seeds: tuple[int, ...]
    device: str
    placebo: bool
    time_limit: float | None
    measure: Measure
    inference: Inference = field(default_factory=Inference)
    plugins: tuple[str, ...] = ()
    code: Mapping[str, bytes] = field(default_factory=dict, repr=False)

    @property
    def content(self) -> bytes:
        """The file's bytes, as ``sha256`` is of them; the text lacks the mark that some editors put first."""
        plain = self.text.encode()
        return plain if hashlib.sha256(plain).hexdigest() == self.sha256 else codecs.BOM_UTF8 + plain


@dataclass(frozen=True)
class Header:
    """The plain values at the top of a suite file.

    Attributes:
        question: what the suite asks; the table's title.
        seeds: a count (seeds 0 to n - 1) or a list of distinct seeds.
        device: ``auto``, ``cpu``, ``cuda``, ``mps``, ``xla`` or ``tpu``; ``cuda:1`` names one of several.
        placebo: run the baseline once more under other random streams, to see the run's own noise.
        time_limit: seconds that one stage of a trial may take.
        plugins: Python files, by their path from here, and modules with techniques of your own; they are imported.
    """

    question: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
    seeds: Annotated[int, Ge(1), Le(MOST_SEEDS)] | Annotated[tuple[Annotated[int, Ge(0)], ...], MinLen(1)] = 3
    device: str = "auto"
    placebo: bool = False
    time_limit: Annotated[float, Gt(0)] | None = None
    plugins: tuple[Annotated[str, StringConstraints(min_length=1)], ...] = ()


def load(file: str | Path, registry: Registry, *, data: bool = False, imports: bool = True) -> Suite:
    """Read and validate a suite file.

    Args:
        file: its path.
        registry: the techniques that it may name, those of its own plugins among them: ``opening`` loads these.
        data: also look for the dataset and for code and files that techniques name, so that what is missing is told
            among the other mistakes.
        imports: the suite may name code to import (``model = { name = "import", ... }``).

    Raises:
        SuiteError: it can't be read, is not TOML, or has mistakes; carries all of them in the order of the file.
    """
    return parse(read_file(file), str(file), registry, data=data, imports=imports)


def parse(content: bytes, file: str, registry: Registry, *, data: bool = False, imports: bool = True) -> Suite:
    """``load`` for bytes already read; ``file`` gives the name and the folder that paths start from."""
    text, raw = parse_toml(content, file)
    reader = Reader(registry, Path(file).absolute().parent, imports=imports)
    if fault := name_fault(Path(file).stem):
        reader.report((), f"the file's name becomes that of the results folder, and {fault}: rename the file")
    suite = _read(raw, reader, file, text, hashlib.sha256(content).hexdigest(), data=data)
    if reader.problems or suite is None:
        raise SuiteError(_located(reader, file, text))
    return suite


def _located(reader: Reader, file: str, text: str) -> list[Problem]:
    lines = lines_of(text)
    problems = [
        Problem(file, line_of(lines, place), printable(dotted(place)), unsteered(message).replace("\n", "\ufffd"))
        for place, message in reader.problems
    ]
    return sorted(problems, key=lambda problem: problem.line)


def _read(raw: Mapping[str, Any], reader: Reader, file: str, text: str, sha256: str, *, data: bool) -> Suite | None:
    for key in raw:
        if key not in TOP:
            reader.report((key,), unknown_key(key, "at the top of a suite", TOP))
    header = _header(raw, reader)
    datasets = read_datasets(raw, reader)
    base = _baseline(raw, datasets, reader)
    if data:
        for one in datasets:
            check_data(one, reader)
    measure = read_measure(raw, reader)
    inference = _inference(raw, reader)
    design = None
    references: dict[str, str] = {}
    if "design" in raw and "arms" in raw:
        reader.report(("design",), "a suite has [arms] or a [design], not both")
        return None
    if "design" in raw:
        found = DesignReader(reader, base, raw).read()
        if found is None:
            return None
        kind, axes, base, drafts = found
        design = Design(kind, tuple(axes))
    else:
        drafts = _arms(raw, base, reader)
        references = read_references(raw.get("arms"), reader)
    if data:
        check_sources(base, drafts, None if design is None else design.axes, raw, reader)
    baseline = base.finish()
    sound = tuple(dataset for one in datasets if (dataset := one.finish()))
    if header is None or baseline is None or measure is None or len(sound) < len(datasets):
        return None
    for one in datasets:
        _check_length("the dataset's label", one.label, one.place, reader)
    arms = _finished(drafts, references, baseline, reader, None if design is None else ("design",))
    seeds = tuple(range(header.seeds)) if isinstance(header.seeds, int) else header.seeds
    return Suite(
        name=Path(file).stem,
        file=file,
        text=text,
        sha256=sha256,
        question=header.question,
        datasets=sound,
        baseline=baseline,
        arms=tuple(arms),
        design=design,
        seeds=seeds,
        device=header.device,
        placebo=header.placebo,
        time_limit=header.time_limit,
        measure=measure,
        inference=inference,
        plugins=header.plugins,
    )


def _header(raw: Mapping[str, Any], reader: Reader) -> Header | None:
    options = options_of(Header)
    before = len(reader.problems)
    values = reader.given(options, {key: raw[key] for key in options if key in raw}, (), "the suite")
    if "question" not in raw:
        reader.report(("question",), 'missing: expected the question that the suite answers, question = "..."')
    device = values.get("device", "auto")
    kind, colon, index = device.partition(":")
    if kind not in DEVICES or (colon and (kind != "cuda" or not index.isdecimal())):
        hint = "did you mean 'cuda'?" if kind.lower() in ("gpu", "nvidia") else nearest(kind, DEVICES)
        hint = f": {hint}" if kind not in DEVICES and hint.startswith("did you mean") else ""
        reader.report(("device",), f"expected one of {', '.join(DEVICES)}, or such as cuda:1, got {device!r}{hint}")
    seeds = values.get("seeds", 1)
    for i, seed in enumerate(seeds if isinstance(seeds, tuple) else ()):
        if seed in seeds[:i]:
            reader.report(("seeds", i), f"seed {seed} is listed twice")
    return Header(**values) if len(reader.problems) == before else None


def _inference(raw: Mapping[str, Any], reader: Reader) -> Inference:
    table = raw.get("statistics", {})
    if not isinstance(table, dict):
        reader.report(("statistics",), f"expected a table, got {show(table)}")
        return Inference()
    return Inference(**reader.given(options_of(Inference), table, ("statistics",), "[statistics]"))


def _baseline(raw: Mapping[str, Any], datasets: Sequence[DatasetDraft], reader: Reader) -> Draft:
    draft = Draft(datasets[0].choice, datasets[0].data) if datasets else Draft()
    design = raw.get("design")
    if "model" in raw:
        value = raw["model"]
        if isinstance(value, dict) and "name" not in value:
            reader.choice("model", value, ("model",))
        else:
            draft = change_model(draft, value, ("model",), reader)
    elif not (isinstance(design, dict) and isinstance(design.get("model"), list)):  # an axis sets it
        reader.report(("model",), 'missing: expected a model, such as model = "resnet"')
    recipe = raw.get("recipe", {})
    defaults = {
        key: value for key, value in RECIPE_DEFAULTS.items() if not (isinstance(recipe, dict) and key in recipe)
    }
    known = {key: option.default for key, option in options_of(Recipe).items() if not option.required}
    draft = Draft(draft.dataset, draft.data, draft.model_table, draft.model, known)
    draft = change_recipe(draft, defaults, ("recipe",), reader)
    draft = change_recipe(draft, recipe, ("recipe",), reader)
    table = raw.get("baseline", {})
    if not isinstance(table, dict):
        reader.report(("baseline",), f"expected a table of techniques by slot, got {show(table)}")
        table = {}
    for key, value in table.items():
        if key in ARM_SLOTS:
            draft = change(draft, key, value, ("baseline", key), reader)
        else:
            reader.report(("baseline", key), unknown_key(key, "in [baseline]", ARM_SLOTS))
    return draft


def _arms(raw: Mapping[str, Any], base: Draft, reader: Reader) -> list[tuple[str, Draft]]:
    table = raw.get("arms", {})
    if not isinstance(table, dict):
        reader.report(("arms",), f"expected a table of arms, got {show(table)}")
        return []
    arms = []
    for name, changes in table.items():
        place = ("arms", name)
        if name.lower() in RESERVED:
            reader.report(place, f"the name {name!r} is taken by an arm that the harness adds itself")
        elif not name.strip() or not name.isprintable():
            reader.report(place, "expected a name that people can read on one line")
        if not isinstance(changes, dict):
            reader.report(place, f'expected a table of changes, such as {{ norm = "batch" }}, got {show(changes)}')
            continue
        if not changes.keys() - {AGAINST}:  # told at once, whatever mistakes the baseline has
            reader.report(place, f"arm {name!r} comes to the same settings as the baseline")
            continue
        before = len(reader.problems)
        draft = base
        for key, value in changes.items():
            if key != AGAINST:
                draft = change(draft, key, value, (*place, key), reader)
        if len(reader.problems) == before:
            arms.append((name, draft))
    return arms


def _check_length(what: str, name: str, place: Place, reader: Reader) -> None:
    """Report a name that would be set aside in records."""
    if len(name) > LONGEST_NAME:
        told = f"{name[:40]}… has {len(name):,} characters"
        reader.report(place, f"{what} {told}, expected at most {LONGEST_NAME:,}")


def _finished(
    drafts: Sequence[tuple[str, Draft]],
    references: Mapping[str, str],
    baseline: Settings,
    reader: Reader,
    place: tuple[str, ...] | None,
) -> list[Arm]:
    """Arms from drafts; one that equals the baseline or another arm is a mistake."""
    arms = []
    seen = {_key(baseline): "the baseline"}
    for name, draft in drafts:
        settings = draft.finish()
        if settings is None:
            continue  # its mistake is told already
        at = place or ("arms", name)
        twin = seen.setdefault(_key(settings), f"arm {name!r}")
        if twin != f"arm {name!r}":
            reader.report(at, f"arm {name!r} comes to the same settings as {twin}")
        _check_length("the arm's name", name, place or ("arms",), reader)
        changes = cut(describe(baseline, settings, reader.registry), LONGEST_NAME)
        arms.append(Arm(name, "arm", settings, changes, references.get(name, BASELINE)))
    return arms


def _key(settings: Settings) -> str:
    return json.dumps(settings_plain(settings), sort_keys=True)
