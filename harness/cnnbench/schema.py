"""JSON Schema (draft 2020-12) of suite files, with the options of every installed technique, for editors.

It describes one value at a time; what concerns several at once (two equal arms, an axis that [baseline] contradicts)
only ``cnnbench plan`` can tell.
"""

from __future__ import annotations

import inspect
import re
from typing import TYPE_CHECKING, Any

from cnnbench.design import KINDS
from cnnbench.draft import ARM_SLOTS, RECIPE_DEFAULTS
from cnnbench.inference import Inference
from cnnbench.measuring import known_metrics
from cnnbench.options import default_of, options_of
from cnnbench.references import AGAINST, BASELINE
from cnnbench.slots import SLOTS
from cnnbench.suite import DEVICES, RESERVED, Header
from cnnbench.types import Choice, DataOptions, EnergyOptions, LatencyOptions, Measure, Recipe

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cnnbench.options import Option
    from cnnbench.registry import Entry, Registry

Schema = dict[str, Any]


def json_schema(registry: Registry) -> Schema:
    """The schema of the suite format for the techniques of ``registry``, as JSON-ready data."""
    defs: Schema = {}
    for entry in registry:
        defs[f"{entry.card.slot}.{entry.card.name}"] = _technique(entry, registry)
    for slot in SLOTS:
        entries = [entry for entry in registry if entry.card.slot == slot]
        if entries:
            defs[slot] = {"description": SLOTS[slot].summary, "anyOf": [*_names(entries), *_tables(entries)]}
        else:
            defs[slot] = {"description": SLOTS[slot].summary, "not": {}}
    recipe = _properties(Recipe, registry)
    for key, default in RECIPE_DEFAULTS.items():
        recipe[key]["default"] = default
    slots = {slot: _slot_value(slot) for slot in ARM_SLOTS}
    defs["recipe"] = _table(recipe, "The training budget and procedure that all arms share.")
    defs["baseline"] = _table(slots, "Techniques by slot; a slot left out keeps the model's own.")
    defs["arm"] = _table(
        {**slots, "model": {"anyOf": [_ref("model"), _UNNAMED]}, "recipe": _ref("recipe"), AGAINST: _AGAINST},
        "The baseline with these changes.",
    )
    defs["measure"] = _measure(registry)
    defs["statistics"] = _table(_properties(Inference, registry), _summary(Inference))
    defs["design"] = _design(slots, recipe)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "cnnbench suite",
        **_table(_top(registry), "A controlled ablation."),
        "required": ["question", "dataset"],
        # A design may have the model as an axis.
        "anyOf": [{"required": ["model"]}, {"required": ["design"], "properties": {"design": {"required": ["model"]}}}],
        "not": {"required": ["arms", "design"]},
        "$defs": defs,
    }


_UNNAMED: Schema = {
    "description": "other options of the baseline's own model",
    "type": "object",
    "minProperties": 1,
    "not": {"required": ["name"]},
}

_AGAINST: Schema = {
    "description": "Name of the arm that this one is compared with, in place of the baseline.",
    "type": "string",
    "default": BASELINE,
}


def _top(registry: Registry) -> Schema:
    header = _properties(Header, registry)
    header["device"]["pattern"] = f"^({'|'.join(DEVICES)}|({'|'.join(DEVICES[1:])}):[0-9]+)$"
    return {
        **header,
        "dataset": {"anyOf": [_ref("dataset"), {"type": "array", "minItems": 1, "items": _ref("dataset")}]},
        **{key: _ref(key) for key in ("model", "recipe", "baseline", "design", "measure", "statistics")},
        "arms": {
            "description": "Arms by name; each is the baseline with its changes.",
            "type": "object",
            "propertyNames": {"not": {"enum": list(RESERVED)}},
            "additionalProperties": _ref("arm"),
        },
    }


def _measure(registry: Registry) -> Schema:
    metric = {"enum": list(known_metrics(registry))}
    properties = _properties(Measure, registry)
    properties["primary"] |= metric
    properties["metrics"] |= {"items": metric, "uniqueItems": True}
    properties["margin"] |= {"propertyNames": metric}
    properties["latency"] = _table(_properties(LatencyOptions, registry), _summary(LatencyOptions))
    properties["energy"] = _table(_properties(EnergyOptions, registry), _summary(EnergyOptions))
    return _table(properties, _summary(Measure))


def _design(slots: Schema, recipe: Schema) -> Schema:
    """Axes by slot, ``model``, ``model.X`` and ``recipe.X``; the last two with or without quotes."""
    anything: Schema = {"type": "array", "minItems": 2}
    by_recipe = {key: _axis(value) for key, value in recipe.items()}
    properties = {
        "kind": {"description": "which combinations of levels become arms", "enum": list(KINDS)},
        **{slot: _axis(value) for slot, value in slots.items()},
        **{f"recipe.{key}": value for key, value in by_recipe.items()},
        "recipe": _table(by_recipe, "axes over values of the recipe"),
        "model": {"anyOf": [_axis(_ref("model")), {"type": "object", "additionalProperties": anything}]},
    }
    table = _table(properties, "Axes, each a list of levels whose first is the reference.")
    return {**table, "patternProperties": {r"^model\..+": anything}, "required": ["kind"]}


def _axis(level: Schema) -> Schema:
    return {"type": "array", "minItems": 2, "items": {k: v for k, v in level.items() if k != "default"}}


def _slot_value(slot: str) -> Schema:
    values: list[Schema] = [_ref(slot), {"const": "none", "description": "the model's own"}]
    if SLOTS[slot].many:
        values.append({"type": "array", "items": _ref(slot)})
    return {"description": SLOTS[slot].summary, "anyOf": values}


def _names(entries: Iterable[Entry]) -> list[Schema]:
    return [
        {"const": entry.card.name, "description": entry.summary}
        for entry in entries
        if not any(option.required for option in options_of(entry.cls).values())
    ]


def _tables(entries: Iterable[Entry]) -> list[Schema]:
    return [_ref(f"{entry.card.slot}.{entry.card.name}") for entry in entries]


def _technique(entry: Entry, registry: Registry) -> Schema:
    properties = {"name": {"const": entry.card.name}, **_properties(entry.cls, registry)}
    if entry.card.slot == "dataset":
        properties = {**_properties(DataOptions, registry), **properties}
    required = [name for name, option in options_of(entry.cls).items() if option.required]
    return {**_table(properties, entry.summary), "required": ["name", *required]}


def _properties(cls: type[Any], registry: Registry) -> Schema:
    documented = _documented(cls)
    return {name: _option(option, registry, documented.get(name)) for name, option in options_of(cls).items()}


def _option(option: Option, registry: Registry, description: str | None) -> Schema:
    """One option's schema. TOML has no null, so an option that may be None is one that may be left out."""
    if option.slot:
        schema = {"type": "array", "items": _ref(option.slot)} if option.many else _ref(option.slot)
    else:
        schema = _without_null(option.schema)
    if description:
        schema["description"] = description
    default = None if option.required else default_of(option, registry)
    if default is not None:
        schema["default"] = _as_toml(option.plain(default), option)
    return schema


def _as_toml(plain: Any, option: Option) -> Any:
    """A default as a suite would write it: a choice is a table with its name."""
    if option.slot and isinstance(plain, list):
        return [_as_toml(item, option) for item in plain]
    if option.slot:
        choice = Choice.from_plain(plain)
        return {"name": choice.name, **choice.options}
    return plain


def _without_null(schema: Schema) -> Schema:
    parts = [part for part in schema.get("anyOf", ()) if part.get("type") != "null"]
    rest = {key: value for key, value in schema.items() if key != "anyOf"}
    if not parts:
        return rest
    return {**rest, **parts[0]} if len(parts) == 1 else {**rest, "anyOf": parts}


def _table(properties: Schema, description: str) -> Schema:
    return {"description": description, "type": "object", "properties": properties, "additionalProperties": False}


def _ref(name: str) -> Schema:
    return {"$ref": f"#/$defs/{name}"}


def _summary(cls: type[Any]) -> str:
    return inspect.cleandoc(cls.__doc__ or "").partition("\n")[0]


def _documented(cls: type[Any]) -> dict[str, str]:
    """What a class's docstring says of each attribute in its section ``Attributes:`` (or ``Args:``)."""
    section = re.search(
        r"^(?:Attributes|Args):\n((?:[ \t]+.*\n?|\n)+)", inspect.cleandoc(cls.__doc__ or ""), re.MULTILINE
    )
    found: dict[str, str] = {}
    names: list[str] = []
    for line in section[1].splitlines() if section else ():
        entry = re.match(r"^ {4}(\w+(?:, \w+)*): (.*)", line)
        if entry:
            names = entry[1].split(", ")
            found |= dict.fromkeys(names, entry[2])
        else:
            found |= {name: f"{found[name]} {line.strip()}".strip() for name in names}
    return found
