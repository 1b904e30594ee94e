"""Verdicts counted in words: what arms, changes or steps do to the quantity that decides."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from cnnbench.text import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from cnnbench.quantities import Quantity

_MOST_NAMED = 6
_ORDER: Final = ("better", "worse", "equivalent", "unresolved", "silent", "missing")


@dataclass(frozen=True)
class Claim:
    """What one arm, change or step does.

    Attributes:
        name: as it is shown, quoted where that is due.
        verdict: one of those, ``silent`` where none is known, or ``missing`` where no trial is ok.
        moved: what follows a name, `` by 0.8 ± 0.3 pp``; empty where it is not known.
        size: of the change, for the order.
        n: seeds that the verdict is from.
    """

    name: str
    verdict: str
    moved: str
    size: float
    n: int


def told(claims: Sequence[Claim], primary: Quantity, within: str, noun: str = "arms") -> str:
    """``Of 9 arms, 2 raise accuracy (...), 1 lowers it (...), and 6 stay undecided with 10 seeds (...)``.

    Args:
        claims: two or more.
        primary: the quantity.
        within: the margin in words, ``within 0.5 pp``; empty for none.
        noun: what is counted, plural with s.
    """
    groups = {verdict: [claim for claim in claims if claim.verdict == verdict] for verdict in _ORDER}
    parts: list[str] = []
    for verdict, members in groups.items():
        if len(members) == len(claims):
            return _all(primary, verdict, members, within, noun)
        if members:
            parts.append(f"{len(members)} {_group(primary, verdict, members, within, named=bool(parts))}")
    return f"Of {len(claims)} {noun}, {joined(parts)}"


def verb(primary: Quantity, verdict: str, *, plural: bool) -> str:
    """``raises`` or ``lowers``, as better or worse mean it of the quantity."""
    word = "raise" if (verdict == "better") == (primary.better == "higher") else "lower"
    return word if plural else f"{word}s"


def counted(seeds: int) -> str:
    """``1 seed``, ``10 seeds``."""
    return "1 seed" if seeds == 1 else f"{seeds} seeds"


def seeds_in_words(counts: Iterable[int]) -> str:
    """``10 seeds``; where numbers differ ``9 or 10 seeds``, and of more than two the range, ``4 to 12 seeds``."""
    found = sorted(set(counts)) or [0]
    return counted(found[0]) if len(found) == 1 else f"{between(found)} seeds"


def between(counts: Iterable[int]) -> str:
    """``10``, ``9 or 10``, ``4 to 12``; one number at least."""
    found = sorted(set(counts))
    return str(found[0]) if len(found) == 1 else f"{found[0]} {'or' if len(found) == 2 else 'to'} {found[-1]}"


def quoting(names: Iterable[str]) -> Callable[[str], str]:
    """How names are shown in one text: all of them quoted, if any of them is more than one plain word."""
    some = any(re.search(r"[\s,;()“”]", printable(name)) for name in names)
    return (lambda name: f"“{printable(name)}”") if some else printable


def most(items: Sequence[str]) -> str:
    """Items with commas between; of a long list the first ones."""
    shown = ", ".join(items[:_MOST_NAMED])
    return f"{shown} and {len(items) - _MOST_NAMED} more" if len(items) > _MOST_NAMED else shown


def joined(parts: Sequence[str]) -> str:
    """``a``, ``a and b``, ``a, b, and c``."""
    if len(parts) < 3:
        return " and ".join(parts)
    return f"{', '.join(parts[:-1])}, and {parts[-1]}"


def _all(primary: Quantity, verdict: str, claims: Sequence[Claim], within: str, noun: str) -> str:
    """A sentence of claims that have one verdict."""
    two = len(claims) == 2
    if verdict in {"better", "worse"} or (verdict == "unresolved" and not two):
        return f"{'Both' if two else f'All {len(claims)}'} {noun} {_group(primary, verdict, claims, within)}"
    none = f"Neither {noun.removesuffix('s')}" if two else f"None of the {len(claims)} {noun}"
    if verdict == "unresolved":
        return f"{none} is decided in {primary.label} {_seeds(claims)} ({_names(claims)})"
    if verdict == "equivalent":
        reach = within and f"{within}: "
        return f"{none} makes a difference in {primary.label} that matters ({reach}{_names(claims)})"
    return f"{none} {'can be compared' if verdict == 'silent' else 'has a trial that is ok'} ({_names(claims)})"


def _group(primary: Quantity, verdict: str, claims: Sequence[Claim], within: str, *, named: bool = False) -> str:
    """What the claims of one verdict do, from the verb on; ``named``: the quantity was named before."""
    plural = len(claims) > 1
    of = "" if named else f" in {primary.label}"
    if verdict in {"better", "worse"}:
        what = "it" if named else primary.label
        moved = most([claim.name + claim.moved for claim in sorted(claims, key=lambda claim: -claim.size)])
        return f"{verb(primary, verdict, plural=plural)} {what} ({moved})"
    if verdict == "equivalent":
        reach = within and f"{within}: "
        return f"{'make' if plural else 'makes'} no difference{of} that matters ({reach}{_names(claims)})"
    if verdict == "unresolved":
        return f"{'stay' if plural else 'stays'} undecided{of} {_seeds(claims)} ({_names(claims)})"
    if verdict == "silent":
        return f"cannot be compared{of} ({_names(claims)})"
    return f"{'have' if plural else 'has'} no trial that is ok ({_names(claims)})"


def _seeds(claims: Sequence[Claim]) -> str:
    return f"with {seeds_in_words(claim.n for claim in claims)}"


def _names(claims: Sequence[Claim]) -> str:
    return most([claim.name for claim in claims])
