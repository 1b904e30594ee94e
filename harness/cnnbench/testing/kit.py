"""All rules of the kit, in the order in which they are looked at."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cnnbench.testing.rules import options, state

if TYPE_CHECKING:
    from cnnbench.testing.rule import Rule

KIT: tuple[Rule, ...] = (*options.RULES, *state.RULES)
