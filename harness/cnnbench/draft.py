"""Settings while a suite is read: parts with mistakes are missing, and changes apply to what is there."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from cnnbench.expect import show
from cnnbench.options import options_of
from cnnbench.references import AGAINST
from cnnbench.registry import nearest
from cnnbench.slots import SLOTS
from cnnbench.types import Choice, DataOptions, Measure, Recipe, Settings

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cnnbench.locate import Place
    from cnnbench.reader import Reader

TOP = (
    *("question", "dataset", "model", "seeds", "device", "placebo", "time_limit", "plugins"),
    *("recipe", "baseline", "arms", "design", "measure", "statistics"),
)
"""Keys at the top of a suite file."""

ARM_SLOTS = tuple(name for name, slot in SLOTS.items() if slot.in_arm)

RECIPE_DEFAULTS: Mapping[str, Any] = {
    "epochs": 10,
    "batch_size": 64,
    "optimizer": {"name": "sgd", "lr": 0.1, "momentum": 0.9},
    "schedule": "cosine",
    "loss": "cross_entropy",
}
"""What a suite's ``[recipe]`` says where it says nothing, as TOML values."""


@dataclass(frozen=True)
class Draft:
    """Settings in the making.

    Attributes:
        dataset, data: None where they have mistakes.
        model_table: the model as TOML has it, with its name.
        model: the same, completed; None where it has mistakes.
        recipe: values by field; complete but for mistakes.
        techniques: as in ``Settings``.
    """

    dataset: Choice | None = None
    data: DataOptions | None = None
    model_table: Mapping[str, Any] | None = None
    model: Choice | None = None
    recipe: Mapping[str, Any] = field(default_factory=dict)
    techniques: Mapping[str, tuple[Choice, ...]] = field(default_factory=dict)

    def finish(self) -> Settings | None:
        """The settings, or None where a part is missing."""
        if self.dataset is None or self.data is None or self.model is None:
            return None
        if any(option.required and name not in self.recipe for name, option in options_of(Recipe).items()):
            return None
        return Settings(self.dataset, self.data, self.model, Recipe(**self.recipe), self.techniques)

    def with_slot(self, slot: str, choices: tuple[Choice, ...]) -> Draft:
        """This with a slot's techniques; none at all means the model's own."""
        techniques = {**self.techniques, slot: choices}
        return replace(self, techniques={name: techniques[name] for name in SLOTS if techniques.get(name)})


def change_model(draft: Draft, value: Any, place: Place, reader: Reader) -> Draft:
    """The draft with another model, or, where the table has no name, with other options of its own model."""
    if isinstance(value, dict) and value and "name" not in value:
        if draft.model is None:  # told already; what is said here is still looked at
            given_of_model(draft, value, place, reader)
            return draft
        value = {**(draft.model_table or {}), **value}
    model = reader.choice("model", value, place)
    table = {"name": value} if isinstance(value, str) else value
    return replace(draft, model=model, model_table=table if isinstance(table, dict) else None)


def given_of_model(draft: Draft, table: Mapping[str, Any], place: Place, reader: Reader) -> dict[str, Any]:
    """Options for the draft's model, checked one by one; nothing where the model is unknown."""
    name = (draft.model_table or {}).get("name")
    if not isinstance(name, str) or name not in reader.registry.names("model"):
        return {}
    return reader.given(options_of(reader.registry.get("model", name).cls), table, place, f"model {name!r}")


def change_recipe(draft: Draft, table: Any, place: Place, reader: Reader) -> Draft:
    """The draft with some values of the recipe changed."""
    if not isinstance(table, dict):
        reader.report(place, f"expected a table such as {{ epochs = 20 }}, got {show(table)}")
        return draft
    return replace(draft, recipe={**draft.recipe, **reader.given(options_of(Recipe), table, place, "the recipe")})


def change_slot(draft: Draft, slot: str, value: Any, place: Place, reader: Reader) -> Draft:
    """The draft with a slot's techniques changed: a name, a table, a list of these, or ``"none"``."""
    if value == "none" and "none" not in reader.registry.names(slot):
        return draft.with_slot(slot, ())
    if isinstance(value, list) and not SLOTS[slot].many:
        reader.report(place, f"slot {slot} takes one technique, got a list: {show(value)}")
        return draft
    if isinstance(value, list):
        choices = [reader.choice(slot, item, (*place, i)) for i, item in enumerate(value)]
    else:
        choices = [reader.choice(slot, value, place)]
    return draft.with_slot(slot, tuple(choice for choice in choices if choice))


def change(draft: Draft, key: str, value: Any, place: Place, reader: Reader) -> Draft:
    """The draft with one key of an arm applied."""
    if key == "model":
        return change_model(draft, value, place, reader)
    if key == "recipe":
        return change_recipe(draft, value, place, reader)
    if key in ARM_SLOTS:
        return change_slot(draft, key, value, place, reader)
    reader.report(place, unknown_key(key, "in an arm", (*ARM_SLOTS, "model", "recipe", AGAINST)))
    return draft


def unknown_key(key: str, where: str, known: tuple[str, ...]) -> str:
    """What to say of a key that has no meaning where it stands: the place where it has one, or the nearest name."""
    homes = {
        "at the top of the file": TOP,
        "in [baseline] or an arm": ARM_SLOTS,
        "in an arm of [arms]": (AGAINST,),
        "in [recipe], or an arm's recipe = { ... }": tuple(options_of(Recipe)),
        "in [measure]": tuple(options_of(Measure)),
        "in the dataset's table": tuple(options_of(DataOptions)),
    }
    home = next((name for name, keys in homes.items() if key in keys), None)
    if home is None and key == "metric":
        home = "in measure.metrics, by name"
    if home:
        return f"{key!r} belongs {home}"
    hint = nearest(key, known)
    if "did you mean" not in hint:  # perhaps a slip in a name that belongs elsewhere
        far = nearest(key, [name for keys in homes.values() for name in keys])
        hint = far if "did you mean" in far else hint
    return f"unknown key {key!r} {where}: {hint}".rstrip(": ")
