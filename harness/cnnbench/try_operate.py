"""Tries what does not change a network: a reporter, an executor, a tracker, each on one small run."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from cnnbench.errors import words_of
from cnnbench.options import make
from cnnbench.progress import QuietProgress
from cnnbench.runner import RunOptions, run_suite
from cnnbench.suite import parse
from cnnbench.text import duration, printable
from cnnbench.tracking import tracked
from cnnbench.try_fit import Fault, example_of, trace_of
from cnnbench.try_report import fault, section
from cnnbench.try_suite import BASES, suite_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from cnnbench.plugins import PluginHost
    from cnnbench.registry import Entry
    from cnnbench.runner import RunSummary
    from cnnbench.suite import Suite
    from cnnbench.try_fit import Fitter

OPERATING = ("reporter", "executor", "tracker")
_MOST_LINES = 15


def operate(
    entries: Sequence[Entry], host: PluginHost, fitter: Fitter, folder: Path, say: Callable[[str], None]
) -> bool:
    """Use each on a run of one training of two epochs.

    Args:
        entries: techniques of the slots of ``OPERATING``.
        host: with their plugins.
        fitter: knows the suite's place.
        folder: for results, empty.
        say: takes a section on each.

    Returns:
        Whether all did what they are for.
    """
    base = replace(BASES[0].suited([]), datasets=({"name": "digits", "train_size": 300, "test_size": 100},))
    text = suite_of([], base, plugins=(), seeds=1, device="cpu", epochs=2)
    suite = parse(text.encode(), str(fitter.file), host.registry)
    fine = True
    for number, entry in enumerate(entries):
        fine &= _one(entry, host, suite, folder / str(number), say)
    return fine


def _one(entry: Entry, host: PluginHost, suite: Suite, results: Path, say: Callable[[str], None]) -> bool:
    slot, name = entry.card.slot, entry.card.name
    known = len(host.problems)

    def run(executor: str = "inline") -> RunSummary:
        options = RunOptions(results, results.with_name(f"{results.name}-cache"), executor, workers=1)
        return run_suite(suite, host, options, QuietProgress())

    lines: list[str] = []
    try:
        if slot == "executor":
            summary = run(name)
            lines = [f"ran a trial of {len(summary.records[0]['seconds'])} stages: {_ended(summary)}"]
            fine = summary.clean
        elif slot == "tracker":
            with tracked(host, [name], suite, results):
                run()
            lines = ["was told of a run from its plan to its end", *_left_in(results)]
            fine = True
        else:
            document = make(example_of(entry, host.registry), host.registry)(list(run().records))
            fine = isinstance(document, str)
            lines = _rendered(document) if fine else [f"expected text, got {type(document).__name__}"]
    except Exception as error:  # noqa: BLE001 - it came out of the technique, and is the answer
        say(fault(Fault(name, words_of(error), trace_of(error))))
        return False
    wrong = [str(problem) for problem in host.problems[known:]]
    say(section(f"{slot} {name} on a run of one training", [*lines, *wrong]))
    return fine and not wrong


def _left_in(results: Path) -> list[str]:
    """What lies beside the records."""
    files = sorted(path.relative_to(results).as_posix() for path in results.rglob("*") if path.is_file())
    others = [path for path in files if not path.endswith((".jsonl", ".json", ".toml", ".lock"))]
    return [f"left beside the records: {path}" for path in others[:_MOST_LINES]]


def _ended(summary: RunSummary) -> str:
    ends = ", ".join(f"{count} {status}" for status, count in summary.statuses.items())
    reasons = [printable(str(record["reason"])) for record in summary.records if record.get("reason")]
    return ": ".join([f"{ends} in {duration(summary.seconds)}", *reasons[:1]])


def _rendered(document: str) -> list[str]:
    """The beginning of what a reporter made."""
    lines = document.splitlines()
    more = [f"... {len(lines)} lines in all"] if len(lines) > _MOST_LINES else []
    return [*map(printable, lines[:_MOST_LINES]), *more]
