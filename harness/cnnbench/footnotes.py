"""What stands under a table: what its signs mean, how it was obtained, and which trials are missing from it."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

from cnnbench.columns import mark, single, spread
from cnnbench.frame import PENDING
from cnnbench.notices import co2_notes, latency_notes
from cnnbench.quantities import is_ratio
from cnnbench.text import listed, printable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from cnnbench.frame import TrialSet
    from cnnbench.quantities import Quantity
    from cnnbench.tables import Row

_LONGEST_REASON = 200
_MOST_REASONS = 20
_VERSIONS = ("cnnbench", "torch", "torchvision", "python", "driver", "revision")


def footnotes(trials: TrialSet, rows: Sequence[Row], columns: Sequence[Quantity], source: Path | None) -> Iterator[str]:
    """The notes in order: signs, missing trials, conditions, origin."""
    yield from _signs(trials, rows, columns)
    yield from _methods(rows)
    yield from co2_notes(trials, columns)
    yield from latency_notes(trials, rows, columns)
    yield from _missing(trials)
    yield from _remarks(trials)
    yield from _conditions(trials)
    yield from _origin(trials, source)


def _signs(trials: TrialSet, rows: Sequence[Row], columns: Sequence[Quantity]) -> Iterator[str]:
    plain = [q for q in columns if not is_ratio(q)]  # ratios have a note of their own
    values = [row.measured[q.key].value for q in plain for row in rows]
    if any(value and spread(value) for value in values):
        yield "±: half the 95 % t interval of the mean over seeds; without it, all seeds agree."
    once = [q.label for q in plain if single(rows, q) and q.stage != "profile"]
    if len(trials.seeds) == 1:
        yield "One seed: there are no intervals over seeds, and a difference may be chance alone."
    elif once:
        yield f"From one seed, so without interval: {listed(once)}."
    yield from _references(trials, rows)
    for row in rows:
        if row.role == "placebo":
            own = "Δ and ratio are" if any(row.measured[q.key].value for q in columns if is_ratio(q)) else "Δ is"
            yield f"{printable(row.arm)}: the baseline again with other random numbers; its {own} the run's own noise."


def _references(trials: TrialSet, rows: Sequence[Row]) -> Iterator[str]:
    """What differences are from, where it is not the baseline, and where it has nothing to compare with."""
    by_name = {row.arm: row for row in rows}
    compared: dict[str, list[str]] = defaultdict(list)
    for row in rows:
        if row.reference is not None:
            compared[row.reference].append(printable(row.arm))
    if trials.baseline is None:
        yield f"No baseline in this run: there are no differences{' from it' if compared else ''}."
    there = {name: arms for name, arms in compared.items() if name in by_name and by_name[name].ok}
    if there:
        whose = printable(next(iter(there))) if list(there) == [trials.baseline] else "an arm's reference"
        yield (
            f"Δ: difference from {whose} in the same seeds, ± its 95 % paired t interval; not corrected for the number "
            "of arms."
        )
    others = [f"{listed(arms)} with {printable(name)}" for name, arms in there.items() if name != trials.baseline]
    if others:
        rest = f"; all others with {printable(trials.baseline)}" if trials.baseline and trials.baseline in there else ""
        yield f"Compared, in Δ and ratio: {'; '.join(others)}{rest}."
    for name, arms in compared.items():
        whom = "" if name == trials.baseline and list(compared) == [name] else f" for {listed(arms)}"
        if name not in by_name:
            yield f"{printable(name)} is not in this run: there are no differences{whom}."
        elif name not in there:
            yield f"No trial of {printable(name)} is ok: there are no differences{whom}."


def _methods(rows: Sequence[Row]) -> Iterator[str]:
    shown = [m for row in rows for m in row.measured.values() if m.value]
    marks = {mark(way) for m in shown for way in (m.method, m.difference_method)}
    if "est." in marks:
        yield "est.: estimated as an assumed power × time; it carries no information beyond time."
    if "nominal" in marks:
        yield "nominal: the file with the format's bits; it has no packed storage here."
    if any("unknown" in text for text in marks):
        yield "unknown: the source does not say whether it measured or estimated."


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
