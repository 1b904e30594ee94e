"""``cnnbench compare``: two runs of a suite against each other."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from cnnbench.commands.common import OK, REGRESSION, put, tell
from cnnbench.errors import UsageError

if TYPE_CHECKING:
    import argparse

    from cnnbench.commands.common import AddCommand
    from cnnbench.frame import TrialSet


def add(command: AddCommand) -> None:
    """What the command asks for."""
    compare = command("compare", _compare, "two runs of a suite: what regressed (exit code 3), what improved")
    compare.add_argument(
        "before", metavar="BEFORE", type=Path, help="results to compare with: a folder or records.jsonl"
    )
    compare.add_argument("after", metavar="AFTER", type=Path, help="results in question")
    compare.add_argument("--dataset", metavar="LABEL", help="of runs on several datasets, the one to compare on")
    compare.add_argument(
        "--fail-on",
        action="append",
        default=[],
        metavar="METRIC:TOLERANCE",
        help="let these alone decide, e.g. accuracy:0.5pp,latency:10%% (may be repeated)",
    )
    compare.add_argument("--format", default="terminal", metavar="NAME", help="terminal, markdown or json")
    compare.add_argument("--output", type=Path, metavar="FILE", help="write there instead of printing")


def _compare(given: argparse.Namespace) -> int:
    from cnnbench.compare import compare, metrics_of
    from cnnbench.compare_formats import FORMATS
    from cnnbench.registry import nearest
    from cnnbench.tolerances import DEFAULTS, parse_tolerances

    if given.format not in FORMATS:
        raise UsageError(f"--format: unknown format {given.format!r}: {nearest(given.format, FORMATS)}")
    before, after = _read(given.before, given.dataset), _read(given.after, given.dataset)
    tolerances = parse_tolerances(given.fail_on, metrics_of(before, after)) if given.fail_on else DEFAULTS
    result = compare(before, after, tolerances)
    put(FORMATS[given.format](result, (str(given.before), str(given.after))), given.output)
    return REGRESSION if result.regressions else OK


def _read(path: Path, dataset: str | None) -> TrialSet:
    from cnnbench.frame import on_dataset
    from cnnbench.store import open_results

    found = open_results(path)
    for problem in found.problems:
        tell(f"cnnbench: warning: {found.path}: {problem}")
    return on_dataset(found.records, dataset)
