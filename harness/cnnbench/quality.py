"""What of a record is the network's, and what the machine's: the first is to come out again elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cnnbench.quantities import METRICS, quantities

if TYPE_CHECKING:
    from collections.abc import Mapping

_STAGES = {"train", "latency", "energy", "memory"}
_KEYS = frozenset(quantity.key for quantity in quantities(METRICS, []) if quantity.stage in _STAGES)
_BY_BATCH = ("latency_b", "throughput_b")


def of_machine(key: str) -> bool:
    """Whether a recorded quantity belongs to the machine: times, energy, memory, and what a runtime there served."""
    return key in _KEYS or key.startswith(_BY_BATCH)


def quality(record: Mapping[str, Any]) -> dict[str, Any]:
    """A record's metrics that are not the machine's, by key."""
    return {key: value for key, value in (record.get("metrics") or {}).items() if not of_machine(key)}
