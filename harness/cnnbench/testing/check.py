"""Holds a technique to the rules of the kit."""

from __future__ import annotations

import re
import traceback
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch

from cnnbench.errors import CnnbenchError, MissingDependency, words_of
from cnnbench.slots import REGULARIZER_METHODS
from cnnbench.testing.finding import Finding
from cnnbench.testing.kit import KIT
from cnnbench.testing.place import line_of_error, line_of_method
from cnnbench.testing.rule import Broken, Inapplicable, NotChecked, Rule
from cnnbench.testing.state import as_found
from cnnbench.testing.subject import Subject
from cnnbench.testing.uses import USES

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path
    from typing import Any

    from cnnbench.registry import Entry, Registry

_MEND = "mend the error; where the technique can't be used so at all, raise Unsupported with a reason"


def subject_of(entry: Entry, registry: Registry, folder: Path, options: Mapping[str, Any] | None = None) -> Subject:
    """A technique as the subject of the kit.

    Args:
        entry: the technique as it is registered.
        registry: all techniques, those that its options may name among them.
        folder: an empty one, for files.
        options: over those of its ``example``, such as paths of files that lie here.
    """
    return Subject(entry, registry, USES[entry.card.slot], folder, options or {})


def check(subject: Subject, rules: Sequence[Rule] = KIT) -> Iterator[Finding]:
    """Hold a technique to the rules of its slot, in their order.

    What it changes of its process is put back after each rule.

    Args:
        subject: the technique.
        rules: of the kit; those that the others need are looked at all the same.

    Yields:
        What became of each rule that is for its slot.
    """
    inspection = Inspection(subject)
    for rule in rules:
        if subject.slot in rule.slots:
            yield inspection.of(rule)


@dataclass(frozen=True)
class Inspection:
    """A technique held to rules one by one, in any order.

    Attributes:
        subject: the technique.
    """

    subject: Subject
    _found: dict[str, Finding] = field(default_factory=dict, init=False, repr=False, compare=False)
    _told: dict[str, str] = field(default_factory=dict, init=False, repr=False, compare=False)

    def of(self, rule: Rule) -> Finding:
        """What becomes of one rule; looked at once."""
        if rule.name not in self._found:
            self._found[rule.name] = self._closed(rule) or self._once(check_rule(self.subject, rule))
        return self._found[rule.name]

    def _closed(self, rule: Rule) -> Finding | None:
        """Why a rule can't be looked at: one before it is broken."""
        for gate in KIT[: KIT.index(rule)] if rule in KIT else ():
            if (gate.gate or gate.name in rule.needs) and self.subject.slot in gate.slots:
                found = self.of(gate)
                if found.status in {"broken", "not checked"}:
                    text = found.text if found.status == "not checked" else f"the rule {gate.name!r} is broken"
                    return Finding(rule, self.subject.name, "not checked", text)
        return None

    def _once(self, finding: Finding) -> Finding:
        """The same, unless it comes from an error of the technique that another rule told of before."""
        first = self._told.setdefault(finding.error, finding.rule.name) if finding.error else finding.rule.name
        if first == finding.rule.name:
            return finding
        return Finding(
            finding.rule, self.subject.name, "not checked", f"it ends with the error that the rule {first!r} tells of"
        )


def check_rule(subject: Subject, rule: Rule) -> Finding:
    """Hold a technique to one rule."""
    card = subject.entry.card
    missing = next((one for one in card.requires if not one.installed), None)
    if missing is not None:
        error = MissingDependency(missing.module, missing.extra, missing.distribution)
        return Finding(rule, subject.name, "not checked", str(error))
    waived = card.waives.get(rule.name)
    if waived is not None and rule.waivable:
        return Finding(rule, subject.name, "waived", waived)
    with as_found():
        # As the harness trains a trial. With more, torch 2.15 crashes on the CPU in the backward pass of a 1 x 1
        # convolution with a stride in channels-last layout.
        torch.set_num_threads(1)
        try:
            rule.check(subject)
        except Inapplicable as reason:
            return Finding(rule, subject.name, "not applicable", str(reason))
        except (NotChecked, MissingDependency) as reason:
            return Finding(rule, subject.name, "not checked", str(reason))
        except Exception as error:  # noqa: BLE001 - it came out of the technique, whose fault the finding tells
            return _broken(subject, rule, error)
    return Finding(rule, subject.name, "kept")


def _broken(subject: Subject, rule: Rule, error: Exception) -> Finding:
    """What an error tells that a rule's check ended with."""
    cls = subject.entry.cls
    told, deliberate = isinstance(error, Broken), isinstance(error, CnnbenchError)
    source = error.__cause__ if told else error
    line = line_of_error(source, cls)
    return Finding(
        rule,
        subject.name,
        "broken",
        str(error) if told else words_of(error),
        line or line_of_method(_method(rule, cls), cls),
        "" if told or deliberate else "".join(traceback.format_exception(error)),
        error.fix if isinstance(error, Broken) else "" if deliberate else _MEND,
        f"{_kind(source)} at {line}" if line and source is not None and not isinstance(source, CnnbenchError) else "",
    )


def _method(rule: Rule, cls: type[Any]) -> str:
    """The method that a rule is about; of a regularizer, which has others, the one that it has."""
    own = [name for name in REGULARIZER_METHODS if hasattr(cls, name)]
    calls = any("__call__" in vars(base) for base in cls.__mro__)  # every class has its own type's
    return own[0] if rule.at == "__call__" and not calls and len(own) == 1 else rule.at


def _kind(error: BaseException) -> str:
    """Type and text, without the names and numbers in which the same mistake differs from use to use."""
    return re.sub(r"'[^']*'|\d+", "...", words_of(error))
