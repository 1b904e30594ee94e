"""What failed in a run: which arms, why, under which seeds, and the command that runs just those trials again."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cnnbench.text import printable, seeds_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

FINE = ("ok", "skipped")
"""How a trial ends that nobody has to look at."""


@dataclass(frozen=True)
class Failure:
    """Trials of one arm that failed for one reason.

    Attributes:
        arm: for people, with its dataset where there are several.
        status: how they ended.
        reason: of the first of them; others may have other numbers in theirs.
        trace: of the first of them that has one.
        seeds: all of theirs.
    """

    arm: str
    status: str
    reason: str
    trace: str | None
    seeds: tuple[int, ...]


def failures(records: Iterable[Mapping[str, Any]]) -> list[Failure]:
    """The failed trials of a run, grouped by arm and reason; reasons count as one where only numbers tell them apart.

    Args:
        records: of one run.
    """
    every = list(records)
    several = len({record.get("dataset") for record in every}) > 1
    groups: dict[tuple[str, str, str], list[Mapping[str, Any]]] = {}
    for record in every:
        if record["status"] not in FINE:
            arm = f"{record.get('dataset')}, {record['arm']}" if several else str(record["arm"])
            reason = re.sub(r"\d+", "#", str(record.get("reason") or ""))
            groups.setdefault((arm, record["status"], reason), []).append(record)
    return [
        Failure(
            printable(arm),
            status,
            printable(str(found[0].get("reason") or "")),
            next((record["trace"] for record in found if record.get("trace")), None),
            tuple(record["seed"] for record in found),
        )
        for (arm, status, _), found in groups.items()
    ]


def failure_lines(found: Sequence[Failure], again: Sequence[Sequence[str]], results: str) -> list[str]:
    """The summary of failures that ends a run; nothing where there are none.

    Args:
        found: what failed.
        again: the words of each command that runs those trials again.
        results: the folder with their records.
    """
    if not found:
        return []
    count = sum(len(failure.seeds) for failure in found)
    lines = [f"{count} trial{'s' * (count != 1)} failed:"]
    lines += [f"  {_heading(failure)}" for failure in found]
    if any(failure.trace for failure in found):
        lines.append(f"where in the code: {shlex.join(['cnnbench', 'report', results, '--traces'])}")
    commands = "; ".join(map(shlex.join, again))
    return [*lines, f"run just {'these' if count != 1 else 'this'} again: {commands}"]


def trace_text(found: Sequence[Failure]) -> str:
    """Every failure with its trace, one for each arm and reason."""
    if not found:
        return "no trial failed"
    return "\n\n".join(f"{_heading(one)}\n{_trace(one)}" for one in found)


def _heading(failure: Failure) -> str:
    why = f": {failure.reason}" if failure.reason else ""
    return f"{failure.arm}, {seeds_text(failure.seeds)}: {failure.status}{why}"


def _trace(failure: Failure) -> str:
    """A trace, or why there is none."""
    if not failure.trace:
        return "  no trace: it did not end by an error in Python code, or the reason says it all"
    return indented(failure.trace)


def indented(trace: str) -> str:
    """A trace with two spaces more before each line; text of others, which must not steer a terminal."""
    return "\n".join("  " + " " * (len(line) - len(line.lstrip(" "))) + printable(line) for line in trace.splitlines())
