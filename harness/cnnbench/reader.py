"""Reads a suite's values against the registry, and goes on after a mistake so that all of them are told at once."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cnnbench.errors import PluginError, UsageError
from cnnbench.expect import show
from cnnbench.options import Option, default_of, options_of
from cnnbench.registry import nearest
from cnnbench.technique import card_of
from cnnbench.toml_text import as_written
from cnnbench.types import Choice

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cnnbench.locate import Place
    from cnnbench.registry import Registry


def read_choice(choice: Choice, registry: Registry, folder: Path) -> Choice:
    """A technique with some options as a suite would name it: checked and completed, those that it holds too.

    Args:
        choice: names it.
        registry: the techniques that may be named.
        folder: what relative paths start from.

    Raises:
        UsageError: a suite could not name it so; the first mistake.
    """
    reader = Reader(registry, folder)
    found = reader.choice(choice.slot, as_written(choice), ())
    if found is None:
        place, message = reader.problems[0]
        raise UsageError(": ".join(filter(None, (".".join(map(str, place)), message))))
    return found


class Reader:
    """Reads a suite's values against a registry and gathers every mistake.

    Attributes:
        registry: the techniques that may be named.
        folder: what relative paths start from.
        imports: techniques may be named whose options name code to import.
        problems: mistakes so far: where, and what.
    """

    def __init__(self, registry: Registry, folder: Path, *, imports: bool = True) -> None:
        self.registry = registry
        self.folder = folder
        self.imports = imports
        self.problems: list[tuple[Place, str]] = []

    def another(self) -> Reader:
        """One that reads in the same way and has no mistakes yet."""
        return Reader(self.registry, self.folder, imports=self.imports)

    def report(self, place: Place, message: str) -> None:
        """Note a mistake; the same one is noted once."""
        if (place, message) not in self.problems:
            self.problems.append((place, message))

    def choice(self, slot: str, value: Any, place: Place, *, also: tuple[str, ...] = ()) -> Choice | None:
        """A technique as TOML names it, ``"group"`` or ``{ name = "group", groups = 8 }``, completed.

        Returns None where it has mistakes, all of them reported. Keys in ``also`` have been read already, and are only
        suggested for a misspelt one.
        """
        table = {"name": value} if isinstance(value, str) else value
        if not isinstance(table, dict) or not isinstance(table.get("name"), str):
            known = ", ".join(self.registry.names(slot))
            self.report(
                place,
                f'expected a name in slot {slot}, or {{ name = "...", ... }}, got {show(value)}'
                + (f"; known are {known}" if known else ""),
            )
            return None
        name = table["name"]
        at = (*place, "name") if isinstance(value, dict) else place
        try:
            cls = self.registry.get(slot, name).cls
            options = options_of(cls)
            defaults = {key: default_of(option, self.registry) for key, option in options.items()}
        except (UsageError, PluginError) as error:
            self.report(at, str(error).rstrip(": "))
            return None
        if card_of(cls).imports and not self.imports:
            self.report(at, f"{slot} {name!r} imports code that the suite names, which is forbidden here")
            return None
        before = len(self.problems)
        given = {key: item for key, item in table.items() if key != "name"}
        values = {**defaults, **self.given(options, given, place, f"{slot} {name!r}", also=also)}
        for option in options.values():
            if option.required and option.name not in given:
                self.report(place, f"{slot} {name!r} needs {option.name!r}: expected {option.expects}")
        if len(self.problems) > before:
            return None
        try:
            cls(**values)
        except ValueError as error:
            self.report(place, str(error))
            return None
        return Choice(slot, name, {key: option.plain(values[key]) for key, option in options.items()})

    def given(
        self,
        options: Mapping[str, Option],
        table: Mapping[str, Any],
        place: Place,
        owner: str,
        *,
        also: tuple[str, ...] = (),
    ) -> dict[str, Any]:
        """The values that a table gives, checked; unknown keys and wrong values are reported and left out."""
        values = {}
        for key, value in table.items():
            option = options.get(key)
            if option is None:
                hint = nearest(key, (*options, *also)) or "it has none"
                self.report((*place, key), f"{owner} has no option {key!r}: {hint}")
                continue
            before = len(self.problems)
            raw = self._nested(option, value, (*place, key))
            if len(self.problems) > before:
                continue
            try:
                values[key] = _absolute(option.check(raw), self.folder)
            except ValueError as error:
                self.report((*place, key), str(error))
        return values

    def _nested(self, option: Option, value: Any, place: Place) -> Any:
        """``value`` with the techniques in it completed."""
        if option.slot is None:
            return value
        if not option.many:
            choice = self.choice(option.slot, value, place)
            return choice.plain() if choice else None
        if not isinstance(value, list):
            self.report(place, f"expected a list in slot {option.slot}, got {show(value)}")
            return None
        choices = [self.choice(option.slot, item, (*place, i)) for i, item in enumerate(value)]
        return [choice.plain() for choice in choices if choice]


def _absolute(value: Any, folder: Path) -> Any:
    """``value`` with its paths made absolute, ``~`` included."""
    if isinstance(value, Path):
        return Path(os.path.abspath(folder / value.expanduser()))  # noqa: PTH100 - resolve() would follow links
    if isinstance(value, tuple | list):
        return type(value)(_absolute(item, folder) for item in value)
    if isinstance(value, dict):
        return {key: _absolute(item, folder) for key, item in value.items()}
    return value
