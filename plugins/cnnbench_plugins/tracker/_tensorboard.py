"""Event files of TensorBoard, by PyTorch's writer."""

from __future__ import annotations

import re
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch.utils.tensorboard import SummaryWriter

from cnnbench.table_formats import markdown

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cnnbench.tables import Report
    from cnnbench_plugins.tracker._observer import Value


class EventFiles:
    """A folder for the run, with one for each trial within."""

    def __init__(self, run: Mapping[str, Any]) -> None:
        self._folder = Path(run["results"]) / "tensorboard" / datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
        self._taken: Counter[str] = Counter()

    def open(self, name: str) -> Events:
        """A trial in a folder of its own."""
        folder = _folder_name(name)
        self._taken[folder] += 1
        count = self._taken[folder]
        return Events(self._folder / (folder if count == 1 else f"{folder}-{count}"))

    def table(self, report: Report) -> None:
        """The tables as Markdown, which TensorBoard shows as such."""
        with SummaryWriter(str(self._folder)) as writer:
            writer.add_text("table", markdown(report))

    def close(self, *, complete: bool) -> None:
        """Nothing is open between the calls."""


class Events:
    """The event files of one trial."""

    def __init__(self, folder: Path) -> None:
        self._writer = SummaryWriter(str(folder))

    def curve(self, stage: str, epoch: int, values: Mapping[str, float]) -> None:
        """Scalars such as ``train/validation_accuracy``, on disk at once."""
        for name, value in values.items():
            self._writer.add_scalar(f"{stage}/{name}", value, epoch)
        self._writer.flush()

    def finish(self, status: str, reason: str, params: Mapping[str, Value], metrics: Mapping[str, float]) -> None:
        """Scalars such as ``final/accuracy``, the status as text, and both with the settings as hyperparameters."""
        self._writer.add_text("status", f"{status}: {reason}" if reason else status)
        final = {f"final/{name}": value for name, value in metrics.items()}
        self._writer.add_hparams({**params, "status": status}, final, run_name=".")
        self._writer.close()

    def abandon(self) -> None:
        """What was written stays."""
        self._writer.add_text("status", "interrupted")
        self._writer.close()


def _folder_name(text: str) -> str:
    """A name as a folder's: what file systems differ on becomes ``_``."""
    return re.sub(r"[^\w.+-]+", "_", text).strip("._") or "_"
