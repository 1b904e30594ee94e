"""Which arm each arm of a suite is compared with: the key ``against`` of an arm, else the baseline."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cnnbench.expect import show
from cnnbench.registry import nearest

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cnnbench.reader import Reader

AGAINST = "against"
"""The key of an arm; it changes nothing of the arm itself."""
BASELINE = "baseline"


def read_references(arms: Any, reader: Reader) -> dict[str, str]:
    """The reference of every arm of ``[arms]`` by name; mistakes are reported, and such an arm keeps the baseline.

    An arm may be compared with one that is itself compared with a third. References that lead back to where they
    started are a mistake: then no arm of the circle is compared with what the others start from.

    Args:
        arms: the table ``[arms]`` as TOML has it.
        reader: where to report.
    """
    tables = {name: table for name, table in arms.items() if isinstance(table, dict)} if isinstance(arms, dict) else {}
    references = dict.fromkeys(tables, BASELINE)
    for name, table in tables.items():
        if AGAINST not in table:
            continue
        value, place = table[AGAINST], ("arms", name, AGAINST)
        if not isinstance(value, str):
            reader.report(place, f"expected the name of another arm or {BASELINE!r}, got {show(value)}")
        elif value == name:
            reader.report(place, f"arm {name!r} can't be compared with itself")
        elif value not in (BASELINE, *tables):
            known = (BASELINE, *(other for other in tables if other != name))
            hint = nearest(value, known)
            reader.report(place, f"expected another arm of [arms] or {BASELINE!r}, got {value!r}: {hint}".rstrip(": "))
        else:
            references[name] = value
    for circle in _circles(references):
        path = " against ".join(repr(name) for name in (*circle, circle[0]))
        reader.report(("arms", circle[0], AGAINST), f"references lead round in a circle: {path}")
        references |= dict.fromkeys(circle, BASELINE)
    return references


def _circles(references: Mapping[str, str]) -> list[tuple[str, ...]]:
    """Every circle once, from its first arm in the order of the file."""
    circles: list[tuple[str, ...]] = []
    ended: set[str] = set()
    for start in references:
        path: list[str] = []
        name = start
        while name != BASELINE and name not in ended and name not in path:
            path.append(name)
            name = references[name]
        if name in path:
            circles.append(tuple(path[path.index(name) :]))
        ended.update(path)
    return circles
