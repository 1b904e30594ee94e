"""Notes on measured cost: how latencies, ratios and energies are to be read, and what disturbed them."""

from __future__ import annotations

import json
from functools import partial
from statistics import median
from typing import TYPE_CHECKING, Any, Literal

from cnnbench.columns import spread
from cnnbench.numerals import factor
from cnnbench.own_intervals import of_measuring
from cnnbench.quantities import is_ratio, ratio_beside
from cnnbench.ratios import FEWEST_SEEDS, resolution
from cnnbench.text import listed, named, printable
from cnnbench.verdicts import interval_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from cnnbench.frame import TrialSet
    from cnnbench.quantities import Quantity
    from cnnbench.tables import Row

    Session = Mapping[str, Any]

_NOTED_AS = {"latency": "noise", "energy": "noise_energy"}
"""Where a record keeps the noise of a kind of session."""
TAIL_SAMPLES = 100
"""Below so many samples the 99th percentile lies between the two slowest."""
FEWEST_ROUNDS = 8
"""Below so many a median of rounds has no interval, see ``stats.median_interval``."""
_OF_TRAINING = ("train_seconds", "energy_train_j", "co2_train_mg")
OTHERS_PERCENT = 5.0
"""Of one core. Then up to one sample in twenty meets other work: the 95th percentile is about that work, and beyond it
the median begins to move by as much as the default precision."""
OTHERS_SECONDS = 0.1
"""Ten ticks of the kernel's clock; less than that is how the counters round."""
STEAL_PERCENT = 1.0
"""Of one core. What the hypervisor takes stops a sample dead; one in a hundred is what the 99th percentile shows."""
CLOCK_FALL = 0.10
"""Clocks go up and down by some percent as turbo modes see fit; more, under load, is a limit of heat or power."""


def latency_notes(trials: TrialSet, rows: Sequence[Row], columns: Sequence[Quantity]) -> Iterator[str]:
    """All that is to be said where a column shows latency."""
    yield from _ratios(trials, rows, columns)
    yield from _without_interval(trials, rows, columns)
    yield from _not_faster(rows, columns)
    if any(q.key.startswith(("latency_b", "throughput_b")) for q in columns):
        yield from _samplings(trials, columns)
        yield from noise_notes(trials)


def energy_notes(trials: TrialSet, columns: Sequence[Quantity]) -> Iterator[str]:
    """What is to be said where a column shows energy of inference, or the CO2 made of it."""
    if any(q.stage == "energy" for q in columns):
        yield from noise_notes(trials, "energy")


def training_notes(trials: TrialSet, columns: Sequence[Quantity]) -> Iterator[str]:
    """Whether trainings had the machine for themselves, where a column shows what they took."""
    shown = [q.label for q in columns if q.key in _OF_TRAINING]
    most = max((record.get("workers") or 1 for record in trials.all_ok), default=1) if shown else 1
    if most > 1:
        what = ", ".join(shown)
        yield (
            f"{what[0].upper()}{what[1:]}: taken with up to {most} trainings side by side, which slow each other down; "
            "--workers 1 --fresh takes them alone."
        )


def co2_notes(trials: TrialSet, columns: Sequence[Quantity]) -> Iterator[str]:
    """The carbon intensity behind grams of CO2, and its source."""
    if not any(q.key.startswith("co2_") for q in columns):
        return
    found: dict[str, None] = {}
    for details in trials.details:
        intensity = (details.get("energy") or {}).get("intensity")
        if intensity:
            found[f"{intensity['g_per_kwh']:g} g/kWh ({intensity['source']})"] = None
    if found:
        yield printable(f"CO2: energy × {listed(list(found))}; as good as the energy that it is worked out from.")


def _ratios(trials: TrialSet, rows: Sequence[Row], columns: Sequence[Quantity]) -> Iterator[str]:
    shown = [row.measured[q.key] for q in columns if is_ratio(q) for row in rows]
    values = [m.value for m in shown if m.value is not None]
    if not values:
        return
    references = list(dict.fromkeys(row.reference for row in rows if row.reference))
    whose = printable(references[0]) if len(references) == 1 else "the reference"
    parts = [f"ratio: time of a call over that of {whose}, paired by round"]
    if any(value.n >= FEWEST_SEEDS for value in values):
        interval = interval_of(trials).removeprefix("paired ")
        parts.append(f"geometric mean over seeds, ± its 95 % {interval} (of logarithms)")
    if any(value.n < FEWEST_SEEDS and spread(value) for value in values):
        parts.append(f"with fewer than {FEWEST_SEEDS} seeds ± is that of measuring alone, not of training")
    yield "; ".join(parts) + "."


def _without_interval(trials: TrialSet, rows: Sequence[Row], columns: Sequence[Quantity]) -> Iterator[str]:
    """Arms of one or two seeds for which some session had too few rounds to say how far its figure can be trusted."""
    ratios: dict[str, None] = {}
    medians: dict[str, None] = {}
    stopped = set()
    for row in rows:
        ok = trials.ok(row.arm)
        for q in columns:
            latency = ratio_beside(q)
            found = row.measured[q.key].value
            if is_ratio(q) and found is None:
                lacking = [one for r in ok if (one := _sampling(r, q.key)) and not one.get("ratio")]
                silent = any(q.key in r["metrics"] for r in ok)
                names = ratios
            elif latency is not None and found is not None and of_measuring(q.key, found):
                lacking = [one for r in ok if (one := _sampling(r, q.key)) and not one.get("interval_ms")]
                silent = found.low is None
                names = medians
            else:
                continue
            if silent and lacking:
                names[printable(row.arm)] = None
                stopped |= {one["stopped"] for one in lacking}
    why = ", as time was up (see max_seconds)" if "time" in stopped else ""
    if ratios:
        yield f"Ratio –: fewer than {FEWEST_ROUNDS} rounds give it no interval{why}: {named(ratios)}."
    if medians:
        yield f"Latency without ±: too few rounds for an interval{why}: {named(medians)}."


def _sampling(record: Mapping[str, Any], key: str) -> Mapping[str, Any] | None:
    """How the latency behind a quantity was sampled."""
    size = key.removeprefix("latency_b").partition("_")[0]
    sampling: Mapping[str, Any] | None = ((record.get("details") or {}).get("latency") or {}).get(size)
    return sampling


def _not_faster(rows: Sequence[Row], columns: Sequence[Quantity]) -> Iterator[str]:
    arms = []
    for row in rows:
        if row.not_faster is not None:
            times = [f"×{factor(ratio)} latency b{size}" for size, ratio in row.not_faster.ratios.items()]
            arms.append(f"{printable(row.arm)} (×{factor(row.not_faster.flops)} multiply-adds, {', '.join(times)})")
    if arms:
        mark = "‡: f" if any("‡" in row.measured[q.key].sign for q in columns for row in rows) else "F"
        yield f"{mark}ewer multiply-adds, not measurably faster: {listed(arms)}."


def _samplings(trials: TrialSet, columns: Sequence[Quantity]) -> Iterator[str]:
    """Where sampling was too short for the precision asked for, or for percentiles far out."""
    shown = [q.key for q in columns]
    samplings = [one for details in trials.details for one in (details.get("latency") or {}).values()]
    unsure = [one for one in samplings if one["stopped"] != "precision"]
    if unsure:
        out_of_time = sum(one["stopped"] == "time" for one in unsure)
        why = [f"time was up in {out_of_time} (see max_seconds)"] if out_of_time else []
        if len(unsure) > out_of_time:
            why.append(f"the limit on samples was reached in {len(unsure) - out_of_time}")
        within = f"{100 * resolution(trials.heading):g} %"
        what = "the median or its ratio is not known"
        yield f"Latency: {what} within {within} in {_share(unsure, samplings)}: {listed(why)}."
    restless = sum(one.get("steady") is False for one in samplings)
    if restless:
        yield (
            f"Latency: calls were not steady when the time for warm-up was up, in {restless} of {len(samplings)} "
            "samplings (see max_seconds)."
        )
    tails = [name for name in ("p95", "p99") if any(key.endswith(f"_{name}_ms") for key in shown)]
    few = [one for one in samplings if len(one["samples_ms"]) < TAIL_SAMPLES] if tails else []
    if few:
        yield f"{'/'.join(tails)} from fewer than {TAIL_SAMPLES} samples in {_share(few, samplings)}."


def _share(some: Sequence[Mapping[str, Any]], samplings: Sequence[Mapping[str, Any]]) -> str:
    fewest = min(len(one["samples_ms"]) for one in some)
    return f"{len(some)} of {len(samplings)} samplings (fewest samples: {fewest})"


def noise_notes(trials: TrialSet, kind: Literal["latency", "energy"] = "latency") -> Iterator[str]:
    """What else the machine did in the sessions of a kind; each is told of once, whichever trials share it."""
    noises = [details.get(_NOTED_AS[kind]) for details in trials.details]
    told = dict(zip(map(id, noises), noises, strict=True)).values()  # records may share one object
    sessions: list[Session] = list({json.dumps(noise, sort_keys=True): noise for noise in told if noise}.values())

    def share(disturbed: Callable[[Session], bool]) -> tuple[list[Session], str]:
        some = [session for session in sessions if disturbed(session)]
        return some, f"in {len(some)} of {len(sessions)} {kind} sessions"

    some, where = share(_others_worked)
    if some:
        took = [session["others_percent"] for session in sessions if session.get("others_percent") is not None]
        typical = f"median {_percent(median(took))}, most {_percent(max(took))}"
        yield f"Noisy machine: other work took more than {OTHERS_PERCENT:g} % of a core {where} ({typical})."
    some, where = share(lambda session: (session.get("steal_percent") or 0) > STEAL_PERCENT)
    if some:
        most = f"most {_percent(max(session['steal_percent'] for session in some))}"
        yield f"Noisy machine: the hypervisor withheld more than {STEAL_PERCENT:g} % of a core {where} ({most})."
    some, where = share(lambda session: bool(session.get("throttle_events")))
    if some:
        yield f"Throttled: the CPU was too hot {where}."
    some, where = share(lambda session: bool(session.get("gpu_throttles")))
    if some:
        reasons = dict.fromkeys(reason for session in some for reason in session["gpu_throttles"])
        yield f"Throttled: the GPU was held back by {listed(list(reasons))} {where}."
    for key, name in (("cpu_mhz", "CPU"), ("gpu_mhz", "GPU")):
        some, where = share(partial(_clock_fell, key=key))
        if some:
            start, end = min((session[key] for session in some), key=lambda ends: ends[1] / ends[0])
            yield f"The {name}'s clock fell {where}, at most from {start:.0f} to {end:.0f} MHz."


def _percent(value: float) -> str:
    """With a decimal where the value is near the limits above."""
    return f"{value:.0f} %" if value >= 10 else f"{value:.1f} %"


def _clock_fell(session: Session, key: str) -> bool:
    start, end = session.get(key) or (0.0, 0.0)
    return bool(end < (1 - CLOCK_FALL) * start)


def _others_worked(session: Session) -> bool:
    percent, seconds = session.get("others_percent"), session.get("seconds")
    if percent is None or seconds is None:
        return False
    return bool(percent > OTHERS_PERCENT and percent / 100 * seconds > OTHERS_SECONDS)
