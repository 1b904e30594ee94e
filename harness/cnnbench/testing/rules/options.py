"""Rules about options and documentation."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cnnbench.testing.rule import Rule

RULES: tuple[Rule, ...] = ()
