"""Learning curves as a CSV file."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from annotated_types import MinLen

from cnnbench import hookimpl, technique

if TYPE_CHECKING:
    from collections.abc import Mapping

COLUMNS = ("epoch", "step", "train_loss", "validation_loss", "validation_accuracy", "learning_rate")
"""Fields of ``cnnbench.types.Progress`` that become columns, behind dataset, arm, seed and stage."""


@technique("tracker", "template_name")
class Template:
    """Writes a line of a CSV file into the results folder after each epoch.

    Columns: dataset, arm, seed, stage, epoch and step (epochs count from 0, steps are those taken so far), losses,
    accuracy as a share, learning rate. The file is written anew by each run and flushed after each line. Trials whose
    training was done before have no lines, since nothing of them happens again.

    Helps to watch a long run from a spreadsheet, or with ``tail -f``. Known not to help afterwards: the records hold
    the same curves, those of earlier runs too.

    Attributes:
        file: its name, in the results folder.
    """

    # An option is a typed field. ``cnnbench run`` names a tracker without options, so this is the value it gets.
    file: Annotated[str, MinLen(1)] = "epochs.csv"

    def __call__(self, run: Mapping[str, Any]) -> Curves:
        """Make the observer of a run; ``run`` says its suite, question, device and results folder."""
        return Curves(Path(run["results"]) / self.file)


class Curves:
    """Writes epochs down. Whatever it raises becomes a warning and costs no trial.

    Args:
        path: the file; its folder is made where there is none.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("w", encoding="utf-8", newline="")
        self._table = csv.writer(self._file)
        self._table.writerow(("dataset", "arm", "seed", "stage", *COLUMNS))

    @hookimpl
    def cnnbench_epoch_finished(self, trial: Mapping[str, Any], progress: Mapping[str, Any]) -> None:
        """A training epoch ended in a worker; other hooks are listed in ``cnnbench.hookspecs``."""
        self._table.writerow(
            (trial["dataset"], trial["arm"], trial["seed"], trial["stage"], *(progress[column] for column in COLUMNS))
        )
        self._file.flush()

    def close(self) -> None:
        """The run is over, or was broken off."""
        self._file.close()
