"""``cnnbench history``: one metric of a suite over the revisions at which it ran."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from cnnbench.commands.common import OK, put, tell
from cnnbench.errors import UsageError
from cnnbench.registry import nearest

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping

    from cnnbench.commands.common import AddCommand

_PICTURES = (".svg", ".png")


def add(command: AddCommand) -> None:
    """What the command asks for."""
    history = command("history", _history, "one metric of a suite over the revisions at which it ran")
    history.add_argument(
        "results", metavar="RESULTS", type=Path, nargs="+", help="folders with records.jsonl, or such files"
    )
    history.add_argument("--metric", metavar="NAME", help="what to show (default: the suite's primary metric)")
    history.add_argument("--arm", action="append", default=[], metavar="ARM", help="only this arm (may be repeated)")
    history.add_argument("--dataset", metavar="LABEL", help="of a suite over several datasets, the one to show")
    history.add_argument("--output", type=Path, metavar="FILE", help="write .svg, .png or .csv instead of printing")


def _history(given: argparse.Namespace) -> int:
    from cnnbench.history import csv_text, history, table

    output: Path | None = given.output
    kind = output.suffix.lower() if output else ""
    if output is not None and kind not in {".csv", *_PICTURES}:
        raise UsageError(f"--output: expected a name that ends in .svg, .png or .csv, got {output.name!r}")
    found = history(_on(_records(given.results), given.dataset), given.metric, given.arm)
    if output is not None and kind in _PICTURES:
        from cnnbench.history_plot import draw

        _write(output, draw(found, kind.removeprefix(".")))
    else:
        put(csv_text(found) if kind else table(found), output)
    return OK


def _records(paths: list[Path]) -> list[Mapping[str, Any]]:
    from cnnbench.history import in_order
    from cnnbench.store import open_results

    files = []
    for path in paths:
        found = open_results(path, every=True)
        for problem in found.problems:
            tell(f"cnnbench: warning: {found.path}: {problem}")
        files.append(found.records)
    return in_order(files)


def _on(records: list[Mapping[str, Any]], dataset: str | None) -> list[Mapping[str, Any]]:
    """The records on one dataset, where they know of several."""
    known = list(dict.fromkeys(record["dataset"] for record in records if record.get("dataset")))
    if dataset is None and len(known) > 1:
        raise UsageError(f"--dataset: these runs have several: expected one of {', '.join(map(repr, known))}")
    if dataset is not None and dataset not in known:
        raise UsageError(f"--dataset: no dataset {dataset!r} in these records: {nearest(dataset, known)}".rstrip(": "))
    return [record for record in records if dataset is None or record.get("dataset") == dataset]


def _write(output: Path, data: bytes) -> None:
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_bytes(data)
    except OSError as error:
        raise UsageError(f"--output: {output} can't be written: {error.strerror}") from error
