"""One trial of a published run, trained again from nothing: does its quality come out again?"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from cnnbench.errors import UsageError
from cnnbench.matrix import arms
from cnnbench.opening import open_suite
from cnnbench.pairs import VERSIONS
from cnnbench.progress import make_progress
from cnnbench.publication import suite_file
from cnnbench.quality import of_machine, quality
from cnnbench.quantities import quantities
from cnnbench.registry import nearest
from cnnbench.runner import RunOptions, run_suite

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from cnnbench.matrix import Arm
    from cnnbench.plugins import PluginHost
    from cnnbench.suite import Suite

_MACHINE = ("cpu", "device", "platform")


@dataclass(frozen=True)
class Rerun:
    """How a trial came out again.

    Attributes:
        agrees: it is ok again, and every quality metric is exactly as recorded.
        lines: what to tell.
    """

    agrees: bool
    lines: tuple[str, ...]


def choose(records: Sequence[Mapping[str, Any]], arm: str | None, seed: int | None) -> Mapping[str, Any]:
    """The record of the trial to run again.

    Args:
        records: of the run.
        arm: its name; None for the one whose trials took the least time.
        seed: None for the first that is ok.

    Raises:
        UsageError: there is no such trial that is ok.
    """
    names = list(dict.fromkeys(str(record["arm"]) for record in records))
    if arm is not None and arm not in names:
        raise UsageError(f"--rerun: no arm {arm!r} in these records: {nearest(arm, names)}".rstrip(": "))
    fit = [r for r in records if r["status"] == "ok" and arm in (None, r["arm"]) and seed in (None, r["seed"])]
    if not fit:
        whose = "" if arm is None else f" of {arm!r}"
        which = "" if seed is None else f" with seed {seed}"
        raise UsageError(f"--rerun: no trial{whose}{which} is ok in these records")
    took: dict[tuple[str, str], float] = {}
    for record in fit:
        took[_row(record)] = min(took.get(_row(record), math.inf), seconds(record))
    fastest = min(took, key=lambda name: took[name])
    return min((record for record in fit if _row(record) == fastest), key=lambda record: int(record["seed"]))


def seconds(record: Mapping[str, Any]) -> float:
    """How long a trial's stages took; infinite where the record does not say, as of a trial of another machine."""
    return sum((record.get("seconds") or {}).values()) or math.inf


def rerun(folder: Path, record: Mapping[str, Any], host: PluginHost, *, imports: bool = False) -> Rerun:
    """Train and evaluate one trial again, in a folder and a cache that go afterwards.

    Latency, energy and memory are not taken again: they are the machine's. The arm runs alone, as if it were the
    baseline: what it is called and compared with is no part of its training.

    Args:
        folder: the published one, with its suite file.
        record: of the trial.
        host: the installed plugins.
        imports: the suite may name code to import; it is another's, so that this has to be asked for.

    Raises:
        UsageError: the suite can't run here.
    """
    suite, host = open_suite(folder / suite_file(record), host, data=True, imports=imports, copies=True)
    with TemporaryDirectory(prefix="cnnbench-verify-") as scratch:
        options = RunOptions(Path(scratch) / "results", Path(scratch) / "cache", executor="inline")
        made = run_suite(_alone(suite, record), host, options, make_progress(quiet=True)).records[-1]
    return _compared(record, made)


def _row(record: Mapping[str, Any]) -> tuple[str, str]:
    return str(record.get("dataset") or ""), str(record["arm"])


def _alone(suite: Suite, record: Mapping[str, Any]) -> Suite:
    """A suite of that trial; the placebo's random streams are its role's, so it runs beside the baseline."""
    arm = _arm(suite, str(record["arm"]))
    wanted = [name for name in suite.measure.metrics if not all(of_machine(q.key) for q in quantities([name], [1]))]
    placebo = arm.role == "placebo"
    label = record.get("dataset")
    return replace(
        suite,
        baseline=suite.baseline if placebo else arm.settings,
        arms=(),
        design=None,
        placebo=placebo,
        datasets=tuple(one for one in suite.datasets if label in (None, "", one.label)) or suite.datasets,
        seeds=(int(record["seed"]),),
        device=str(record.get("device") or suite.device).partition(":")[0],
        measure=replace(suite.measure, metrics=tuple(wanted) or ("accuracy",)),
    )


def _arm(suite: Suite, name: str) -> Arm:
    return next(arm for arm in arms(suite, [name]) if arm.name == name)


def _compared(record: Mapping[str, Any], made: Mapping[str, Any]) -> Rerun:
    trial = f"{record['arm']}, seed {record['seed']}"
    if made["status"] != "ok":
        return Rerun(
            False, (f"{trial}: ran again and is {made['status']}: {made.get('reason')}", *_otherwise(record, made))
        )
    before, after = quality(record), quality(made)
    common = [key for key in before if key in after]
    moved = [(key, before[key], after[key]) for key in common if before[key] != after[key]]
    if not common:
        return Rerun(False, (f"{trial}: ran again, and has no quality metric that is on record",))
    if not moved:
        return Rerun(True, (f"{trial}: ran again, and all {len(common)} quality metrics agree exactly",))
    lines = [f"{trial}: ran again, and {len(moved)} of {len(common)} quality metrics differ"]
    lines += [f"    {key}: {_text(old)} on record, {_text(new)} now{_apart(old, new)}" for key, old, new in moved]
    return Rerun(False, (*lines, *_otherwise(record, made)))


def _otherwise(record: Mapping[str, Any], made: Mapping[str, Any]) -> Iterator[str]:
    """What differs between the places of the two, which may explain what differs between the values."""
    one, other = record.get("environment") or {}, made.get("environment") or {}
    names = [name for name in (*_MACHINE, *VERSIONS) if one.get(name) != other.get(name) and name != "revision"]
    if record.get("data") and record.get("data") != made.get("data"):
        yield "likely cause: other data: the datasets' fingerprints differ"
    elif names:
        told = "; ".join(f"{name} {one.get(name, 'none')}, here {other.get(name, 'none')}" for name in names)
        yield f"likely cause: {told}"
    elif str(record.get("device") or "").partition(":")[0] != "cpu":
        yield "likely cause: on this device two runs need not agree in their last digits"
    elif (record.get("stages") or {}).get("train") != (made.get("stages") or {}).get("train"):
        yield "likely cause: the code has changed since: the key of the training is another one"


def _text(value: object) -> str:
    return f"{value:.10g}" if isinstance(value, float) else str(value)


def _apart(old: object, new: object) -> str:
    if isinstance(old, int | float) and isinstance(new, int | float):
        return f" ({new - old:+.3g})"
    return ""
