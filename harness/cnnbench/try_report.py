"""What ``cnnbench try`` says, section by section."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from cnnbench.failures import failures, indented, trace_text
from cnnbench.numerals import factor, number, rounded
from cnnbench.options import label
from cnnbench.quantities import ratio_beside
from cnnbench.stats.rounds import called_different
from cnnbench.table_formats import terminal
from cnnbench.tables import make_report
from cnnbench.text import listed, printable, wrapped
from cnnbench.try_fit import TRAINED_FIRST

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from cnnbench.module_diff import Change, ModelDiff
    from cnnbench.quantities import Quantity
    from cnnbench.registry import Entry, Registry
    from cnnbench.sheets import Column
    from cnnbench.step_cost import StepCost
    from cnnbench.suite import Suite
    from cnnbench.tables import Table
    from cnnbench.try_fit import Fault
    from cnnbench.types import ImageData

WIDTH = 80
_MOST_PATHS = 6
_MOST_CHANGES = 8
_RESOLUTION = 0.02
"""A step that differs by less is called the same."""


def summary(entry: Entry) -> str:
    """What a technique does, in its own words."""
    return "\n".join(wrapped(printable(f"{entry.card.slot} {entry.card.name}: {entry.summary}"), WIDTH, "  "))


def heading(suite: Suite, data: Mapping[str, ImageData], device: str, registry: Registry) -> str:
    """On what techniques are tried."""
    sizes = []
    for one in suite.datasets:
        channels, height, width = data[one.label].image_shape
        images = one.data.train_size or len(data[one.label].train_labels)
        kind = "gray" if channels == 1 else "colour"
        sizes.append(f"{label(one.choice, registry)} ({images:,} {kind} training images of {height} x {width})")
    recipe = suite.baseline.recipe
    how = f"{recipe.epochs} epochs, {_seeds(len(suite.seeds))}, {device}"
    text = f"tried on {listed(sizes)} with {label(suite.baseline.model, registry)}: {how}"
    return "\n".join(wrapped(text, WIDTH, "  "))


def data_facts(name: str, data: ImageData) -> str:
    """What a dataset holds."""
    channels, height, width = data.image_shape
    counts = torch.bincount(data.train_labels, minlength=data.num_classes)
    values = data.train_images.float().div(255)
    shape = f"{channels} x {height} x {width} (channels, height, width)"
    spread = f"{float(values.mean()):.2f} ± {float(values.std()):.2f}"
    lines = [
        f"{len(data.train_labels):,} training and {len(data.test_labels):,} test images, {shape}",
        f"{data.num_classes} classes: {listed(data.class_names, 10)}",
        f"{int(counts.min()):,} to {int(counts.max()):,} training images a class",
        f"pixel values {spread}, of 0 to 1",
    ]
    return section(f"{name}: the data", lines)


def modules(name: str, entry: Entry, diff: ModelDiff) -> str:
    """What a technique changed in the network."""
    slot = entry.card.slot
    what = "what it makes of a network trained for two steps" if slot in TRAINED_FIRST else "the model's modules"
    title = f"{name}: {what}"
    if slot == "model" or any(change.paths == ("",) for change in diff.changes):
        kinds = [f"{count} {kind}" for kind, count in diff.leaves.most_common()]
        lines = [f"another model: {listed(kinds, 12)}"]
    else:
        lines = [line for change in diff.changes[:_MOST_CHANGES] for line in _change(change)]
        if len(diff.changes) > _MOST_CHANGES:
            lines.append(f"... and {len(diff.changes) - _MOST_CHANGES} kinds of change more")
        if not diff.changes:
            lines.append("none is replaced, put in or taken out")
        if diff.refilled and slot != "strategy":  # which leads to other values, whatever it does
            when = "" if slot == "compressor" else " before training"
            lines.append(f"other values{when} in {diff.refilled} of {diff.filled} parameter tensors that stay")
    before, after = diff.params
    lines.append(f"parameters: {before:,} -> {after:,}" if before != after else f"parameters: {before:,}, as before")
    if slot == "compressor" and diff.zeros[1] > diff.zeros[0]:
        lines.append(f"of them exactly 0: {diff.zeros[0]:,} -> {diff.zeros[1]:,}")
    return section(title, lines)


def _change(change: Change) -> list[str]:
    count = f"{change.count} " if change.count > 1 else ""
    first = ", the first:" if change.count > 1 and change.before != "" else ":"
    lines = [f"{count}{change.kind} ({listed(change.paths, _MOST_PATHS)}){first}"]
    if change.before:
        lines.append(f"- {change.before}")
    if change.after and change.kind != "hooked":
        lines.append(f"+ {change.after}")
    return lines


def table(records: Sequence[Mapping[str, Any]]) -> str:
    """The small table, what did not work, and what the harness remarked."""
    report = make_report(records)
    tables = {"table" if number == 1 else f"table-{number}": one for number, one in enumerate(report.tables, 1)}
    title = {"title": "the table"} if len(tables) == 1 else {}
    sheets = tuple(
        replace(sheet, **title, caption="", notes=(), columns=_columns(sheet.columns, tables[sheet.key]))
        for sheet in report.sheets
        if sheet.key in tables
    )
    lines = [terminal(replace(report, sheets=sheets), WIDTH)]
    unknown = {quantity.label: value for one in report.tables for quantity, value in _unmeasured(one)}
    lines += [f"{label} could not be measured here: {value}" for label, value in unknown.items()]
    skipped = {(record["arm"], record["reason"]) for record in records if record["status"] == "skipped"}
    lines += [f"{arm} is skipped: {printable(str(reason))}" for arm, reason in sorted(skipped)]
    notes = {(record["arm"], note) for record in records for note in record["details"].get("notes", ())}
    lines += ["\n".join(wrapped(f"{arm}: {printable(note)}", WIDTH, "  ")) for arm, note in sorted(notes)]
    if found := failures(records):
        lines.append(trace_text(found))
    return "\n".join(lines)


def _columns(columns: Sequence[Column], table: Table) -> tuple[Column, ...]:
    """Those that say something: no differences from a baseline that stands alone, and no times that are not known."""
    unknown = {quantity.label for quantity, _ in _unmeasured(table)}
    unknown |= {f"ratio {label.removeprefix('latency ')}" for label in unknown}
    alone = len(table.rows) == 1
    return tuple(one for one in columns if one.label not in unknown and not (alone and one.follows))


def _unmeasured(table: Table) -> list[tuple[Quantity, str]]:
    """Latencies whose interval, or that of their ratio, is wider than the value in any arm: a machine that is busy."""
    found = []
    for quantity in table.quantities:
        if (ratio := ratio_beside(quantity)) is None:
            continue
        values = [
            (one.unit, row.measured[one.key].value)
            for row in table.rows
            for one in (quantity, ratio)
            if one.key in row.measured
        ]
        for unit, value in values:
            if value is not None and value.half is not None and 2 * value.half > abs(value.mean):
                found.append((quantity, f"{number(value.mean, 1)} ± {number(value.half, 1)} {unit}"))
                break
    return found


def verdict(records: Sequence[Mapping[str, Any]]) -> str:
    """What the table shows, and what it does not."""
    report = make_report(records)
    first = report.tables[0]
    seeds = len(first.seeds)
    decided = [
        f"{row.arm} is {judgement.verdict} in {first.primary} than the baseline"
        for row in first.rows
        if (judgement := row.measured[first.primary].judgement) and judgement.verdict in {"better", "worse"}
    ]
    signs = "±: 95 % interval over the seeds"
    if len(first.rows) > 1:
        signs += "; Δ: difference from the baseline in the same seeds"
    told = (
        f"on this small task {', '.join(decided)}; whether it helps on yours takes a suite of your own"
        if decided
        else f"{_seeds(seeds)} on a small task: whether it works shows, whether it helps does not"
    )
    return "\n".join([*wrapped(signs, WIDTH), *wrapped(told, WIDTH)])


def _seeds(count: int) -> str:
    return f"{count} seed{'s' * (count > 1)}"


def cost(costs: Mapping[str, StepCost], threads: int, device: str) -> str:
    """What a training step takes."""
    where = f"{threads} thread{'s' * (threads > 1)} of the CPU" if device == "cpu" else device
    rounds = next(iter(costs.values())).ratio.n
    lines = [f"{name}: {step_line(one)}" for name, one in costs.items()]
    return section(f"time of a training step, {where}, {rounds} rounds in turns", lines)


def step_line(one: StepCost) -> str:
    """A step's time without a technique and with it, and the ratio of the two."""
    ratio = one.ratio
    between = f" (95 % interval {factor(ratio.low)} to {factor(ratio.high)})" if ratio.low and ratio.high else ""
    said = called_different(ratio, _RESOLUTION)
    word = "no difference shown" if said == "same" else said
    whole = ", of a whole short training by its steps" if one.whole else ""
    times = f"{rounded(one.reference_ms, 3)} -> {rounded(one.ms, 3)} ms a step{whole}"
    return f"{times}, x {factor(ratio.median)}{between}: {word}"


def compressing(records: Sequence[Mapping[str, Any]]) -> list[str]:
    """How long compressing took, arm by arm."""
    taken: dict[str, list[float]] = {}
    for record in records:
        if "compress" in record["seconds"]:
            taken.setdefault(record["arm"], []).append(record["seconds"]["compress"])
    return [
        f"{arm}: compressing took {number(sorted(times)[len(times) // 2], 1)} s after each training"
        for arm, times in taken.items()
    ]


def fault(one: Fault) -> str:
    """Why a technique is left out."""
    lines = wrapped(f"{one.name} can't be tried: {printable(one.text)}", WIDTH, "  ")
    if one.trace:
        lines.append(indented(one.trace))
    return "\n".join(lines)


def section(title: str, lines: Sequence[str]) -> str:
    """Lines under a title, each wrapped."""
    return "\n".join([title, *(part for line in lines for part in _indented(line))])


def _indented(line: str) -> list[str]:
    return [f"  {part}" for part in wrapped(printable(line), WIDTH - 2, "  ")]
