"""The suite behind ``cnnbench try``: a small real task, with a baseline that suits the techniques."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from cnnbench.references import BASELINE
from cnnbench.slots import SLOTS
from cnnbench.toml_text import suite_text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cnnbench.registry import Entry

EPOCHS = 10
BATCH_SIZE = 64
RECIPE_SLOTS = ("optimizer", "schedule", "loss")
ARM_SLOTS = frozenset({"model", *RECIPE_SLOTS, *(name for name, slot in SLOTS.items() if slot.in_arm)})
"""Slots whose techniques are an arm each."""
_METRICS = ("accuracy", "nll", "params", "flops", "size", "latency", "agreement")
"""In the order of the columns."""
_SHOWN: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(("architecture", "model"), ("params", "flops", "latency")),
    **dict.fromkeys(("convolution", "pooling", "norm", "activation"), ("params", "flops")),  # a step's time tells more
    **dict.fromkeys(("initializer", "input", "augmentation", "regularizer", "strategy", *RECIPE_SLOTS), ("nll",)),
    "compressor": ("params", "size", "latency"),
    "runtime": ("latency", "agreement"),
    "dataset": ("nll",),
}
_USUAL: Mapping[str, tuple[Mapping[str, Any], ...]] = {
    "input": ({"name": "z_score"},),
    "optimizer": ({"name": "sgd", "lr": 0.1, "momentum": 0.9}, {"name": "adam", "lr": 0.001}),
    "schedule": ({"name": "cosine"}, {"name": "constant"}),
}
"""What a baseline has in a slot: the first that is not itself among the techniques that are tried."""


@dataclass(frozen=True)
class Base:
    """What techniques are tried on.

    Attributes:
        datasets: as in a suite; at least one.
        model: as in a suite.
        baseline: techniques of the baseline by slot.
        recipe: keys of the recipe beside its length.
    """

    datasets: tuple[Mapping[str, Any], ...]
    model: Mapping[str, Any]
    baseline: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    recipe: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def suited(self, entries: Sequence[Entry]) -> Base:
        """The same with what usually stands in the other slots, and on the datasets that are to be tried."""
        slots = {entry.card.slot for entry in entries}
        names = {entry.card.name for entry in entries}
        usual = {
            slot: next((one for one in choices if one["name"] not in names), choices[0])
            for slot, choices in _USUAL.items()
        }
        own = tuple(choice(entry) for entry in entries if entry.card.slot == "dataset")
        before = {} if "input" in slots else {"input": usual["input"]}
        return replace(
            self,
            datasets=own or self.datasets,
            baseline={**before, **self.baseline},
            recipe={slot: usual[slot] for slot in ("optimizer", "schedule")},
        )


_DIGITS = ({"name": "digits"},)
_SHAPES = ({"name": "shapes", "train_images": 600, "test_images": 300},)
_RESNET = {"name": "resnet", "depth": 8, "width": 8}
BASES = (
    Base(_DIGITS, _RESNET),
    Base(_DIGITS, {"name": "plain", "depth": 6, "width": 8}),  # it has windows to pool over
    Base(_SHAPES, _RESNET),  # it has colours
    Base(_DIGITS, {"name": "lenet"}),
    Base(_DIGITS, _RESNET, {"activation": {"name": "selu"}}),
    Base(_DIGITS, _RESNET, {"norm": {"name": "group", "groups": 4}}),
)
"""The first is for nearly everything; the others for what finds nothing to act on there."""


def choice(entry: Entry) -> dict[str, Any]:
    """A technique as a suite names it, with the options that its author tries it with."""
    return {"name": entry.card.name, **entry.card.example}


def arms_of(entries: Sequence[Entry]) -> dict[str, Entry]:
    """The techniques that are an arm each, by its name: the technique's, and its slot too where that would not do."""
    own = [entry for entry in entries if entry.card.slot in ARM_SLOTS]
    counts = Counter([BASELINE, "placebo", *(entry.card.name for entry in own)])
    return {
        entry.card.name if counts[entry.card.name] == 1 else f"{entry.card.slot} {entry.card.name}": entry
        for entry in own
    }


def suite_of(
    entries: Sequence[Entry], base: Base, *, plugins: Sequence[str], seeds: int, device: str, epochs: int = EPOCHS
) -> str:
    """The suite that tries some techniques, as text.

    Args:
        entries: of slots that a suite has a place for.
        base: what they are tried on.
        plugins: what the suite has to name to know them.
        seeds: how many.
        device: as in a suite.
        epochs: of every training.
    """
    names = " or ".join(entry.card.name for entry in entries) or "a baseline"
    shown = {"accuracy", *(metric for entry in entries for metric in _SHOWN.get(entry.card.slot, ()))}
    own = [entry.card.name for entry in entries if entry.card.slot == "metric"]
    latency = {"latency": {"batch_sizes": [32], "max_seconds": 0.3}} if "latency" in shown else {}
    datasets = [_short(one) for one in base.datasets]
    data = {
        "question": f"What does {names} do on a small task?",
        "plugins": plugins,
        "dataset": datasets if len(datasets) > 1 else datasets[0],
        "model": _short(base.model),
        "seeds": seeds,
        "device": device,
        "recipe": {"epochs": epochs, "batch_size": BATCH_SIZE, **_all_short(base.recipe)},
        "baseline": _all_short(base.baseline),
        "arms": {name: _changes(entry) for name, entry in arms_of(entries).items()},
        "measure": {"metrics": [*(name for name in _METRICS if name in shown), *own], **latency},
    }
    return suite_text({key: value for key, value in data.items() if value})[0]


def _changes(entry: Entry) -> dict[str, Any]:
    """What a technique's arm changes of the baseline."""
    change = {entry.card.slot: _short(choice(entry))}
    return {"recipe": change} if entry.card.slot in RECIPE_SLOTS else change


def _all_short(choices: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    return {slot: _short(one) for slot, one in choices.items()}


def _short(one: Mapping[str, Any]) -> Any:
    """A choice without options by its name alone."""
    return one["name"] if one.keys() == {"name"} else one
