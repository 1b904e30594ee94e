"""Records of a designed experiment to what its design can tell: main effects and interactions, or each step's gain.

Judged are the quality metrics, and the primary metric where its noise is known over seeds; each metric's main effects
are one family, its interactions another, its steps a third.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Literal, cast

import numpy as np

from cnnbench.design import cells, count
from cnnbench.inference import Inference
from cnnbench.quantities import quantities, smallest_step
from cnnbench.ratios import FEWEST_SEEDS
from cnnbench.stats import designs
from cnnbench.stats.intervals import mean_interval
from cnnbench.stats.sequential import judge_sequentially
from cnnbench.stats.verdicts import judge
from cnnbench.verdicts import kind_of, levels, looks_of, verdicts

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from cnnbench.design import Cell, Kind
    from cnnbench.frame import TrialSet
    from cnnbench.quantities import Quantity
    from cnnbench.stats.designs import Contrast
    from cnnbench.stats.intervals import Estimate
    from cnnbench.stats.verdicts import Judgement

Family = Literal["effects", "interactions", "steps"]
_SEED = 0
"""Of the generator behind bootstraps and Monte Carlo tests: a table rendered again is the same to the last digit."""


@dataclass(frozen=True)
class Axis:
    """What a design varies.

    Attributes:
        name: its key, without ``recipe.`` or ``model.`` where that is plain.
        levels: in words; the first is the reference.
    """

    name: str
    levels: tuple[str, ...]

    def change(self, level: int) -> str:
        """From the first level to another, e.g. ``norm: batch → group``."""
        return f"{self.name}: {self.levels[0]} → {self.levels[level]}"


@dataclass(frozen=True)
class Design:
    """A design as records tell it.

    Attributes:
        kind: ``factorial`` or ``cumulative``.
        axes: what it varies.
        arms: by cell, the baseline first, then in the design's order.
    """

    kind: Literal["factorial", "cumulative"]
    axes: tuple[Axis, ...]
    arms: Mapping[Cell, str]

    @property
    def sizes(self) -> list[int]:
        """Number of levels of each axis."""
        return [len(axis.levels) for axis in self.axes]


@dataclass(frozen=True)
class Effect:
    """What one change does, or two of them together.

    Attributes:
        name: the change in words.
        arms: all that it is taken from.
        judgements: by quantity key; of logarithms where the quantity is a time.
    """

    name: str
    arms: tuple[str, ...]
    judgements: Mapping[str, Judgement]


@dataclass(frozen=True)
class Interplay:
    """How two axes of a factorial design go together, for a plot.

    Attributes:
        quantity: of which.
        axes: both.
        means: over seeds, and over the levels of all other axes, in the recorded unit (of times the logarithm of the
            ratio to the baseline's): [levels of the first axis][of the second], with their t interval. All cells are of
            the same seeds, those that lack no arm.
        judgements: by level of the first and of the second axis, neither the first level.
    """

    quantity: Quantity
    axes: tuple[Axis, Axis]
    means: tuple[tuple[Estimate, ...], ...]
    judgements: Mapping[tuple[int, int], Judgement]


def design_of(trials: TrialSet) -> Design | None:
    """The design of a run, where it is one that has effects or steps and its arms were all planned, else None."""
    told = trials.heading.get("design") or {}
    arms = {tuple(cell): arm for arm, cell in (told.get("cells") or {}).items()}
    if told.get("kind") not in {"factorial", "cumulative"} or not arms or set(arms.values()) - set(trials.arms):
        return None
    sizes = [len(axis["levels"]) for axis in told["axes"]]
    if len(arms) != 1 + count(told["kind"], sizes):  # told before they are listed: twenty axes have a million cells
        return None
    first, others = cells(told["kind"], sizes)
    if arms.keys() != {first, *others}:
        return None
    short = [axis["key"].rpartition(".")[2] for axis in told["axes"]]
    names = [name if short.count(name) == 1 else axis["key"] for name, axis in zip(short, told["axes"], strict=True)]
    axes = tuple(Axis(name, tuple(axis["levels"])) for name, axis in zip(names, told["axes"], strict=True))
    return Design(told["kind"], axes, arms)


def primary_of(trials: TrialSet) -> Quantity:
    """The quantity that decides."""
    measure = trials.heading.get("measure") or {}
    sizes = (measure.get("latency") or {}).get("batch_sizes") or [1]
    return quantities([str(measure.get("primary") or "accuracy")], sizes)[0]


def judged_quantities(trials: TrialSet, columns: Sequence[Quantity]) -> list[Quantity]:
    """The quantities whose effects are judged: those of quality, and the primary one first, if its noise is known."""
    primary = primary_of(trials).key
    wanted = [column for column in columns if column.stage == "evaluate" or column.key == primary]
    fit = [column for column in wanted if kind_of(column) in {"plain", "timed"}]
    return sorted(fit, key=lambda column: column.key != primary)


def families(trials: TrialSet, columns: Sequence[Quantity]) -> dict[Family, tuple[Effect, ...]]:
    """What the design of a run can tell, judged; empty for runs without such a design.

    Args:
        trials: of one dataset.
        columns: the quantities of its table.
    """
    design = design_of(trials)
    judged = judged_quantities(trials, columns)
    if design is None or not judged:
        return {}
    margins = verdicts(trials, judged).margins
    found: dict[Family, tuple[Effect, ...]] = {}
    for family, members in contrasts_of(design.kind, design.sizes).items():
        by_key = {q.key: _judged(trials, design, members, q, margins.get(q.key)) for q in judged}
        found[family] = tuple(
            Effect(
                name_of(design, member),
                tuple(design.arms[cell] for cell in (*member.minus, *member.plus)),
                {key: judgements[place] for key, judgements in by_key.items()},
            )
            for place, member in enumerate(members)
        )
    return found


def contrasts_of(kind: Kind, sizes: Sequence[int]) -> dict[Family, list[Contrast]]:
    """The contrasts of a design by family; of designs whose table of arms says it all there are none.

    Args:
        kind: of design.
        sizes: number of levels of each axis.
    """
    if kind == "cumulative":
        first, others = cells(kind, sizes)
        return {"steps": designs.steps([first, *others])}
    if kind != "factorial":
        return {}
    found: dict[Family, list[Contrast]] = {"effects": designs.main_effects(sizes)}
    return {**found, "interactions": designs.interactions(sizes)} if len(sizes) > 1 else found


def by_cell_of(trials: TrialSet, design: Design, quantity: Quantity) -> dict[Cell, NDArray[np.float64]]:
    """By cell one value a seed, [n], nan where a seed has none; of times the logarithm of the ratio to the baseline's.

    Args:
        trials: of one dataset.
        design: its design.
        quantity: one of ``judged_quantities``.
    """
    return {cell: levels(trials, arm, quantity) for cell, arm in design.arms.items()}


def differences(trials: TrialSet, family: Family, quantity: Quantity) -> list[NDArray[np.float64]]:
    """The contrasts of a family, of each one value a seed, [n], nan where a seed lacks an arm; of logarithms for times.

    Empty where the trials are of no such design. Takes what ``families`` does.
    """
    design = design_of(trials)
    if design is None:
        return []
    by_cell = by_cell_of(trials, design, quantity)
    sides = (contrast.sides(by_cell) for contrast in contrasts_of(design.kind, design.sizes).get(family, ()))
    return [plus - minus for plus, minus in sides]


def interplays(trials: TrialSet, quantity: Quantity) -> tuple[Interplay, ...]:
    """Every pair of axes of a factorial design; empty for other runs, and where no seed has all arms.

    Args:
        trials: of one dataset.
        quantity: one of ``judged_quantities``.
    """
    design = design_of(trials)
    if design is None or design.kind != "factorial" or len(design.axes) < 2:
        return ()
    by_cell = np.stack(list(by_cell_of(trials, design, quantity).values()))
    by_cell = by_cell[:, np.isfinite(by_cell).all(axis=0)]
    if by_cell.shape[1] == 0:
        return ()
    at = np.array(list(design.arms))
    members = designs.interactions(design.sizes)
    margin = verdicts(trials, [quantity]).margins.get(quantity.key)
    judged = dict(zip(members, _judged(trials, design, members, quantity, margin), strict=True))
    found = []
    for pair in dict.fromkeys(member.axes for member in members):
        one, other = pair
        sizes = design.sizes[one], design.sizes[other]
        means = tuple(
            tuple(
                cast("Estimate", mean_interval(by_cell[(at[:, one] == i) & (at[:, other] == j)].mean(axis=0)))
                for j in range(sizes[1])
            )
            for i in range(sizes[0])
        )
        own = {(m.levels[0], m.levels[1]): judgement for m, judgement in judged.items() if m.axes == pair}
        found.append(Interplay(quantity, (design.axes[one], design.axes[other]), means, own))
    return tuple(found)


def name_of(design: Design, contrast: Contrast) -> str:
    """A contrast in words: the change, both changes, or the arm that a step leads to."""
    if not contrast.axes:
        return design.arms[contrast.plus[0]]
    changes = [design.axes[axis].change(level) for axis, level in zip(contrast.axes, contrast.levels, strict=True)]
    return " × ".join(changes)


def _judged(
    trials: TrialSet, design: Design, contrasts: Sequence[Contrast], quantity: Quantity, margin: float | None
) -> list[Judgement]:
    """One family: the contrasts of one quantity."""
    by_cell = by_cell_of(trials, design, quantity)
    if kind_of(quantity) == "timed" and margin is not None:
        margin = math.log1p(margin)
    looks = looks_of(trials)
    judged = (partial(judge_sequentially, looks=looks) if looks else judge)(
        {str(place): contrast.sides(by_cell) for place, contrast in enumerate(contrasts)},
        better=cast("Literal['higher', 'lower']", quantity.better),
        margin=margin,
        inference=Inference.from_plain(trials.heading.get("statistics")),
        # The finest of the family's steps would be too sure of the others.
        resolution=smallest_step(quantity, trials.records.values()) * max(contrast.share for contrast in contrasts),
        rng=np.random.default_rng(_SEED),
    )
    if kind_of(quantity) != "timed":
        return list(judged.values())
    return [one if one.n >= FEWEST_SEEDS else replace(one, verdict="unresolved") for one in judged.values()]
