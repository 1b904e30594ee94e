"""What a plugin's README says that is not the same for every slot."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

_TRIED: Mapping[str, str] = {
    "dataset": "loads it, says what it holds, and trains a small network on it",
    "metric": "trains a small network and shows the metric as a column of its table",
    "reporter": "trains a small network once and shows what the reporter makes of the record",
    "executor": "trains a small network once by it and says how that ended",
    "tracker": "tells it of one small training, from plan to end, and names the files that it leaves",
}
"""What ``cnnbench try`` does with techniques that are not arms."""
_NO_PART = "No result depends on it: when its code changes, nothing runs anew."
_KEPT: Mapping[str, str] = {
    "dataset": (
        "What its `fingerprint` returns is part of the key of every result on it, and its code is not: return another "
        "text when the images change, and results are made anew."
    ),
    **dict.fromkeys(("reporter", "executor", "tracker"), _NO_PART),
}
"""What a change of techniques that decide no result, or not by their code, does to results."""


def tried(slot: str) -> str:
    """What ``cnnbench try`` does with a technique of a slot, as the rest of a sentence."""
    return _TRIED.get(slot, "compares it with a baseline on a small task, in under a minute")


def kept(slot: str) -> str:
    """What a change of a technique's code does to results on disk, in whole sentences."""
    return _KEPT.get(
        slot,
        "A digest of its code, and the version in `pyproject.toml`, are part of the key of every result that it has a "
        "part in: change one, and these are made anew.",
    )
