"""A ranking of the arms as plain text."""

from __future__ import annotations

from statistics import mean
from typing import TYPE_CHECKING, Annotated, Any

from annotated_types import Ge, Le, MinLen

from cnnbench import technique

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


@technique("reporter", "template_name")
class Template:
    """Lists the arms of each dataset by the mean of one quantity over their seeds, the highest first.

    A plain mean over the trials that are ok; arms without any stand at the end. One line for each arm: the mean, the
    arm, and the number of its seeds. From records, a list of mappings, to text.

    Helps to see the outcome at a glance, in a mail or a chat. Known to say nothing of chance: whether an order means
    anything only the table's intervals and verdicts tell.

    Attributes:
        quantity: its key in a record's metrics, e.g. ``accuracy`` or ``latency_b32_ms``.
        digits: behind the decimal point.
    """

    # Options are typed fields. ``cnnbench report`` names a format without options, so these are the values it gets.
    quantity: Annotated[str, MinLen(1)] = "accuracy"
    digits: Annotated[int, Ge(0), Le(12)] = 4

    def __call__(self, records: Sequence[Mapping[str, Any]]) -> str:
        """The document."""
        # A trial that ran again has a later record, which counts.
        latest = {(record["dataset"], record["arm"], record["seed"]): record for record in records}
        arms: dict[str, dict[str, list[float]]] = {}
        for (dataset, arm, _), record in latest.items():
            values = arms.setdefault(dataset, {}).setdefault(arm, [])
            if record["status"] == "ok" and self.quantity in record["metrics"]:
                values.append(record["metrics"][self.quantity])
        lines = []
        for dataset, found in arms.items():
            lines.append(f"{self.quantity} on {dataset}")
            order = sorted(found, key=lambda arm: mean(found[arm]) if found[arm] else float("-inf"), reverse=True)
            for arm in order:
                value = f"{mean(found[arm]):.{self.digits}f}" if found[arm] else "none"
                lines.append(f"  {value}  {arm} (seeds: {len(found[arm])})")
        return "\n".join(lines)
