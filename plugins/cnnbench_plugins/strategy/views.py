"""Several views of each image at inference."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, ClassVar

from annotated_types import Ge

from cnnbench.slots import StrategyKind  # noqa: TC001 - read at run time
from cnnbench.technique import technique

if TYPE_CHECKING:
    from cnnbench.slots import TrainingRun
    from cnnbench.types import Trained


@technique("strategy", "test_time_augmentation")
class ViewAveraging:
    """Ask the trained network about several views of each image and average the probabilities.

    The views are the image itself, its mirror image (``hflip``), and each of these moved by ``shift`` pixels up, down,
    left and right: 2, 5 or 10 views (Krizhevsky et al. 2012, section 4.1, with five crops and their mirror images; He
    et al. 2016). Moves are made on the normalized input and repeat the edge. Output: log of the mean probability [N,
    K]. Training does not change; every prediction costs as many forward passes as there are views, which
    multiply-adds, latency and energy show.

    Helps where the network was trained with the same transformations, by a few tenths of a point. Known to hurt where a
    transformation changes the class (mirrored digits and letters: set ``hflip = false``), and to turn some right
    predictions wrong even where it helps on average (Shanmugam et al. 2021).
    """

    acts_on: ClassVar[StrategyKind] = "inference"

    hflip: bool = True
    shift: Annotated[int, Ge(0)] = 0

    def __post_init__(self) -> None:
        if not (self.hflip or self.shift):
            raise ValueError("there is only one view: set hflip = true or shift to 1 or more pixels")

    def __call__(self, run: TrainingRun) -> Trained:
        """Train as ever, then wrap the network."""
        from cnnbench_plugins.strategy._combined import ViewAverage

        trained = run.fit()
        return replace(trained, model=ViewAverage(trained.model, hflip=self.hflip, shift=self.shift).eval())


TECHNIQUES = (ViewAveraging,)
