"""Several starts, of which the best is kept."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, ClassVar

from annotated_types import Ge

from cnnbench import technique
from cnnbench.errors import Unsupported
from cnnbench.slots import StrategyKind

if TYPE_CHECKING:
    from cnnbench.slots import TrainingRun
    from cnnbench.types import Trained


@technique("strategy", "template_name")
class Template:
    """Train several networks from other random numbers and keep the one that validates best.

    Random restarts, the plainest search there is: member i = 0 .. starts - 1 is trained from its own initial weights,
    in its own order; the one of highest accuracy on the validation split is kept, the first of equals. The record notes
    all accuracies and which was kept. Training takes starts times as long; the network that is served costs no more.

    Helps where training sometimes fails. Known not to help much elsewhere: seeds differ by chance on the validation
    split too, and an ensemble of the same networks is better where its cost is no matter.

    Attributes:
        starts: how many networks are trained.
    """

    # Not an option, being a ClassVar: what it decides, so that no other strategy of a list undoes it.
    acts_on: ClassVar[StrategyKind] = "members"

    # An option is a typed field; its constraint is checked when a suite is read, before anything runs.
    starts: Annotated[int, Ge(2)] = 2

    def __call__(self, run: TrainingRun) -> Trained:
        """Train and choose; strategies never see the test split.

        Raises:
            Unsupported: there is no validation split to choose by.
        """
        trained = [run.fit(member=index) for index in range(self.starts)]
        accuracies = []
        for one in trained:
            accuracy = one.history[-1].validation_accuracy
            if accuracy is None:
                raise Unsupported("the best start is chosen by validation, and there is no validation split")
            accuracies.append(accuracy)
        best = accuracies.index(max(accuracies))
        return replace(trained[best], notes={**trained[best].notes, "accuracies": accuracies, "kept": best})
