"""Reads ``[design]``: axes with their levels, and the settings of every arm that the design comes to."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

from cnnbench.changes import describe_option, describe_recipe_value, describe_slot
from cnnbench.design import KINDS, Kind, cells, count
from cnnbench.draft import ARM_SLOTS, Draft, change_model, change_recipe, change_slot, given_of_model, unknown_key
from cnnbench.expect import show
from cnnbench.options import format_value, label, options_of
from cnnbench.registry import nearest
from cnnbench.types import Choice, Recipe

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from cnnbench.design import Cell
    from cnnbench.locate import Place
    from cnnbench.reader import Reader
    from cnnbench.registry import Registry

MOST_ARMS = 10_000
"""A design with more arms is taken for a slip."""


@dataclass(frozen=True)
class Level:
    """One level of an axis.

    Attributes:
        raw: as TOML has it.
        value: checked: choices of a slot, a value of the recipe, a model, or a model's option as plain data.
        text: in words.
    """

    raw: Any
    value: Any
    text: str


@dataclass(frozen=True)
class Axis:
    """What a design varies.

    Attributes:
        key: a slot, ``model``, ``model.X`` or ``recipe.X``.
        levels: at least two; the first is the reference.
    """

    key: str
    levels: tuple[Level, ...]

    @property
    def table(self) -> str:
        """``model``, ``recipe`` or the slot."""
        return self.key.partition(".")[0]

    @property
    def option(self) -> str:
        """``X`` of ``model.X`` and ``recipe.X``, else empty."""
        return self.key.partition(".")[2]

    def gain(self, before: int, after: int, registry: Registry) -> str:
        """What comes with a level, seen from another: the techniques added to a list, else the level itself."""
        old, new = self.levels[before].value, self.levels[after].value
        if self.table == "model" and not self.option:
            return self.levels[after].text
        if self.option or not new:
            return f"{self.option or self.key}={self.levels[after].text}"
        added = list(new)
        for choice in old:
            if choice not in added:
                return self.levels[after].text
            added.remove(choice)
        return " + ".join(label(choice, registry) for choice in added or new)


def flatten(table: Mapping[str, Any]) -> dict[str, tuple[Any, Place]]:
    """Axes by key with their place in ``[design]``: ``recipe.epochs`` may be written with or without quotes."""
    axes: dict[str, tuple[Any, Place]] = {}
    for key, value in table.items():
        if key == "kind":
            continue
        if key in ("model", "recipe") and isinstance(value, dict):
            axes |= {f"{key}.{inner}": (levels, (key, inner)) for inner, levels in value.items()}
        else:
            axes[key] = (value, (key,))
    return axes


class DesignReader:
    """Reads one design against the settings that it starts from."""

    def __init__(self, reader: Reader, base: Draft, raw: Mapping[str, Any]) -> None:
        self.reader = reader
        self.base = base
        self.raw = raw
        self.place: Place = ("design",)
        self._models: dict[str, Draft] = {}

    def read(self) -> tuple[Kind, list[Axis], Draft, list[tuple[str, Draft]]] | None:
        """Kind, axes, the baseline, and the arms by name; None where there are mistakes, all reported."""
        before = len(self.reader.problems)
        table = self.raw["design"]
        if not isinstance(table, dict):
            self.reader.report(self.place, f"expected a table with kind and axes, got {show(table)}")
            return None
        kind = self._kind(table)
        axes = self._axes(flatten(table))
        if kind is None or len(self.reader.problems) > before:
            return None
        if not axes and kind == "leave-one-out":
            return kind, axes, self.base, self._without_each()
        if not axes:
            self.reader.report(self.place, 'expected at least one axis, such as norm = ["batch", "group"]')
            return None
        sizes = [len(axis.levels) for axis in axes]
        arms = count(kind, sizes)
        if arms > MOST_ARMS:
            self.reader.report(self.place, f"comes to {arms} arms; at most {MOST_ARMS} are taken")
            return None
        reference, others = cells(kind, sizes)
        self._compare_with_baseline(axes, reference)
        baseline = self._settings(axes, reference)
        names = _unique(self._name(kind, axes, *pair) for pair in itertools.pairwise([reference, *others]))
        drafts = [self._settings(axes, cell) for cell in others]
        return kind, axes, baseline, list(zip(names, drafts, strict=True))

    def _kind(self, table: Mapping[str, Any]) -> Kind | None:
        kind = table.get("kind")
        if kind in KINDS:
            return cast("Kind", kind)
        found = f"got {show(kind)}" if "kind" in table else "which is missing"
        hint = nearest(kind, KINDS) if isinstance(kind, str) else f"known are {', '.join(KINDS)}"
        self.reader.report((*self.place, "kind"), f"expected the kind of design, {found}: {hint}")
        return None

    def _axes(self, found: Mapping[str, tuple[Any, Place]]) -> list[Axis]:
        axes = []
        # A model's options are read against the model, so the axis that sets the model comes first.
        start = self.base
        for key in sorted(found, key=lambda key: key != "model"):
            levels, place = found[key][0], (*self.place, *found[key][1])
            if not self._known(key, place):
                continue
            if not isinstance(levels, list) or len(levels) < 2:
                self.reader.report(place, f"expected a list of at least two levels, got {show(levels)}")
                continue
            axis = self._axis(key, levels, place, start)
            if axis is not None:
                axes.append(axis)
            if key == "model":
                start = change_model(start, levels[0], place, self.reader.another())
        order = list(found)
        return sorted(axes, key=lambda axis: order.index(axis.key))

    def _known(self, key: str, place: Place) -> bool:
        table, _, option = key.partition(".")
        recipe = tuple(f"recipe.{name}" for name in options_of(Recipe))
        if key in (*ARM_SLOTS, "model", *recipe) or (table == "model" and option):
            return True
        if key in options_of(Recipe):
            self.reader.report(place, f'{key!r} is part of the recipe: write "recipe.{key}"')
        elif key == "recipe":
            self.reader.report(place, 'name one value of the recipe, such as "recipe.batch_size"')
        elif table == "recipe":
            self.reader.report(place, f"the recipe has no option {option!r}: {nearest(option, options_of(Recipe))}")
        else:
            self.reader.report(place, unknown_key(key, "in a design", (*ARM_SLOTS, "model", *recipe, "kind")))
        return False

    def _axis(self, key: str, levels: Sequence[Any], place: Place, start: Draft) -> Axis | None:
        read: list[Level] = []
        for index, raw in enumerate(levels):
            inner = self.reader.another()
            found = self._level(key, raw, start, inner)
            for where, message in inner.problems:
                self.reader.report((*place, index, *(where[1:] if "." in key else where)), message)
            if inner.problems or found is None:
                continue
            value, text = found
            if any(level.value == value for level in read):
                self.reader.report((*place, index), f"the level {text} is listed twice")
            read.append(Level(raw, value, text))
        return Axis(key, tuple(read)) if len(read) == len(levels) else None

    def _level(self, key: str, raw: Any, start: Draft, reader: Reader) -> tuple[Any, str] | None:
        """A level's value and words; None where it, or the model it is an option of, has mistakes."""
        table, _, name = key.partition(".")
        if table == "model" and name:
            # Alone: whether the model takes it together with other options is seen when they are put together.
            values = given_of_model(start, {name: raw}, (), reader)
            if name not in values:
                return None
            option = options_of(self.reader.registry.get("model", (start.model_table or {})["name"]).cls)[name]
            plain = option.plain(values[name])
            return plain, format_value(plain, option, self.reader.registry)
        if table == "recipe":
            draft = change_recipe(start, {name: raw}, (), reader)
        elif table == "model":
            draft = change_model(start, raw, (), reader)
        else:
            draft = change_slot(start, key, raw, (), reader)
        return None if reader.problems else self._value(key, draft)

    def _value(self, key: str, draft: Draft) -> tuple[Any, str]:
        registry = self.reader.registry
        table, _, option = key.partition(".")
        if table == "recipe":
            return draft.recipe[option], describe_recipe_value(option, draft.recipe[option], registry)
        if table == "model":
            model = cast("Choice", draft.model)
            if option:
                return model.options[option], describe_option(model, option, registry)
            return model, label(model, registry)
        choices = draft.techniques.get(key, ())
        return choices, describe_slot(key, choices, registry)

    def _settings(self, axes: Sequence[Axis], cell: Cell) -> Draft:
        draft = self.base
        model = draft.model_table or {}
        chosen = [(axis, axis.levels[index]) for axis, index in zip(axes, cell, strict=True)]
        for axis, level in sorted(chosen, key=lambda pair: pair[0].key != "model"):
            if axis.key == "model":
                model = {"name": level.raw} if isinstance(level.raw, str) else level.raw
            elif axis.table == "model":
                model = {**model, axis.option: level.raw}
            elif axis.table == "recipe":
                draft = replace(draft, recipe={**draft.recipe, axis.option: level.value})
            else:
                draft = draft.with_slot(axis.key, level.value)
        if any(axis.table == "model" for axis in axes):
            built = self._model(model)
            draft = replace(draft, model=built.model, model_table=built.model_table)
        return draft

    def _model(self, table: Mapping[str, Any]) -> Draft:
        """A combination of levels may be one that the model refuses, though each level alone is fine."""
        key = json.dumps(table, sort_keys=True)
        if key not in self._models:
            inner = self.reader.another()
            self._models[key] = change_model(self.base, dict(table), (), inner)
            for _, message in inner.problems:
                self.reader.report(self.place, f"model {show(table)}: {message}")
        return self._models[key]

    def _compare_with_baseline(self, axes: Iterable[Axis], cell: Cell) -> None:
        """What a suite says elsewhere of an axis must be the level that the baseline takes."""
        for axis, index in zip(axes, cell, strict=True):
            level = axis.levels[index]
            place = _elsewhere(axis, self.raw)
            mistaken = self.base.model is None if axis.table == "model" else axis.option not in ("", *self.base.recipe)
            if place is None or mistaken:
                continue
            value, text = self._value(axis.key, self.base)
            if value != level.value:
                reference = f"the design's axis {axis.key!r} gives the baseline {level.text}"
                self.reader.report(place, f"{text} here, but {reference}: leave it out here")

    def _name(self, kind: Kind, axes: Sequence[Axis], previous: Cell, cell: Cell) -> str:
        registry = self.reader.registry
        if kind == "cumulative":
            axis, old, new = next((a, i, j) for a, i, j in zip(axes, previous, cell, strict=True) if i != j)
            return f"+ {axis.gain(old, new, registry)}"
        if kind == "leave-one-out":
            axis = next(a for a, j in zip(axes, cell, strict=True) if j == 0)
            return f"without {axis.gain(0, len(axis.levels) - 1, registry)}"
        short = Counter(axis.option or axis.key for axis in axes)
        return ", ".join(
            f"{(axis.option or axis.key) if short[axis.option or axis.key] == 1 else axis.key}={axis.levels[j].text}"
            for axis, j in zip(axes, cell, strict=True)
            if j
        )

    def _without_each(self) -> list[tuple[str, Draft]]:
        """Every technique of the baseline left out in turn."""
        found = [(slot, i) for slot, choices in self.base.techniques.items() for i in range(len(choices))]
        if not found:
            self.reader.report(self.place, "leave-one-out without axes leaves out [baseline]'s techniques: it has none")
        techniques = self.base.techniques
        names = Counter(techniques[slot][i].name for slot, i in found)
        arms = []
        for slot, i in found:
            choices = techniques[slot]
            name = choices[i].name if names[choices[i].name] == 1 else label(choices[i], self.reader.registry)
            arms.append((f"without {name}", self.base.with_slot(slot, choices[:i] + choices[i + 1 :])))
        return list(zip(_unique(name for name, _ in arms), (draft for _, draft in arms), strict=True))


def _elsewhere(axis: Axis, raw: Mapping[str, Any]) -> Place | None:
    """Where else the suite sets what an axis sets, if it does."""
    if not axis.option:
        place: Place = ("model",) if axis.key == "model" else ("baseline", axis.key)
    else:
        place = (axis.table, axis.option)
    inside: Any = raw
    for key in place:
        if not isinstance(inside, dict) or key not in inside:
            return None
        inside = inside[key]
    return place


def _unique(names: Iterable[str]) -> list[str]:
    seen: Counter[str] = Counter()
    result = []
    for name in names:
        seen[name] += 1
        result.append(name if seen[name] == 1 else f"{name} ({seen[name]})")
    return result
