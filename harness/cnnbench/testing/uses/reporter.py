"""Reporters: the records of a small run, one trial of which failed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cnnbench.errors import BrokenContract
from cnnbench.testing.compare import copied
from cnnbench.testing.records import records
from cnnbench.testing.use import PLAIN, Situation, Use

if TYPE_CHECKING:
    from cnnbench.testing.subject import Subject

situations = (PLAIN,)


def use(subject: Subject, technique: Any, situation: Situation, draw: int) -> Use:  # noqa: ARG001 - as all slots have it
    """Render the records."""
    given = {"records": records()}
    before = copied(given)
    text: object = technique(given["records"])
    if not isinstance(text, str) or not text.strip():
        raise BrokenContract(f"{subject.name} returned {text!r:.60}, expected text")
    return Use(given=given, before=before, result=text)
