"""What an arm changes, in words."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from cnnbench.options import format_value, label, options_of
from cnnbench.slots import SLOTS
from cnnbench.types import Choice, Recipe

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cnnbench.registry import Registry
    from cnnbench.types import Settings


def describe_slot(slot: str, choices: Sequence[Choice], registry: Registry) -> str:
    """A slot's techniques in short: ``hflip + translate(pixels=2)``."""
    if choices:
        return " + ".join(label(choice, registry) for choice in choices)
    return "none" if SLOTS[slot].many else "the model's own"


def describe_recipe_value(key: str, value: Any, registry: Registry) -> str:
    """A value of the recipe in short."""
    option = options_of(Recipe)[key]
    return format_value(option.plain(value), option, registry)


def describe_option(choice: Choice, key: str, registry: Registry) -> str:
    """The value of one option of a choice in short."""
    option = options_of(registry.get(choice.slot, choice.name).cls)[key]
    return format_value(choice.options[key], option, registry)


def describe(baseline: Settings, settings: Settings, registry: Registry) -> str:
    """What differs from the baseline: ``norm=group(groups=8), recipe.batch_size=4``; empty where nothing does."""
    parts = []
    if settings.model.name != baseline.model.name:
        parts.append(f"model={label(settings.model, registry)}")
    else:
        options = settings.model.options
        parts += [
            f"model.{key}={describe_option(settings.model, key, registry)}"
            for key in options
            if options[key] != baseline.model.options[key]
        ]
    for field in dataclasses.fields(Recipe):
        value = getattr(settings.recipe, field.name)
        if value != getattr(baseline.recipe, field.name):
            parts.append(f"recipe.{field.name}={describe_recipe_value(field.name, value, registry)}")
    for slot in SLOTS:
        choices = settings.techniques.get(slot, ())
        if choices != baseline.techniques.get(slot, ()):
            parts.append(f"{slot}={describe_slot(slot, choices, registry)}")
    return ", ".join(parts)
