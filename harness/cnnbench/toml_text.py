"""Plain data as the text of a suite: what was built in Python is kept beside its records as a file is."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cnnbench.types import Choice

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cnnbench.locate import Place

_BARE = re.compile(r"[A-Za-z0-9_-]+")
_LARGEST = 2**63
"""TOML's whole numbers have 64 bits."""


def suite_text(data: Mapping[Any, Any]) -> tuple[str, list[tuple[Place, str]]]:
    """A suite's data as TOML, and what in it has no form there.

    Tables that name no technique become sections, all else stays on its key's line. Tuples and ranges become arrays,
    NumPy's numbers plain ones, paths text.

    Args:
        data: as TOML would hold it, by key.

    Returns:
        The text, without what has no form, and each such value's place with what was expected.
    """
    problems: list[tuple[Place, str]] = []
    plain = _table(data, (), problems)
    lines = [f"{_key(key)} = {_inline(value)}" for key, value in plain.items() if not _is_section(value)]
    for key, value in plain.items():
        if _is_section(value):
            lines += ["", f"[{_key(key)}]", *(f"{_key(name)} = {_inline(inner)}" for name, inner in value.items())]
    return "\n".join(lines) + "\n", problems


def _is_section(value: object) -> bool:
    return isinstance(value, dict) and "name" not in value


def as_written(value: Any) -> Any:
    """A value as a suite has it: techniques as tables with their name, paths as text, nothing that is None."""
    if isinstance(value, Choice):
        return {"name": value.name, **as_written(value.options)}
    if isinstance(value, Mapping):
        if value.keys() == {"slot", "name", "options"}:
            return as_written(Choice.from_plain(value))
        return {key: as_written(item) for key, item in value.items() if item is not None}
    if isinstance(value, list | tuple):
        return [as_written(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def _table(data: Mapping[Any, Any], place: Place, problems: list[tuple[Place, str]]) -> dict[str, Any]:
    table: dict[str, Any] = {}
    for key, value in data.items():
        if not isinstance(key, str):
            problems.append((place, f"expected text as a key, got {key!r}"))
        elif _broken(key):
            problems.append((place, "a key is not text that UTF-8 can hold"))
        else:
            table |= dict(_known(key, value, (*place, key), problems))
    return table


def _known(key: str, value: Any, place: Place, problems: list[tuple[Place, str]]) -> Iterator[tuple[str, Any]]:
    plain = _plain(value, place, problems)
    if plain is not None:
        yield key, plain


def _plain(value: Any, place: Place, problems: list[tuple[Place, str]]) -> Any:
    """A value as TOML has them; None where it has no such, which is then among the problems."""
    if isinstance(value, Mapping):
        return _table(value, place, problems)
    if isinstance(value, list | tuple | range):
        items = [_plain(item, (*place, i), problems) for i, item in enumerate(value)]
        return [item for item in items if item is not None]
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    elif type(value).__module__ == "numpy" and getattr(value, "shape", None) == ():
        value = value.item()
    if value is None:
        problems.append((place, "expected a value, got None: leave the key out for its default"))
    elif isinstance(value, str) and _broken(value):
        problems.append((place, "expected text that UTF-8 can hold"))
    elif isinstance(value, int) and not -_LARGEST <= value < _LARGEST:
        problems.append((place, f"expected a whole number of at most 64 bits, got {value:.3g}"))
    elif isinstance(value, str | bool | int | float):
        return value
    else:
        problems.append((place, f"expected text, a number, true, false, a list or a table, got {_kind(value)}"))
    return None


def _broken(text: str) -> bool:
    return any("\ud800" <= char <= "\udfff" for char in text)


def _kind(value: object) -> str:
    kind = type(value)
    return kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _inline(value: Any) -> str:
    if isinstance(value, dict):
        inner = ", ".join(f"{_key(key)} = {_inline(item)}" for key, item in value.items())
        return f"{{ {inner} }}" if inner else "{}"
    if isinstance(value, list):
        return f"[{', '.join(map(_inline, value))}]"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and not math.isfinite(value):
        return "nan" if math.isnan(value) else "inf" if value > 0 else "-inf"
    return _quoted(value) if isinstance(value, str) else repr(value)


def _key(key: str) -> str:
    return key if _BARE.fullmatch(key) else _quoted(key)


def _quoted(text: str) -> str:
    """A basic string: JSON's, with the one control character escaped that JSON takes as it is."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007F")
