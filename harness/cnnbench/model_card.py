"""The model card of an exported network: what it is, what was measured and how, and how to load it."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from cnnbench.columns import text_columns
from cnnbench.frame import by_dataset
from cnnbench.numerals import MISSING
from cnnbench.options import label
from cnnbench.tables import make_table, table_of
from cnnbench.text import escaped, listed
from cnnbench.types import Choice
from cnnbench.verdict_notes import placebo_notes, verdict_notes

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from cnnbench.frame import TrialSet
    from cnnbench.registry import Registry
    from cnnbench.sheets import Column
    from cnnbench.tables import Table

_MOST_CLASSES = 50
_SERVING = frozenset({"latency", "energy", "memory"})
"""Stages whose figures are of the runtime's making."""


@dataclass(frozen=True)
class Check:
    """How an exported file compares with the network that it came from.

    Attributes:
        images: what both were given, in words.
        difference: largest absolute difference of any logit.
        largest: largest absolute value of any logit.
        agreement: share of images with the same most probable class.
        skipped: why there is no comparison; empty where there is one.
    """

    images: str
    difference: float = 0.0
    largest: float = 0.0
    agreement: float = 0.0
    skipped: str = ""

    @property
    def close(self) -> bool:
        """Compared, and nothing but rounding between the two."""
        return not self.skipped and self.agreement >= 0.99 and self.difference <= 0.01 * self.largest

    def __str__(self) -> str:
        if self.skipped:
            return f"not compared with the trained network: {self.skipped}"
        return (
            f"compared with the trained network on {self.images}: largest difference {self.difference:.2g} "
            f"(logits up to {self.largest:.2g}), same class for {100 * self.agreement:.4g} %"
        )


@dataclass(frozen=True)
class Handover:
    """What was exported.

    Attributes:
        record: the trial's.
        form: ``onnx``, ``pt2`` or ``state_dict``.
        file: the network's.
        size: its bytes.
        image_shape: channels, height, width.
        class_names: in label order.
        remark: what a simulated format says of itself; else empty.
        rebuilds: a state dict that goes into the network which its settings make.
        check: of the file.
    """

    record: Mapping[str, Any]
    form: str
    file: Path
    size: int
    image_shape: Sequence[int]
    class_names: Sequence[str]
    remark: str
    rebuilds: bool
    check: Check


def card(what: Handover, records: Sequence[Mapping[str, Any]], registry: Registry) -> str:
    """The card in Markdown, with front matter as model hubs read it.

    Args:
        what: the export.
        records: of the latest run, in the order of the file.
        registry: where techniques come from.
    """
    record = what.record
    suite = record.get("suite") or {}
    title = f"{suite.get('name') or 'results'}: {record['arm']}, seed {record['seed']}"
    parts = [
        "\n".join(_front_matter(what)),
        f"# {escaped(title)}",
        " ".join(_introduction(what)),
        "## The network\n\n" + "\n".join(_network(what, registry)),
        f"## Loading it\n\n```python\n{snippet(what)}\n```",
        "## Results\n\n" + "\n".join(_results(what, records)),
        "## Use and limits\n\n" + "\n".join(_limits(what)),
        "## Making it again\n\n" + "\n".join(_again(what)),
    ]
    return "\n\n".join(parts) + "\n"


def snippet(what: Handover) -> str:
    """Python that loads the file and calls it; it runs in the file's folder."""
    shape = ", ".join(map(str, what.image_shape))
    if what.form == "onnx":
        return (
            "import numpy as np\nimport onnxruntime\n\n"
            'session = onnxruntime.InferenceSession("model.onnx", providers=["CPUExecutionProvider"])\n'
            f"images = np.zeros((2, {shape}), dtype=np.float32)  # yours, values 0 to 1\n"
            '(logits,) = session.run(["logits"], {"images": images})'
        )
    images = f"images = torch.zeros(2, {shape})  # yours, values 0 to 1\nlogits = network(images)"
    if what.form == "pt2":
        return f'import torch\n\nnetwork = torch.export.load("model.pt2").module()\n{images}'
    if what.rebuilds:
        return (
            "import torch\nfrom cnnbench.export import rebuild\n\n"
            f'network = rebuild("settings.json", "model.pt")\n{images}'
        )
    return (
        'import torch\n\nstate = torch.load("model.pt", weights_only=True)\n'
        "print({name: tuple(tensor.shape) for name, tensor in state.items()})"
    )


def _front_matter(what: Handover) -> Iterator[str]:
    """YAML; JSON's strings are YAML's too."""
    yield "---"
    yield f"library_name: {'onnx' if what.form == 'onnx' else 'pytorch'}"
    yield "pipeline_tag: image-classification"
    yield f"datasets: [{json.dumps(what.record['settings']['dataset']['name'])}]"
    yield "metrics: [accuracy, f1]"
    yield "tags: [cnnbench, image-classification]"
    yield "---"


def _introduction(what: Handover) -> Iterator[str]:
    record, suite = what.record, what.record.get("suite") or {}
    yield f"A network for image classification from the comparison *{escaped(str(suite.get('question') or ''))}*"
    if record.get("role") == "baseline":
        yield "It is the comparison's baseline."
    elif record.get("role") == "placebo":
        yield "It is the comparison's placebo: its baseline under other random numbers."
    else:
        changes = str(record.get("changes") or "")
        yield f"It is the arm *{escaped(record['arm'])}*" + (
            f", which changes of the baseline: {escaped(changes)}." if changes else "."
        )
    yield (
        f"Of the run's seeds this is seed {record['seed']}. It was not picked by its score on the test split: unless "
        "asked for another, the export takes the first seed whose trial is ok."
    )


def _network(what: Handover, registry: Registry) -> Iterator[str]:
    settings = what.record["settings"]
    channels, height, width = what.image_shape
    yield f"- **Architecture**: {_named(settings['model'], registry)}"
    for slot, choices in settings["techniques"].items():
        if choices:
            yield f"- **Technique, {slot}**: {', '.join(_named(choice, registry) for choice in choices)}"
    budget = escaped(str(what.record.get("budget") or ""))
    yield f"- **Training**: {budget}, dataset {_named(settings['dataset'], registry)}"
    yield (
        f"- **Input**: `images`, float32 [N, {channels}, {height}, {width}], "
        f"{'gray' if channels == 1 else 'RGB'}, pixel values divided by 255 and nothing else: the input normalization "
        "is part of the network. N is free."
    )
    count = len(what.class_names)
    names = listed(map(escaped, what.class_names), _MOST_CLASSES)
    more = " (all in settings.json)" if count > _MOST_CLASSES else ""
    yield f"- **Output**: `logits`, [N, {count}], before softmax; classes in order: {names}{more}"
    yield f"- **File**: `{what.file.name}`, {what.size / 1024:.1f} KiB; {escaped(str(what.check))}."
    if what.remark:
        yield f"- **Number format**: {escaped(what.remark)}. The file holds floating point, at its full size."
    if runtime := _runtime(what.record):
        yield (
            f"- **Runtime**: the run served the network by {runtime}. The file holds the network itself, not what the "
            "runtime made of it."
        )
    if what.form == "state_dict":
        yield f"- **Weights**: {_weights(what)}"


def _weights(what: Handover) -> str:
    if what.rebuilds:
        return (
            "the file holds tensors alone, those of the input normalization included. `cnnbench.export.rebuild` makes "
            "the layers from `settings.json`."
        )
    return (
        "the file holds tensors alone, and training or compression left other layers than the settings make. The "
        "formats `onnx` and `pt2` carry the layers too."
    )


def _results(what: Handover, records: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Figures over seeds with their intervals, this seed's own, and the notes of the table about these two arms.

    Verdicts are those of the whole run: among two arms alone they would be corrected for fewer comparisons than were
    made. What was taken of a runtime stands apart: the file is the network that it was given, and not what it served.
    """
    trials = by_dataset(records)[str(what.record.get("dataset") or "")]
    table = table_of(trials)
    place = next(i for i, row in enumerate(table.rows) if row.arm == what.record["arm"])
    own = {column.label: _cell(column, 0) for column in text_columns(make_table([{**what.record, "planned": None}]))}
    columns = text_columns(table)[2:]  # after name and ok
    lines = {
        c.label: f"| {escaped(c.label)} | {escaped(_cell(c, place))} | {escaped(own.get(c.label, ''))} |"
        for c in columns
        if _cell(c, place)
    }
    runtime = _runtime(what.record)
    labels = {label for q in table.quantities if q.stage in _SERVING for label in (q.label, f"Δ {q.label}")}
    served = [line for label, line in lines.items() if runtime and label in labels]
    row = table.rows[place]
    heads = [f"{row.ok} of {row.planned} seeds | seed {what.record['seed']} |", "| --- | ---: | ---: |"]
    yield from (f"| metric | {heads[0]}", heads[1])
    yield from (line for line in lines.values() if line not in served)
    yield ""
    if served:
        yield f"As served by {runtime}, **which is not this file**:"
        yield ""
        yield from (f"| served by {runtime} | {heads[0]}", heads[1], *served)
        yield ""
    yield "Quality is that of the test split, on which nothing was chosen."
    yield ""
    yield from (f"- {escaped(note)}" for note in (*_notes(what, trials, table), *_timing(what.record)))


def _notes(what: Handover, trials: TrialSet, table: Table) -> Iterator[str]:
    """The notes of a table of the arm and the baseline alone; on verdicts those of the whole run's."""
    arms = tuple(arm for arm in trials.arms if arm in {trials.baseline, what.record["arm"]})
    few = replace(trials, arms=arms, records={key: r for key, r in trials.records.items() if key[0] in arms})
    part = table_of(few)
    yield from verdict_notes(trials, table)
    yield from placebo_notes(table)
    left = {*verdict_notes(few, part), *placebo_notes(part)}
    yield from (note for note in part.notes if note not in left)


def _runtime(record: Mapping[str, Any]) -> str:
    """Name of the runtime that the run served the network by; empty where there was none."""
    choices = record["settings"]["techniques"].get("runtime") or ()
    return escaped(listed(choice["name"] for choice in choices))


def _cell(column: Column, place: int) -> str:
    """A cell with its unit behind the number and before any mark; empty where there is no value."""
    text = column.cells[place].text
    number = re.match(r"[^A-Za-z(▲▼≈‡]*", text)
    if text in {"", MISSING} or number is None:
        return ""
    return " ".join(filter(None, (number[0].strip(), column.unit, text[number.end() :])))


def _timing(record: Mapping[str, Any]) -> Iterator[str]:
    """How many calls latency was taken from, by batch size."""
    for size, found in ((record.get("details") or {}).get("latency") or {}).items():
        threads = f", {found['threads']} threads" if found.get("threads") else ""
        yield f"Latency at batch {size}, seed {record['seed']}: median of {len(found['samples_ms'])} samples{threads}."


def _limits(what: Handover) -> Iterator[str]:
    dataset = what.record["settings"]["dataset"]["name"]
    yield (
        "- Made to compare techniques under one fixed training budget. It was not tuned to be the best network for its "
        "task."
    )
    yield f"- Its figures hold for the test split of {escaped(dataset)}. Other images may give other ones."
    yield "- Every image gets one of the classes above, whatever it shows."
    yield "- Latency and energy hold on the machine named above alone. A value marked est. was not measured."
    yield "- Nothing was looked at beyond the metrics above: not robustness, for one."
    yield "- The dataset's licence and that of pretrained weights, where the settings name some, go on to apply."


def _again(what: Handover) -> Iterator[str]:
    record, suite = what.record, what.record.get("suite") or {}
    environment = record.get("environment") or {}
    file = str(suite.get("file") or "suite.toml")
    run = ["cnnbench", "run", file, "--only", str(record["arm"])]
    export = ["cnnbench", "export", f"results/{suite.get('name') or 'suite'}", "--arm", str(record["arm"])]
    export += ["--seed", str(record["seed"]), "--format", what.form]
    yield f"```sh\n{shlex.join(run)}\n{shlex.join(export)}\n```"
    yield ""
    yield f"- **Suite**: {escaped(file)}, sha256 {suite.get('sha256') or 'unknown'}"
    facts = [
        f"{name} {environment[name]}" for name in ("cnnbench", "torch", "torchvision", "python") if name in environment
    ]
    if environment.get("revision"):
        facts.append(f"git revision {environment['revision']}")
    yield f"- **Versions**: {escaped(listed(facts))}"
    yield "- **Settings**: every option of every technique is in `settings.json`."


def _named(choice: Mapping[str, Any], registry: Registry) -> str:
    return escaped(label(Choice.from_plain(choice), registry))
