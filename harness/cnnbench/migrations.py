"""Records of earlier schemas as records of the present one, a step for each version; see ``docs/publishing.md``.

A step says outright what the absence of a field meant then, so that it stays true when the present meaning changes.
Steps work on the records of any run, complete or not, and never ask what later code would have written.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

SCHEMA: Final = 2
"""Version of the record format that is written, and the newest that is read."""

Record = dict[str, Any]


def migrated(record: Record) -> Record:
    """A record of any version up to ``SCHEMA`` as one of that; it is not changed itself."""
    while record["schema"] < SCHEMA:
        record = _STEPS[record["schema"]](record)
    return record


_ADDED_IN_1: Final[Mapping[str, Any]] = {
    "reason": None,
    "trace": None,
    "changes": "",
    "dataset": "",
    "data": "",
    "design": None,
    "workers": None,
}
"""Fields that came while the version was 1, with what a record without them says: one dataset, of no name, a list of
arms, and nothing of what ran beside it."""

_STATISTICS_1: Final[Mapping[str, Any]] = {"test": "t", "interval": "t", "correction": "holm", "most_seeds": 20}
"""How all comparisons were decided before suites could say."""


def _from_1(record: Record) -> Record:
    """Version 2: every field is there.

    Fields came one by one while the version was 1, and readers took what was missing for something.
    """
    added = {name: value for name, value in _ADDED_IN_1.items() if name not in record}
    if "statistics" not in record:
        added["statistics"] = dict(_STATISTICS_1)
    if "reference" not in record:
        added["reference"] = _reference_of_1(record)
    return {**record, **added, "schema": 2}


def _reference_of_1(record: Mapping[str, Any]) -> str | None:
    """Of all arms alike it was the baseline, which a plan lists first."""
    planned = record.get("planned")
    arms = planned.get("arms") if isinstance(planned, dict) else None
    first = arms[0] if isinstance(arms, list) and arms and isinstance(arms[0], str) else None
    return None if record["role"] == "baseline" or first == record["arm"] else first


_STEPS: Final[Mapping[int, Callable[[Record], Record]]] = {1: _from_1}
"""By version: the step to the next."""
