"""Rules about what a use leaves behind, and about chance."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cnnbench.testing.compare import difference
from cnnbench.testing.rule import Broken, Rule
from cnnbench.testing.state import as_found

if TYPE_CHECKING:
    from cnnbench.testing.subject import Subject


def _usable(subject: Subject) -> None:
    subject.use(subject.how.situations[0])


def _state_as_found(subject: Subject) -> None:
    for situation in subject.situations():
        with as_found() as left:
            subject.fresh(situation)
        if left.changed:
            raise Broken(f"with {situation} it changed {left.changed[0]}")


def _inputs_unchanged(subject: Subject) -> None:
    for situation in subject.situations():
        use = subject.use(situation)
        if found := difference(use.before, use.given, at="what it was given"):
            raise Broken(f"with {situation} it changed its arguments in place: {found}")


def _same_draws(subject: Subject) -> None:
    for situation in subject.situations():
        if found := difference(subject.use(situation).result, subject.fresh(situation).result):
            raise Broken(f"two uses with {situation} and equal generators differ: {found}")


RULES: tuple[Rule, ...] = (
    Rule(
        "usable",
        "it can be used as its slot's contract says",
        "see the traceback with pytest, and the contract of the slot in docs/plugins.md",
        _usable,
        waivable=False,
    ),
    Rule(
        "state-as-found",
        "random generators, default dtype, gradient mode, threads and all else that a process shares stay as found",
        "draw from the generator that is handed in; set nothing global, or put it back in a finally block",
        _state_as_found,
        waivable=False,
    ),
    Rule(
        "inputs-unchanged",
        "what it is given stays as it is",
        "work on a copy: images = images.clone(), or operations without a trailing underscore",
        _inputs_unchanged,
        waivable=False,
    ),
    Rule(
        "same-draws",
        "equal generators give equal results",
        "draw everything from the generator that is handed in, none from torch's, NumPy's or Python's global ones",
        _same_draws,
        waivable=False,
    ),
)
