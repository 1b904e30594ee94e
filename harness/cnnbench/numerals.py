"""Numbers for people: as many digits as the interval supports, and a unit that suits the column."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cnnbench.quantities import Quantity

MISSING = "–"

_LADDERS = (
    (1000.0, ("", "k", "M", "G", "T")),
    (1024.0, ("B", "KiB", "MiB", "GiB", "TiB")),
    (1000.0, ("µs", "ms", "s")),
    (1000.0, ("J", "kJ", "MJ")),
    (1000.0, ("µJ/image", "mJ/image", "J/image")),
    (1000.0, ("mg", "g", "kg")),
    (1000.0, ("µg/image", "mg/image", "g/image")),
)


@dataclass(frozen=True)
class Scale:
    """How a column shows its quantity: displayed value = recorded value x factor."""

    unit: str
    factor: float


def scale(quantity: Quantity, recorded: Iterable[float]) -> Scale:
    """The quantity's own unit, or its neighbour where the whole column would be too small or too large for it.

    Args:
        quantity: what the column shows.
        recorded: its values as records hold them.
    """
    sizes = [abs(value) * quantity.factor for value in recorded if value]
    ladder = next(((step, units) for step, units in _LADDERS if quantity.unit in units), None)
    if not sizes or ladder is None:
        return Scale(quantity.unit, quantity.factor)
    step, units = ladder
    place, power = units.index(quantity.unit), 1.0
    while place + 1 < len(units) and (min(sizes) >= step * power or max(sizes) >= 1e5 * power):
        place, power = place + 1, power * step
    while place > 0 and max(sizes) < 0.1 * power:
        place, power = place - 1, power / step
    return Scale(units[place], quantity.factor / power)


def number(value: float, decimals: int, *, signed: bool = False) -> str:
    """A number with so many decimals (negative: to tens, hundreds ...), with a true minus sign, never minus zero."""
    text = f"{abs(round(value, decimals)):.{max(decimals, 0)}f}"
    if float(text) == 0:
        return text
    if value < 0:
        return f"−{text}"
    return f"+{text}" if signed else text


def with_interval(mean: float, half: float, *, signed: bool = False) -> str:
    """``mean ± half``: the interval's half-width with two significant digits, the mean with as many decimals.

    A value that its interval drowns still shows two digits of its own, as that is what was seen; a difference (signed)
    does not, as there the digits would be read as an effect.
    """
    decimals = own = interval_decimals(half)
    if mean and not signed:
        own = max(decimals, interval_decimals(abs(mean)))
    return f"{number(mean, own, signed=signed)} ± {number(half, decimals)}"


def interval_decimals(half: float) -> int:
    """Decimals that leave two significant digits; negative for tens, hundreds ..."""
    return 1 - int(f"{half:.1e}".partition("e")[2])  # of the rounded value: 0.0996 has the digits of 0.10


def factor(value: float) -> str:
    """A factor without interval: two digits below 1, at least three from there on."""
    return number(value, significant([value], 3 if abs(value) >= 1 else 2))


def rounded(value: float, digits: int) -> str:
    """A number without interval, with at least so many significant digits."""
    return number(value, significant([value], digits))


def power_of_ten(value: float) -> str:
    """Two digits and a power of ten, e.g. ``4.8e−7``."""
    mantissa, _, exponent = f"{value:.1e}".partition("e")
    return f"{number(float(mantissa), 1)}e{number(int(exponent), 0)}"


def significant(values: Iterable[float], digits: int) -> int:
    """Decimals with which the largest value shows ``digits`` significant digits."""
    largest = max((abs(value) for value in values), default=0.0)
    if largest == 0:
        return 0
    return max(0, digits - 1 - math.floor(math.log10(largest)))
