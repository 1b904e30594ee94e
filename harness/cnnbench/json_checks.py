"""Checks of JSON data by shape: a check takes a value and says what is wrong with it, or nothing.

They are made once and run on every record that is read, so the way of a value that is right is short: types are looked
at all together, and one by one only where something is wrong.
"""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, Any, Final

from cnnbench.text import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping

    Check = Callable[[Any], str]

LARGEST: Final = 1e100
"""Above any figure that was ever measured, and so low that squares and sums of such numbers are finite."""
DEEPEST: Final = 40
"""Levels of lists and tables within each other; records have nine."""
_LONGEST: Final = 60

TEXT: Final = frozenset({str})
INTEGER: Final = frozenset({int})
NUMBER: Final = frozenset({int, float})
NOTHING: Final = type(None)
_NESTED: Final = frozenset({dict, list})

_WORDS: Final = {str: "text", int: "a whole number", float: "a number", bool: "true or false", NOTHING: "null"}


def one(kinds: frozenset[type], *, maybe: bool = True, least: int | None = None, longest: int | None = None) -> Check:
    """A single value of one of some types.

    Args:
        kinds: from ``TEXT``, ``INTEGER``, ``NUMBER`` ...; numbers are finite and not beyond ``LARGEST``.
        maybe: null is right too.
        least: of a number; None for any.
        longest: characters of a text; None for any.
    """
    allowed = kinds | {NOTHING} if maybe else kinds
    bounded = bool(kinds & NUMBER)

    def check(value: Any) -> str:
        if not _are((value,), allowed, bounded=bounded):
            return _wrong(value, allowed)
        if value is None:
            return ""
        if longest is not None and len(value) > longest:
            return too_long(value, longest)
        return "" if least is None or value >= least else f" is {shown(value)}, expected {least} or more"

    return check


def among(words: Collection[str]) -> Check:
    """One of some words."""

    def check(value: Any) -> str:
        if isinstance(value, str) and value in words:
            return ""
        return f" is {shown(value)}, expected one of {', '.join(sorted(words))}"

    return check


def many(
    kinds: frozenset[type],
    *,
    least: int = 0,
    most: int | None = None,
    maybe: bool = False,
    longest: int | None = None,
) -> Check:
    """A list of values of some types.

    Args:
        kinds: as in ``one``.
        least: number of items.
        most: likewise; None for any.
        maybe: items may be null.
        longest: characters of a text among them; None for any.
    """
    allowed = kinds | {NOTHING} if maybe else kinds
    bounded = bool(kinds & NUMBER)

    def check(value: Any) -> str:
        if type(value) is not list:
            return f" is {shown(value)}, expected a list"
        if len(value) < least or (most is not None and len(value) > most):
            count = f"{least}" if least == most else f"{least} or more" if most is None else f"{least} to {most}"
            return f" has {len(value)} items, expected {count}"
        if _are(value, allowed, bounded=bounded):
            if longest is None or max(map(len, value), default=0) <= longest:
                return ""
            place, text = next((place, text) for place, text in enumerate(value) if len(text) > longest)
            return f"[{place}]{too_long(text, longest)}"
        return _located(((f"[{place}]", item) for place, item in enumerate(value)), allowed)

    return check


def by_name(kinds: frozenset[type], *, maybe: bool = False) -> Check:
    """A table whose values are all of some types, whatever their names; arguments as in ``many``."""
    allowed = kinds | {NOTHING} if maybe else kinds
    bounded = bool(kinds & NUMBER)

    def check(value: Any) -> str:
        if type(value) is not dict:
            return f" is {shown(value)}, expected a table"
        if _are(value.values(), allowed, bounded=bounded):
            return ""
        return _located(((f".{_name(name)}", item) for name, item in value.items()), allowed)

    return check


def rows(kinds: frozenset[type], *, named: bool, maybe: bool = False) -> Check:
    """A list of lists, or of tables, whose values are all of some types.

    Args:
        kinds: as in ``one``.
        named: rows are tables.
        maybe: values may be null.
    """
    outer = frozenset({dict if named else list})
    together = many(kinds, maybe=maybe)
    apart = each(by_name(kinds, maybe=maybe) if named else together)

    def check(value: Any) -> str:
        if type(value) is list and outer.issuperset(map(type, value)):
            items = map(dict.values, value) if named else value
            if not together(list(chain.from_iterable(items))):
                return ""
        return apart(value)

    return check


def each(check: Check, *, least: int = 0) -> Check:
    """A list in which every item passes a check."""

    def check_all(value: Any) -> str:
        if type(value) is not list:
            return f" is {shown(value)}, expected a list"
        if len(value) < least:
            return f" has {len(value)} items, expected {least} or more"
        for place, item in enumerate(value):
            if fault := check(item):
                return f"[{place}]{fault}"
        return ""

    return check_all


def each_by_name(check: Check) -> Check:
    """A table in which every value passes a check."""

    def check_all(value: Any) -> str:
        if type(value) is not dict:
            return f" is {shown(value)}, expected a table"
        for name, item in value.items():
            if fault := check(item):
                return f".{_name(name)}{fault}"
        return ""

    return check_all


def table(fields: Mapping[str, Check], *, needs: Iterable[str] = (), others: Check | None = None) -> Check:
    """A table of known fields.

    Args:
        fields: the check of each; one that is null or missing passes, unless it is needed.
        needs: fields that must be there.
        others: the check of fields that are not known; None for any shallow data.
    """
    needed = frozenset(needs)
    rest = shallow if others is None else others

    def check(value: Any) -> str:
        if type(value) is not dict:
            return f" is {shown(value)}, expected a table"
        for name, item in value.items():
            if item is not None and (fault := fields.get(name, rest)(item)):
                return f".{_name(name)}{fault}"
        for name in needed:
            if value.get(name) is None:
                return f".{name} is missing"
        return ""

    return check


def unknown(value: Any) -> str:
    """Refuses a field of a table that must have none but the known ones."""
    return f" is {shown(value)}, and there is no such field"


def too_long(text: str, longest: int) -> str:
    """What is wrong with a text that is longer than it may be."""
    return f" has {len(text):,} characters, expected at most {longest:,}"


def shallow(value: Any, levels: int = DEEPEST) -> str:
    """Any data that is not nested too deeply to be walked through."""
    if type(value) is dict:
        value = value.values()
    elif type(value) is not list:
        return ""
    if _NESTED.isdisjoint(map(type, value)):
        return ""
    if not levels:
        return f" is nested more than {DEEPEST} levels deep"
    return next((fault for item in value if type(item) in _NESTED and (fault := shallow(item, levels - 1))), "")


def _are(values: Collection[Any], allowed: frozenset[type], *, bounded: bool) -> bool:
    """Whether values are all of some types, and numbers among them bounded if they have to be."""
    kinds = set(map(type, values))
    if not kinds <= allowed:
        return False
    return not bounded or _bounded([v for v in values if v is not None] if NOTHING in kinds else values)


def _bounded(values: Collection[Any]) -> bool:
    """Whether numbers are finite and not beyond ``LARGEST``, all of them together neither."""
    try:
        # A sum with nan is nan, and no comparison with that is true.
        return not values or bool(max(values) <= LARGEST and -LARGEST <= sum(values) <= LARGEST)
    except OverflowError:  # an integer beyond all floats
        return False


def _located(items: Iterable[tuple[str, Any]], allowed: frozenset[type]) -> str:
    """The first of some values that is wrong; all of them together where none is by itself."""
    for place, item in items:
        if type(item) not in allowed or (type(item) in NUMBER and not _bounded((item,))):
            return f"{place}{_wrong(item, allowed)}"
    return f" adds up to more than {LARGEST:g}"


def _wrong(value: Any, allowed: frozenset[type]) -> str:
    if type(value) in allowed:
        return f" is {shown(value)}, expected a finite number up to {LARGEST:g}"
    kinds = allowed - {int} if float in allowed else allowed
    words = " or ".join(word for kind, word in _WORDS.items() if kind in kinds)
    return f" is {shown(value)}, expected {words}"


def _name(name: str) -> str:
    text = printable(name)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"


def shown(value: Any) -> str:
    """A value in a few characters, whatever it holds."""
    if type(value) is dict:
        return "a table"
    if type(value) is list:
        return "a list"
    if type(value) is int and not _bounded((value,)):
        return "a number beyond all bounds"
    text = repr(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
