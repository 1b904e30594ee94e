"""Footnotes on where a table's values come from: seeds, budget, data, device, threads, hardware, versions, files."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

from cnnbench.text import listed, named, printable

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from cnnbench.frame import TrialSet
    from cnnbench.quantities import Quantity

_LONGEST = 40
"""Of an option's text."""
_VERSIONS = ("cnnbench", "torch", "torchvision", "python", "driver", "revision")


def condition_notes(trials: TrialSet, columns: Sequence[Quantity]) -> Iterator[str]:
    """Of all records, so that differences show."""
    budgets: dict[str, list[str]] = defaultdict(list)
    for arm in trials.arms:
        for text in dict.fromkeys([record.get("budget") for record in trials.of(arm)]):
            if text:
                budgets[text].append(printable(arm))
    usual = max(budgets, key=lambda text: len(budgets[text]), default="")
    shared = next((text for text, arms in budgets.items() if printable(trials.baseline or "") in arms), usual)
    others = [f"{named(arms)}: {text}" for text, arms in budgets.items() if text != shared]
    timed = any(q.stage == "latency" for q in columns)
    count = len(trials.seeds)
    fewest = min((len(trials.seeds_of(arm)) for arm in trials.arms), default=count)
    number = str(count) if fewest == count else f"{fewest} to {count}"
    facts = [f"{number} {'seed' if count == 1 else 'seeds'} ({ends(trials.seeds)})", shared]
    records = trials.records.values()
    facts += [f"dataset {text}" for text in _distinct(_sharing(records, "settings"), _dataset)]
    facts += [f"device {printable(text)}" for text in dict.fromkeys([r.get("device") for r in records]) if text]
    sampled = _sampled_alike(trials) if timed else []
    facts += [f"latency with {listed(threads)}"] if (threads := _distinct(sampled, _threads)) else []
    yield "; ".join(filter(None, facts)) + "."
    if others:
        yield f"Another budget than the baseline: {'; '.join(others)}."
    yield from _distinct(sampled, _too_many_threads)
    yield from _distinct(_sharing(records, "environment"), _machine)


def origin_notes(trials: TrialSet, source: Path | None) -> Iterator[str]:
    """Files, and what else they hold."""
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


def ends(numbers: Sequence[int]) -> str:
    """Numbers as text; a run of more than three as its ends."""
    if len(numbers) > 3 and list(numbers) == list(range(numbers[0], numbers[0] + len(numbers))):
        return f"{numbers[0]} to {numbers[-1]}"
    return listed(numbers)


def _distinct(records: Iterable[Mapping[str, Any]], of: Callable[[Mapping[str, Any]], str]) -> list[str]:
    """What records say, each thing once."""
    return [printable(text) for text in dict.fromkeys(map(of, records)) if text]


def _sharing(records: Collection[Mapping[str, Any]], part: str) -> list[Mapping[str, Any]]:
    """Of the records that share a part, as most of one run do, only one."""
    parts = [id(record.get(part)) for record in records]
    found = dict(zip(parts, records, strict=True))
    return [found[one] for one in dict.fromkeys(parts)]


def _sampled_alike(trials: TrialSet) -> list[Mapping[str, Any]]:
    """Of the records whose latency was taken with the same threads on the same machine, the first."""
    first: dict[tuple[object, ...], Mapping[str, Any]] = {}
    for record, details in zip(trials.all_ok, trials.details, strict=True):
        threads = [(one.get("threads"), *(one.get("cpus") or ())) for one in (details.get("latency") or {}).values()]
        first.setdefault((id(record.get("environment")), *threads), record)
    return list(first.values())


def _dataset(record: Mapping[str, Any]) -> str:
    """Name, its options that are numbers or words, and what was taken of it; a record does not say what is usual."""
    settings = record.get("settings") or {}
    dataset = settings.get("dataset") or {}
    name = str(dataset.get("name") or "")
    asked = settings.get("data") or {}
    usual = {"imbalance": 1, "validation": asked.get("validation")}  # its share stands in the suite
    facts = [_fact(key, value) for key, value in (dataset.get("options") or {}).items() if _tells(value)]
    facts += [_fact(key, value) for key, value in asked.items() if value and value != usual.get(key)]
    return f"{name} ({', '.join(facts)})" if name and facts else name


def _tells(value: object) -> bool:
    """Whether an option says something of the data by itself: paths, switches and tables do not."""
    if isinstance(value, str):
        return 0 < len(value) <= _LONGEST and not {"/", "\\"} & set(value)
    return isinstance(value, int | float) and not isinstance(value, bool)


def _fact(key: str, value: object) -> str:
    return f"{key} {value:g}" if isinstance(value, float) else f"{key} {value}"


def _samplings(record: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [one for one in ((record.get("details") or {}).get("latency") or {}).values() if one.get("threads")]


def _threads(record: Mapping[str, Any]) -> str:
    """How many threads a record's latency was taken with, and the processors that they were bound to."""
    ways: dict[str, None] = {}
    for one in _samplings(record):
        cpus = one.get("cpus") or ()
        where = f" on {'CPU' if len(cpus) == 1 else 'CPUs'} {ends(cpus)}" if cpus else ""
        ways[_counted(one["threads"], "thread") + where] = None
    return " and ".join(ways)


def _too_many_threads(record: Mapping[str, Any]) -> str:
    cores = str((record.get("environment") or {}).get("cores_usable") or "")
    most = max((int(one["threads"]) for one in _samplings(record)), default=0)
    if not cores.isdecimal() or most <= int(cores):
        return ""
    return f"Latency was taken with {most} threads on {_counted(int(cores), 'usable core')}: they wait for each other."


def _counted(count: int, word: str) -> str:
    return f"{count} {word}" if count == 1 else f"{count} {word}s"


def _machine(record: Mapping[str, Any]) -> str:
    """Hardware, then versions."""
    facts = {str(key): str(value) for key, value in (record.get("environment") or {}).items() if value}
    hardware = dict.fromkeys(facts[name] for name in ("device", "cpu") if name in facts)  # on a CPU they are one
    parts = [*hardware, *([f"{facts['cores_usable']} cores"] if "cores_usable" in facts else [])]
    versions = [f"{name} {facts[name]}" for name in _VERSIONS if name in facts]
    text = "; ".join(", ".join(group) for group in (parts, versions) if group)
    return f"{text}." if text else ""
