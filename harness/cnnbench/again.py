"""The command that makes a run again, from its records and its suite file alone."""

from __future__ import annotations

import shlex
import tomllib
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from cnnbench.references import BASELINE

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_SEEDS = 3
"""A suite's when it does not say."""
_MOST = 10_000
"""A suite may ask for no more."""


def command(heading: Mapping[str, Any], suite: bytes, results: str = "again") -> str:
    """The line that runs it once more, in the folder that holds the suite file.

    Options stand in it where the run differed from its suite: other seeds, another device, some of the arms.

    Args:
        heading: a record of the run.
        suite: the suite file's bytes.
        results: the folder for the new records.
    """
    raw = tomllib.loads(suite.decode("utf-8-sig"))
    planned = heading.get("planned") or {}
    words = ["cnnbench", "run", str((heading.get("suite") or {}).get("file") or "suite.toml")]
    words += _seeds(raw, planned)
    device = str(heading.get("device") or "").partition(":")[0]
    if device and str(raw.get("device", "auto")).partition(":")[0] != device:
        words += ["--device", device]
    for arm in _only(raw, heading):
        words += ["--only", arm]
    return shlex.join([*words, "--results", results])


def other_seeds(heading: Mapping[str, Any], suite: bytes) -> Sequence[int]:
    """The seeds of a run that no option asks for: they have to be written into the suite; empty as a rule."""
    planned = heading.get("planned") or {}
    seeds: list[int] = list(planned.get("seeds") or ())
    fits = planned.get("looks") or _plain(seeds) or seeds == _own(tomllib.loads(suite.decode("utf-8-sig")))
    return () if fits else seeds


def _seeds(raw: Mapping[str, Any], planned: Mapping[str, Any]) -> list[str]:
    seeds = list(planned.get("seeds") or ())
    if planned.get("looks"):
        return ["--seeds", "auto"]
    if not _plain(seeds) or seeds == _own(raw):
        return []
    return ["--seeds", f"{seeds[0]}-{seeds[-1]}" if seeds[0] else str(len(seeds))]


def _own(raw: Mapping[str, Any]) -> list[int]:
    """A suite's seeds; none where it has a mistake there."""
    own = raw.get("seeds", _SEEDS)
    if isinstance(own, int):
        return list(range(own)) if own <= _MOST else []
    return list(own) if isinstance(own, list) else []


def _plain(seeds: Sequence[int]) -> bool:
    """Whether ``--seeds`` can ask for them."""
    return bool(seeds) and all(after - before == 1 for before, after in pairwise(seeds)) and seeds[0] >= 0


def _only(raw: Mapping[str, Any], heading: Mapping[str, Any]) -> list[str]:
    """The arms beside the baseline, if the run had not all of the suite's."""
    arms = [arm for arm in (heading.get("planned") or {}).get("arms") or () if arm != BASELINE]
    cells = (heading.get("design") or {}).get("cells") or {}
    if "design" in raw and not cells:
        return []  # the records do not tell the design's arms
    given = raw.get("arms")
    all_arms = {
        *(cells or (given if isinstance(given, dict) else ())),
        *(["placebo"] if raw.get("placebo") else []),
    } - {BASELINE}
    return arms if set(arms) < all_arms else []
