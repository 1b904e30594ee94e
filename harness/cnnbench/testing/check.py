"""Holds a technique to the rules of the kit."""

from __future__ import annotations

import inspect
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from cnnbench.errors import MissingDependency, words_of
from cnnbench.testing.kit import KIT
from cnnbench.testing.rule import Broken, Inapplicable, Rule
from cnnbench.testing.state import as_found
from cnnbench.testing.subject import Subject
from cnnbench.testing.uses import USES

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cnnbench.registry import Entry, Registry

Status = Literal["kept", "broken", "waived", "not applicable", "not checked"]
FIRST = "usable"
"""The rule without which none of the others can be looked at."""


@dataclass(frozen=True)
class Finding:
    """What became of one rule.

    Attributes:
        rule: which.
        status: ``not checked`` where an optional package is missing, or where the technique can't be used at all.
        text: what happened, or why not; empty where the rule is kept.
    """

    rule: Rule
    status: Status
    text: str = ""

    def __str__(self) -> str:
        if self.status != "broken":
            return f"{self.rule.name}: {self.status}" + (f": {self.text}" if self.text else "")
        return (
            f"{self.rule.name}: broken\n  rule: {self.rule.holds}\n  what happened: {self.text}\n  fix: {self.rule.fix}"
        )


def subject_of(entry: Entry, registry: Registry, folder: Path) -> Subject:
    """A technique as the subject of the kit.

    Args:
        entry: the technique as it is registered.
        registry: all techniques, those that its options may name among them.
        folder: an empty one, for files.
    """
    return Subject(entry, registry, USES[entry.card.slot], folder)


def check(subject: Subject, rules: Sequence[Rule] = KIT) -> Iterator[Finding]:
    """Hold a technique to the rules of its slot, in their order.

    What it changes of its process is put back after each rule.

    Args:
        subject: the technique.
        rules: of the kit.

    Yields:
        What became of each rule that is for its slot.
    """
    stopped = ""
    for rule in rules:
        if subject.slot not in rule.slots:
            continue
        if stopped:
            yield Finding(rule, "not checked", stopped)
            continue
        finding = check_rule(subject, rule)
        if rule.name == FIRST and finding.status in {"broken", "not checked"}:
            stopped = finding.text if finding.status == "not checked" else "it can't be used"
        yield finding


def check_rule(subject: Subject, rule: Rule) -> Finding:
    """Hold a technique to one rule."""
    waived = subject.entry.card.waives.get(rule.name)
    if waived is not None and rule.waivable:
        return Finding(rule, "waived", waived)
    with as_found():
        try:
            rule.check(subject)
        except Inapplicable as reason:
            return Finding(rule, "not applicable", str(reason))
        except MissingDependency as error:
            return Finding(rule, "not checked", str(error))
        except Broken as error:
            return Finding(rule, "broken", str(error))
        except Exception as error:  # noqa: BLE001 - it came out of the technique, whose fault the finding tells
            return Finding(rule, "broken", f"{words_of(error)}{_place(error, subject)}")
    return Finding(rule, "kept")


def _place(error: BaseException, subject: Subject) -> str:
    """The line of the author's own code that an error came through last."""
    try:
        folder = Path(inspect.getfile(subject.entry.cls)).resolve().parent
    except (OSError, TypeError):
        return ""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if Path(f.filename).resolve().is_relative_to(folder)]
    return f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else ""
