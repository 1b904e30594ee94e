"""Several networks in place of one."""

from __future__ import annotations

import copy
import math
from itertools import pairwise
from typing import TYPE_CHECKING, Annotated, ClassVar

from annotated_types import Ge

from cnnbench.slots import Observer, StrategyKind
from cnnbench.technique import technique
from cnnbench.types import Trained

if TYPE_CHECKING:
    from cnnbench.lazy import nn, torch
    from cnnbench.slots import TrainingRun


@technique("strategy", "deep_ensemble")
class DeepEnsemble:
    """Train several networks from other random numbers and average their probabilities.

    p(y|x) = 1/k sum_i p_i(y|x) over k members, each trained on all of the data from its own initialization and in its
    own order (Lakshminarayanan et al. 2017, section 2.4, without adversarial training; k = 5 is the paper's). The
    output is log p [N, K]. The first member is the network that the arm would train without this strategy. The result
    really holds k networks: parameters, multiply-adds, size, latency and energy are those of all k, and so is the
    training time. A strategy that stands behind this one in the list acts on each member.

    Helps accuracy, and calibration and NLL still more; the measure to beat for every way of cheaper uncertainty. Known
    to gain little beyond 5 to 10 members, and to lose to one larger network of the same cost where that is not yet
    large enough (Lobacheva et al. 2020).
    """

    acts_on: ClassVar[StrategyKind] = "members"

    k: Annotated[int, Ge(2)] = 5

    def __call__(self, run: TrainingRun) -> Trained:
        """Train the members one after the other; the history is the first one's."""
        from cnnbench_plugins.strategy._combined import Ensemble

        members = [run.fit(member=index) for index in range(self.k)]
        return Trained(
            Ensemble([member.model for member in members]).eval(),
            members[0].history,
            {"members": [member.notes for member in members]},
            list(dict.fromkeys(remark for member in members for remark in member.remarks)),
        )


class Cycles(Observer):
    """Cosine annealing with restarts, and a copy of the weights at the end of each cycle.

    Attributes:
        snapshots: state dicts, one for each cycle that has ended.
    """

    def __init__(self, cycles: int) -> None:
        self.cycles = cycles
        self.snapshots: list[dict[str, torch.Tensor]] = []
        self._total = 0

    def __call__(self, step: int, total_steps: int) -> float:
        """Factor of the learning rate for 0-based ``step`` of ``total_steps``."""
        self._total = total_steps
        first, end = next((a, b) for a, b in pairwise(self._boundaries()) if step < b)
        return (math.cos(math.pi * (step - first) / (end - first)) + 1) / 2

    def after_step(self, model: nn.Module, step: int) -> None:
        """Copy the weights where a cycle ends."""
        if self.ends(step):
            self.snapshots.append({name: value.detach().clone() for name, value in model.state_dict().items()})

    def ends(self, step: int) -> bool:
        """Whether 0-based ``step`` is the last of a cycle."""
        return step + 1 in self._boundaries()

    def _boundaries(self) -> list[int]:
        """First step of each cycle and the number of steps: i T / M, rounded; a cycle has at least one step."""
        count = min(self.cycles, self._total)
        return [(2 * index * self._total + count) // (2 * count) for index in range(count + 1)]


@technique("strategy", "snapshot_ensemble")
class SnapshotEnsemble:
    """Train one network in cycles of the learning rate and average the probabilities of the networks they end with.

    The recipe's schedule gives way to a(t) = a0 / 2 (cos(pi s / L) + 1) at step s = 0..L-1 of each of M ``cycles``:
    from the full rate down to nearly 0, then at once back (Huang et al. 2017, equation 2; the T steps are the arm's own
    budget, so that no training is added). ! There L = ceil(T/M), which makes fewer than M cycles of a short training
    (4, of 12 steps in 5) and cuts the last one off; here cycle i = 1..M ends at step i T / M, rounded. At the end of
    each cycle the weights and batch-norm statistics are kept. p(y|x) is the mean over the M snapshots (one a step where
    T < M, and a remark), the output log p [N, K]. Parameters, multiply-adds, size, latency and energy are those of all
    M networks. The paper takes 4 to 6 cycles of 40 to 50 epochs.

    Helps where a budget is long enough for a network to converge several times. Known to fall short of
    ``deep_ensemble`` with as many members, since the snapshots are alike, and to lose to a single network on a short
    budget, whose cycles are too short to converge. It decides which weights a training ends with, so it can't be
    joined with ``ema``, ``swa`` or ``early_stopping``.
    """

    # Not "members": a strategy within that chose the weights of the one fit would be passed over by the snapshots.
    acts_on: ClassVar[StrategyKind] = "weights"

    cycles: Annotated[int, Ge(2)] = 5

    def __call__(self, run: TrainingRun) -> Trained:
        """Train once and make a network of every snapshot."""
        from cnnbench_plugins.strategy._combined import Ensemble

        cycles = Cycles(self.cycles)
        trained = run.fit(cycles, schedule=cycles)
        members = []
        for state in cycles.snapshots:
            member = copy.deepcopy(trained.model)
            member.load_state_dict(state)
            members.append(member)
        notes = {**trained.notes, "snapshots": len(members)}
        few = f"snapshot_ensemble has {len(members)} snapshots for {self.cycles} cycles: training has no more steps"
        remarks = [*trained.remarks, *([few] if len(members) < self.cycles else [])]
        return Trained(Ensemble(members).eval(), trained.history, notes, remarks)


TECHNIQUES = (DeepEnsemble, SnapshotEnsemble)
