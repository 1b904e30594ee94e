"""What a suite would run, for Python and notebooks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cnnbench.report_html import element, text

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class SuitePlan:
    """What a run of a suite would do, as ``cnnbench plan`` tells it.

    Attributes:
        text: arms, trials, stages, what is on disk already, what the rest may cost, and what the seeds can show.
        trials: one row for each: ``dataset``, ``arm``, ``role``, ``changes``, ``seed``, and ``skip``, the reason why it
            will not run, empty where it will.
    """

    text: str
    trials: pd.DataFrame

    def __repr__(self) -> str:
        return self.text

    def _repr_html_(self) -> str:
        safe = "\n".join(map(text, self.text.splitlines()))
        return element("pre", safe, style="white-space: pre; overflow-x: auto")
