"""The matrix of trials: every arm under every seed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from cnnbench.errors import UsageError
from cnnbench.references import BASELINE
from cnnbench.registry import nearest
from cnnbench.suite import Arm

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cnnbench.datasets import Dataset
    from cnnbench.suite import Suite

__all__ = ["Arm", "Trial", "arms", "trials"]


@dataclass(frozen=True)
class Trial:
    """One cell of the matrix.

    Attributes:
        arm: what is tried, with the settings of its dataset.
        seed: where its random streams start.
        dataset: label of its dataset.
    """

    arm: Arm
    seed: int
    dataset: str = ""

    def with_arm(self, arm: Arm) -> Trial:
        """Another arm under the same seed on the same dataset."""
        mine = self.arm.settings
        return replace(self, arm=replace(arm, settings=replace(arm.settings, dataset=mine.dataset, data=mine.data)))


def arms(suite: Suite, only: Sequence[str] = ()) -> list[Arm]:
    """All arms: the baseline first, then the file's order, the placebo last.

    Args:
        suite: a validated suite.
        only: names of arms to keep; the baseline stays, and so does what an arm that stays is compared with.

    Raises:
        UsageError: ``only`` names an arm that the suite has not.
    """
    every = [Arm(BASELINE, "baseline", suite.baseline, "", ""), *suite.arms]
    if suite.placebo:
        every.append(Arm("placebo", "placebo", suite.baseline, "other random streams", BASELINE))
    names = [arm.name for arm in every]
    for name in only:
        if name not in names:
            raise UsageError(f"suite {suite.name!r} has no arm {name!r}: {nearest(name, names)}".rstrip(": "))
    references = {arm.name: arm.against for arm in every}
    kept = {BASELINE}
    for name in only or names:
        while name and name not in kept:
            kept.add(name)
            name = references[name]  # noqa: PLW2901 - from reference to reference, up to the baseline
    return [arm for arm in every if arm.name in kept]


def trials(suite: Suite, only: Sequence[str] = ()) -> list[Trial]:
    """Every arm with every seed, dataset by dataset and arm by arm. Takes and raises what ``arms`` does."""
    return [
        Trial(arm, seed, dataset.label)
        for dataset in suite.datasets
        for arm in [_on(dataset, arm) for arm in arms(suite, only)]
        for seed in suite.seeds
    ]


def _on(dataset: Dataset, arm: Arm) -> Arm:
    return replace(arm, settings=replace(arm.settings, dataset=dataset.choice, data=dataset.data))
