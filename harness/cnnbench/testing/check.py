"""Holds a technique to the rules of the kit."""

from __future__ import annotations

import inspect
import traceback
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from cnnbench.errors import CnnbenchError, MissingDependency, words_of
from cnnbench.testing.finding import Finding
from cnnbench.testing.kit import KIT
from cnnbench.testing.rule import Broken, Inapplicable, NotChecked, Rule
from cnnbench.testing.state import as_found
from cnnbench.testing.subject import Subject
from cnnbench.testing.uses import USES

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from typing import Any

    from cnnbench.registry import Entry, Registry


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

    def of(self, rule: Rule) -> Finding:
        """What becomes of one rule; looked at once."""
        if rule.name not in self._found:
            self._found[rule.name] = self._closed(rule) or check_rule(self.subject, rule)
        return self._found[rule.name]

    def _closed(self, rule: Rule) -> Finding | None:
        """Why a rule can't be looked at: one before it is broken."""
        for gate in KIT[: KIT.index(rule)] if rule in KIT else ():
            if gate.gate and self.subject.slot in gate.slots:
                found = self.of(gate)
                if found.status in {"broken", "not checked"}:
                    text = found.text if found.status == "not checked" else f"the rule {gate.name!r} is broken"
                    return Finding(rule, self.subject.name, "not checked", text)
        return None


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
        try:
            rule.check(subject)
        except Inapplicable as reason:
            return Finding(rule, subject.name, "not applicable", str(reason))
        except (NotChecked, MissingDependency) as reason:
            return Finding(rule, subject.name, "not checked", str(reason))
        except Broken as error:
            return Finding(rule, subject.name, "broken", str(error), _place(error.__cause__, subject))
        except CnnbenchError as error:
            return Finding(rule, subject.name, "broken", words_of(error), _place(error, subject))
        except Exception as error:  # noqa: BLE001 - it came out of the technique, whose fault the finding tells
            trace = "".join(traceback.format_exception(error))
            return Finding(rule, subject.name, "broken", words_of(error), _place(error, subject), trace)
    return Finding(rule, subject.name, "kept")


def _place(error: BaseException | None, subject: Subject) -> str:
    """The line of the author's own code that an error came through last, else the class's."""
    cls = subject.entry.cls
    try:
        file = Path(inspect.getfile(cls)).resolve()
        line = inspect.getsourcelines(cls)[1]
    except (OSError, TypeError):  # made in an interactive session
        return ""
    frames = traceback.extract_tb(error.__traceback__) if error is not None else []
    own = [frame for frame in frames if Path(frame.filename).resolve().is_relative_to(file.parent)]
    path, line = (Path(own[-1].filename).resolve(), own[-1].lineno or line) if own else (file, line)
    return f"{path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path}:{line}"
