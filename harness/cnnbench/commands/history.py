"""``cnnbench history``: one metric of a suite over the revisions at which it ran."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cnnbench.commands.common import OK, put
from cnnbench.errors import MissingDependency, UsageError

if TYPE_CHECKING:
    import argparse

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
    history.add_argument("--output", type=Path, metavar="FILE", help="write .svg, .png or .csv instead of printing")


def _history(given: argparse.Namespace) -> int:
    from cnnbench.history import csv_text, history, table

    output: Path | None = given.output
    kind = output.suffix.lower() if output else ""
    if output is not None and kind not in {".csv", *_PICTURES}:
        raise UsageError(f"--output: expected a name that ends in .svg, .png or .csv, got {output.name!r}")
    if kind in _PICTURES and find_spec("matplotlib") is None:
        raise UsageError(f"--output: a plot {MissingDependency('matplotlib', 'plot')}; .csv needs nothing more")
    found = history(_records(given.results), given.metric, given.arm)
    if output is not None and kind in _PICTURES:
        from cnnbench.history_plot import draw

        _write(output, draw(found, kind.removeprefix(".")))
    else:
        put(csv_text(found) if kind else table(found), output)
    return OK


def _records(paths: list[Path]) -> list[dict[str, Any]]:
    from cnnbench.store import open_results

    records: list[dict[str, Any]] = []
    for path in paths:
        found = open_results(path, every=True)
        for problem in found.problems:
            print(f"cnnbench: warning: {found.path}: {problem}", file=sys.stderr)
        records += found.records
    return records


def _write(output: Path, data: bytes) -> None:
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_bytes(data)
    except OSError as error:
        raise UsageError(f"--output: {output} can't be written: {error.strerror}") from error
