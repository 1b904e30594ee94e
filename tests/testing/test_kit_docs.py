"""docs/plugins.md has the rules of the kit as the code has them; CNNBENCH_UPDATE_GOLDEN=1 writes them anew."""

from __future__ import annotations

import os
import textwrap
from pathlib import Path

from cnnbench.slots import SLOTS
from cnnbench.testing import KIT

PAGE = Path(__file__).parents[2] / "docs" / "plugins.md"
HEADING, NEXT = "## The rules of the kit\n", "\n## A package\n"


def slots_of(rule):
    """Where a rule holds, in the fewest words."""
    there = [slot for slot in SLOTS if slot in rule.slots]
    others = [slot for slot in SLOTS if slot not in rule.slots]
    if not others:
        return "every"
    return ", ".join(there) if len(there) <= len(others) else f"all but {', '.join(others)}"


def section():
    """The section's text: an introduction and a table."""
    kept = [f"`{rule.name}`" for rule in KIT if not rule.waivable]
    rows = [f"| `{rule.name}` | {slots_of(rule)} | {rule.holds}; to mend it: {rule.fix} |" for rule in KIT]
    introduction = (
        f"{len(KIT)} rules, in the order in which they are looked at; each holds for some slots. Of a broken one the "
        "kit says what happened, where, and how that is usually mended. `cnnbench check --rules` prints them. A "
        f"technique may waive a rule with a reason, but none of these: {', '.join(kept)}."
    )
    lines = [
        *textwrap.wrap(introduction, 120, break_long_words=False, break_on_hyphens=False),
        "",
        "| rule | slots | what must hold |",
        "| --- | --- | --- |",
        *rows,
        "",
    ]
    return "\n".join(lines)


def test_the_page_has_every_rule_with_its_slots_and_what_holds():
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(HEADING)
    found, _, after = rest.partition(NEXT)
    if os.environ.get("CNNBENCH_UPDATE_GOLDEN"):
        PAGE.write_text(f"{before}{HEADING}\n{section()}{NEXT}{after}", encoding="utf-8")
    else:
        assert found.strip() == section().strip()
