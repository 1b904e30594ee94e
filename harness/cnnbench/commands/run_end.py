"""What ``cnnbench run`` says below the table: which trials failed or were left out, and the commands that run them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cnnbench.calls import AUTO
from cnnbench.failures import FINE, failure_lines, failures
from cnnbench.references import BASELINE
from cnnbench.time_budget import trials_text

if TYPE_CHECKING:
    import argparse
    from pathlib import Path

    from cnnbench.runner import RunSummary
    from cnnbench.suite import Suite

KEPT = ("device", "executor", "address", "workers", "results", "cache", "tracker", "no_import")
"""Options that a command which goes on has to repeat."""
DROPPED = ("fresh", "quiet", "time_budget")
"""Those that it must not."""


def ends(summary: RunSummary, again: list[list[str]], results: str) -> list[str]:
    """Lines for people; none where every trial is ok.

    Args:
        summary: of the run.
        again: words of the commands that run the failed trials again.
        results: the folder with the records.
    """
    lines = failure_lines(failures(summary.records), again, results)
    if summary.left_out:
        lines.append(
            f"left out by --time-budget: {trials_text(summary.left_out)}; the same command goes on with them, "
            "without it to the end"
        )
    return lines


def again(given: argparse.Namespace, path: Path, suite: Suite, summary: RunSummary) -> list[list[str]]:
    """Words of the commands that run the failed trials again, and no others.

    Trials that are ok don't run again. So this is the command itself, unless trials are left that it would run too:
    then arms and seeds are named.

    Args:
        given: the command line.
        path: the suite's file.
        suite: as it was run.
        summary: of the run.
    """
    words = ["cnnbench", "run", str(path)]
    kept = [word for name in KEPT for word in _words(name, getattr(given, name, None), given.parser.get_default(name))]
    if not summary.left_out or given.seeds == AUTO:
        only = [word for name in given.only for word in ("--only", name)]
        return [[*words, *_seeds(given), *only, *kept]]
    failed = [record for record in summary.records if record["status"] not in FINE]
    arms = dict.fromkeys(record["arm"] for record in failed if record["arm"] != BASELINE)
    if len(arms) == 0:
        arms = {BASELINE: None}
    only = [word for name in arms for word in ("--only", name)]
    wanted = sorted({record["seed"] for record in failed})
    return [[*words, "--seeds", f"{first}-{last}", *only, *kept] for first, last in _ranges(wanted, suite.seeds)]


def _seeds(given: argparse.Namespace) -> list[str]:
    """The seeds as they were given."""
    if given.seeds is None:
        return []
    if isinstance(given.seeds, tuple):
        return ["--seeds", f"{given.seeds[0]}-{given.seeds[-1]}"]
    return ["--seeds", str(given.seeds)]


def _words(name: str, value: object, default: object) -> list[str]:
    """An option with its value as it stands on a command line; nothing where it was not given."""
    option = f"--{name.replace('_', '-')}"
    if value is None or value == default:
        return []
    if value is True:
        return [option]
    values = value if isinstance(value, list) else [value]
    return [word for one in values for word in (option, str(one))]


def _ranges(wanted: list[int], known: tuple[int, ...]) -> list[tuple[int, int]]:
    """Ranges that hold all wanted seeds and no seed that the suite has not."""
    found: list[tuple[int, int]] = []
    for seed in wanted:
        if found and all(between in known for between in range(found[-1][1], seed)):
            found[-1] = (found[-1][0], seed)
        else:
            found.append((seed, seed))
    return found
