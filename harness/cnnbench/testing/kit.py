"""All rules of the kit, in the order in which they are looked at."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cnnbench.registry import nearest
from cnnbench.testing.rule import Broken, Rule
from cnnbench.testing.rules import (
    accounting,
    data,
    docstring,
    modes,
    numbers,
    options,
    shapes,
    situations,
    state,
    surgery,
    trained,
    training,
    values,
)

if TYPE_CHECKING:
    from cnnbench.testing.subject import Subject


def _waivers(subject: Subject) -> None:
    known = {rule.name: rule for rule in KIT}
    for name, reason in subject.entry.card.waives.items():
        if name not in known:
            raise Broken(f"it waives {name!r}, which is no rule: {nearest(name, known)}")
        if not known[name].waivable:
            raise Broken(f"it waives {name!r}, which every technique must keep")
        if not reason.strip():
            raise Broken(f"it waives {name!r} without a reason")


KIT: tuple[Rule, ...] = (
    Rule(
        "waivers",
        "what it waives are rules that can be waived, each with its reason",
        "see `cnnbench check --rules` for the rules' names; mend what can't be waived",
        _waivers,
        waivable=False,
        at="",
    ),
    *docstring.RULES,
    *options.RULES,
    *state.RULES,
    *situations.RULES,
    *values.RULES,
    *shapes.RULES,
    *modes.RULES,
    *numbers.RULES,
    *accounting.RULES,
    *surgery.RULES,
    *trained.RULES,
    *training.RULES,
    *data.RULES,
)
