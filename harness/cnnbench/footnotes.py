"""What stands under a table: what its signs mean, how it was obtained, and which trials are missing from it."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

from cnnbench.columns import mark, single, spread
from cnnbench.frame import PENDING
from cnnbench.text import listed, printable
from cnnbench.types import LatencyOptions

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from cnnbench.frame import TrialSet
    from cnnbench.quantities import Quantity
    from cnnbench.tables import Row

_LONGEST_REASON = 200
_MOST_REASONS = 20
_TAIL_SAMPLES = 100
"""Below so many samples the 99th percentile lies between the two slowest."""
_VERSIONS = ("cnnbench", "torch", "torchvision", "python", "driver", "revision")


def footnotes(trials: TrialSet, rows: Sequence[Row], columns: Sequence[Quantity], source: Path | None) -> Iterator[str]:
    """The notes in order: signs, missing trials, conditions, origin."""
    yield from _signs(trials, rows, columns)
    yield from _methods(rows)
    yield from _latency(trials, columns)
    yield from _missing(trials)
    yield from _remarks(trials)
    yield from _conditions(trials)
    yield from _origin(trials, source)


def _signs(trials: TrialSet, rows: Sequence[Row], columns: Sequence[Quantity]) -> Iterator[str]:
    values = [row.measured[q.key].value for q in columns for row in rows]
    if any(value and spread(value) for value in values):
        yield "±: half the 95 % t interval of the mean over seeds; without it, all seeds agree."
    once = [q.label for q in columns if single(rows, q) and q.stage != "profile"]
    if len(trials.seeds) == 1:
        yield "One seed: there are no intervals, and a difference may be chance alone."
    elif once:
        yield f"From one seed, so without interval: {listed(once)}."
    if trials.baseline is None:
        yield "No baseline in this run: there are no differences."
    elif len(trials.arms) > 1:
        if next(row for row in rows if row.arm == trials.baseline).ok:
            yield (
                f"Δ: difference from {printable(trials.baseline)} in the same seeds, ± its 95 % paired t interval; "
                "not corrected for the number of arms."
            )
        else:
            yield f"No trial of {printable(trials.baseline)} is ok: there are no differences."
    for row in rows:
        if row.role == "placebo":
            yield f"{printable(row.arm)}: the baseline again with other random numbers; its Δ is the run's own noise."


def _methods(rows: Sequence[Row]) -> Iterator[str]:
    marks = {mark(m.method) for row in rows for m in row.measured.values() if m.value}
    if "est." in marks:
        yield "est.: estimated as an assumed power × time; it carries no information beyond time."
    if "nominal" in marks:
        yield "nominal: the file with the format's bits; it has no packed storage here."
    if "unknown" in marks:
        yield "unknown: the source does not say whether it measured or estimated."


def _latency(trials: TrialSet, columns: Sequence[Quantity]) -> Iterator[str]:
    """Where sampling was too short for the precision asked for, or for percentiles far out."""
    shown = [q.key for q in columns if q.key.startswith(("latency_b", "throughput_b"))]
    ok = [record for record in trials.records.values() if record["status"] == "ok"]
    samplings = [one for r in ok for one in ((r.get("details") or {}).get("latency") or {}).values()] if shown else []
    unsure = [one for one in samplings if one["stopped"] != "precision"]
    if unsure:
        asked = (trials.heading.get("measure") or {}).get("latency") or {}
        within = f"{100 * asked.get('precision', LatencyOptions.precision):g} %"
        out_of_time = sum(one["stopped"] == "time" for one in unsure)
        why = [f"time was up in {out_of_time} (see max_seconds)"] if out_of_time else []
        if len(unsure) > out_of_time:
            why.append(f"the limit on samples was reached in {len(unsure) - out_of_time}")
        yield f"Latency: the median is not known within {within} in {_share(unsure, samplings)}: {listed(why)}."
    tails = [name for name in ("p95", "p99") if any(key.endswith(f"_{name}_ms") for key in shown)]
    few = [one for one in samplings if len(one["samples_ms"]) < _TAIL_SAMPLES]
    if tails and few:
        yield f"{'/'.join(tails)} from fewer than {_TAIL_SAMPLES} samples in {_share(few, samplings)}."


def _share(some: Sequence[Mapping[str, Any]], samplings: Sequence[Mapping[str, Any]]) -> str:
    fewest = min(len(one["samples_ms"]) for one in some)
    return f"{len(some)} of {len(samplings)} samplings (fewest samples: {fewest})"


def _missing(trials: TrialSet) -> Iterator[str]:
    """Every trial that is not ok, with its reason; arms and reasons together where they agree."""
    reasons: dict[tuple[str, str], dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for arm in trials.arms:
        for seed in trials.seeds:
            record = trials.records.get((arm, seed))
            status = record["status"] if record else PENDING
            if status != "ok":
                reason = _short(record.get("reason") or "") if record else "has not run yet"
                reasons[status, reason][arm].append(seed)
    for (status, reason), arms in list(reasons.items())[:_MOST_REASONS]:
        whom = [
            printable(arm) if len(seeds) == len(trials.seeds) else f"{printable(arm)} ({_seeds(seeds)})"
            for arm, seeds in arms.items()
        ]
        yield f"{status}: {listed(whom)}" + (f": {reason}" if reason else "")
    if len(reasons) > _MOST_REASONS:
        yield f"{len(reasons) - _MOST_REASONS} more reasons stand in the records."


def _remarks(trials: TrialSet) -> Iterator[str]:
    """What trials that are ok have to say, first of all why a value is absent; arms together where they agree."""
    arms: dict[str, dict[str, None]] = defaultdict(dict)
    for arm in trials.arms:
        for record in trials.of(arm):
            if record["status"] == "ok":
                for note in (record.get("details") or {}).get("notes") or ():
                    arms[_short(note)][printable(arm)] = None
    yield from (f"{listed(names)}: {note}" for note, names in list(arms.items())[:_MOST_REASONS])
    if len(arms) > _MOST_REASONS:
        yield f"{len(arms) - _MOST_REASONS} more remarks stand in the records."


def _conditions(trials: TrialSet) -> Iterator[str]:
    """Seeds, budget, data, device, hardware, versions: of all records, so that differences show."""
    budgets: dict[str, list[str]] = defaultdict(list)
    for arm in trials.arms:
        for text in dict.fromkeys(str(r["budget"]) for r in trials.of(arm) if r.get("budget")):
            budgets[text].append(printable(arm))
    usual = max(budgets, key=lambda text: len(budgets[text]), default="")
    shared = next((text for text, arms in budgets.items() if printable(trials.baseline or "") in arms), usual)
    others = [f"{listed(arms)}: {text}" for text, arms in budgets.items() if text != shared]
    count = len(trials.seeds)
    facts = [f"{count} {'seed' if count == 1 else 'seeds'} ({_numbers(trials.seeds)})", shared]
    facts += [f"dataset {text}" for text in _distinct(trials, _dataset)]
    facts += [f"device {text}" for text in _distinct(trials, lambda record: str(record.get("device") or ""))]
    yield "; ".join(filter(None, facts)) + "."
    if others:
        yield f"Another budget than the baseline: {'; '.join(others)}."
    for text in _distinct(trials, _machine):
        yield text


def _origin(trials: TrialSet, source: Path | None) -> Iterator[str]:
    suite = trials.heading.get("suite") or {}
    digest = str(suite.get("sha256") or "")[:12]
    parts = []
    if suite.get("file"):
        parts.append(printable(f"suite {suite['file']}") + (f" (sha256 {digest})" if digest else ""))
    if source is not None:
        parts.append(f"records in {printable(str(source))}")
    if parts:
        text = "; ".join(parts)
        yield f"{text[0].upper()}{text[1:]}."
    if trials.left_out:
        yield f"Left out: {trials.left_out} records of earlier plans or other devices in the same file."


def _short(text: object) -> str:
    line = printable(str(text))
    return line if len(line) <= _LONGEST_REASON else f"{line[:_LONGEST_REASON]} …"


def _distinct(trials: TrialSet, of: Any) -> list[str]:
    return [printable(text) for text in dict.fromkeys(map(of, trials.records.values())) if text]


def _dataset(record: Mapping[str, Any]) -> str:
    settings = record.get("settings") or {}
    name = str((settings.get("dataset") or {}).get("name") or "")
    asked = settings.get("data") or {}
    usual = {"imbalance": 1, "validation": asked.get("validation")}  # its share stands in the suite
    sizes = [f"{key} {value:g}" for key, value in asked.items() if value and value != usual.get(key)]
    return f"{name} ({', '.join(sizes)})" if name and sizes else name


def _machine(record: Mapping[str, Any]) -> str:
    """Hardware, then versions."""
    facts = {str(key): str(value) for key, value in (record.get("environment") or {}).items() if value}
    hardware = dict.fromkeys(facts[name] for name in ("device", "cpu") if name in facts)  # on a CPU they are one
    parts = [*hardware, *([f"{facts['cores_usable']} cores"] if "cores_usable" in facts else [])]
    versions = [f"{name} {facts[name]}" for name in _VERSIONS if name in facts]
    text = "; ".join(", ".join(group) for group in (parts, versions) if group)
    return f"{text}." if text else ""


def _seeds(seeds: Sequence[int]) -> str:
    return f"{'seed' if len(seeds) == 1 else 'seeds'} {_numbers(seeds)}"


def _numbers(seeds: Sequence[int]) -> str:
    """Seeds as text; a run of more than three as its ends."""
    if len(seeds) > 3 and list(seeds) == list(range(seeds[0], seeds[0] + len(seeds))):
        return f"{seeds[0]} to {seeds[-1]}"
    return listed(seeds)
