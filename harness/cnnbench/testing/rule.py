"""A rule of the conformance kit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cnnbench.slots import SLOTS

if TYPE_CHECKING:
    from collections.abc import Callable

    from cnnbench.testing.subject import Subject

EVERY_SLOT = frozenset(SLOTS)


class Broken(Exception):  # noqa: N818 - reads as what happened
    """A technique breaks a rule; the text says what happened.

    Attributes:
        fix: how this is mended, where what the rule says would not fit.
    """

    def __init__(self, text: str, fix: str = "") -> None:
        super().__init__(text)
        self.fix = fix


class Inapplicable(Exception):  # noqa: N818
    """A rule has nothing to hold this technique to; the text says why."""


class NotChecked(Exception):  # noqa: N818
    """A rule can't be looked at here, through no fault of the technique; the text says what is missing."""


@dataclass(frozen=True)
class Rule:
    """What must hold for every technique of some slots.

    Attributes:
        name: as ``waives`` and ``--rule`` name it: lower-case words with hyphens.
        holds: what must hold, as a sentence without its stop.
        fix: how a technique that breaks it is usually mended.
        check: returns where the technique keeps it, else raises ``Broken`` or ``Inapplicable``. Whatever else it
            raises came out of the technique, and breaks the rule too.
        slots: where it applies.
        waivable: a technique may waive it, with a reason.
        gate: where it is broken, none of the rules after it can be looked at.
        needs: names of rules before it; where one is broken, this one would only tell of its consequences.
        at: the method that it is about, for people, where no error says a line; empty for the class itself.
    """

    name: str
    holds: str
    fix: str
    check: Callable[[Subject], None]
    slots: frozenset[str] = EVERY_SLOT
    waivable: bool = True
    gate: bool = False
    needs: frozenset[str] = frozenset()
    at: str = "__call__"
