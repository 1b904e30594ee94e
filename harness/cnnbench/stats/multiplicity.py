"""Several tests at once: p-values adjusted for their number."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values, in the order given (Holm, "A simple sequentially rejective multiple test procedure", 1979).

    Calling what is at most a level keeps the chance of even one false call in the family within that level, however
    the tests depend on each other, as those of arms that share one baseline do.
    """
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    adjusted = [1.0] * len(p_values)
    highest = 0.0
    for rank, place in enumerate(order):
        highest = max(highest, min(1.0, (len(order) - rank) * p_values[place]))
        adjusted[place] = highest
    return adjusted


def benjamini_hochberg(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values, in the order given (Benjamini and Hochberg, "Controlling the false discovery rate", 1995).

    Calling what is at most a level keeps the expected share of false calls among all calls within that level: proved
    for independent tests and for positively dependent ones (Benjamini and Yekutieli, 2001). Two-sided tests against
    one baseline are not covered by that proof to the letter; no excess is known for them.
    """
    total = len(p_values)
    order = sorted(range(total), key=p_values.__getitem__)
    adjusted = [1.0] * total
    lowest = 1.0
    for rank in range(total, 0, -1):
        place = order[rank - 1]
        lowest = min(lowest, total / rank * p_values[place])
        adjusted[place] = lowest
    return adjusted
