"""How a report's figures came about, as HTML: verdicts, trials, machine, settings, and commands that repeat them."""

from __future__ import annotations

import shlex
from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Any

from cnnbench.claims import between
from cnnbench.conditions import ends
from cnnbench.frame import PENDING
from cnnbench.inference import Inference
from cnnbench.machines import machine_of
from cnnbench.report_html import Section, bullets, code_block, element, paragraphs, scroller, terms, text
from cnnbench.text import listed
from cnnbench.verdicts import looks_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from cnnbench.frame import TrialSet

    Record = Mapping[str, Any]

_TESTS = {"t": "a paired t test", "sign-flip": "a sign-flip test"}
_INTERVALS = {"t": "paired t intervals", "bca": "bias-corrected and accelerated (BCa) bootstrap intervals"}
_CORRECTIONS = {
    "holm": "Holm's correction keeps the chance of any false verdict among the arms of one quantity at 5 %",
    "benjamini-hochberg": (
        "the correction of Benjamini and Hochberg keeps the expected share of false verdicts among those of one "
        "quantity at 5 %"
    ),
}


def facts(trials: Sequence[TrialSet]) -> str:
    """The run in a few terms, for the head of the page."""
    first = trials[0]
    records = [record for one in trials for record in one.records.values()]
    planned = sum(len(one.seeds_of(arm)) for one in trials for arm in one.arms)
    ok = sum(record["status"] == "ok" for record in records)
    counts = sorted({len(one.seeds_of(arm)) for one in trials for arm in one.arms})
    datasets = (
        [one.dataset for one in trials]
        if len(trials) > 1
        else _values(records, lambda record: ((record.get("settings") or {}).get("dataset") or {}).get("name"))
    )
    machines, roles = machines_of(records), first.roles.values()
    pairs = [
        ("Arms", " + ".join([str(list(roles).count("arm")), *(role for role in roles if role != "arm")])),
        ("Seeds", between(counts)),
        ("Trials ok", f"{ok} of {planned}"),
        ("Dataset" if len(datasets) < 2 else "Datasets", ", ".join(datasets)),
        ("Budget", _usual(records, "budget")),
        ("Machine" if len(machines) < 2 else "Machines", "; ".join(machines)),
        ("Date", ends_of_run(records)),
    ]
    return terms(((name, text(value)) for name, value in pairs if value), class_="facts")


def machines_of(records: Sequence[Record]) -> list[str]:
    """The models of device that records come from; of several machines all that tells them apart."""
    found = dict.fromkeys(machine_of(record, quality_only=False) for record in records if record.get("environment"))
    if len(found) > 1:
        return [machine.label for machine in found]
    return _values(records, lambda record: (record.get("environment") or {}).get("device"))


def ends_of_run(records: Sequence[Record]) -> str:
    """The days on which the records' trials ended, from the first to the last."""
    days = sorted({str(record["finished"])[:10] for record in records if record.get("finished")})
    return " to ".join(dict.fromkeys([days[0], days[-1]])) if days else ""


def method(trials: TrialSet) -> Section:
    """How verdicts are made."""
    how = Inference.from_plain(trials.heading.get("statistics"))
    measure = trials.heading.get("measure") or {}
    margins = [f"{name} {size:g}" for name, size in (measure.get("margin") or {}).items()]
    looks = looks_of(trials)
    intervals = "repeated confidence intervals, which allow for the looks" if looks else _INTERVALS[how.interval]
    items = [
        (
            "Every arm is compared with its reference seed by seed, so that the luck of a seed falls on both. "
            f"Differences are means over these pairs, with {intervals}."
        ),
        f"Better and worse are decided by {_TESTS[how.test]} at 5 %; {_CORRECTIONS[how.correction]}.",
        "Equivalent means that two one-sided tests place the difference within the margin"
        + (f" (in recorded units: {', '.join(margins)})." if margins else ", which this suite does not state."),
        "Unresolved means that the seeds decide neither. It is not a finding of no effect.",
    ]
    if looks:
        items.append(
            f"Seeds were added where verdicts were open, after looks at {listed(looks)} seeds. The tests count that "
            "looking: the chances of error hold for all looks together."
        )
    if "placebo" in trials.roles.values():
        items.append(
            "The placebo is the baseline with other random streams. What it differs by is chance: the noise of the run."
        )
    signs = "▲ better, ▼ worse, ≈ equivalent; no sign: unresolved, or no verdict is due."
    return Section("method", "How verdicts are made", paragraphs([*items, f"In tables: {signs}"]))


def statuses(trials: Sequence[TrialSet]) -> Section:
    """How every trial ended; those that are not ok with their reasons."""
    counts: Counter[str] = Counter()
    reasons: dict[tuple[str, str, str, str], list[int]] = defaultdict(list)
    for one in trials:
        for arm, seed, record in one.planned():
            status = str(record["status"]) if record else PENDING
            counts[status] += 1
            if status != "ok":
                why = str(record.get("reason") or "") if record else "has not run yet"
                reasons[one.dataset, arm, status, why].append(seed)
    total = counts.total()
    if not reasons:
        return Section("trials", "Trials", element("p", f"All {total} planned trials are ok."))
    told = ", ".join(f"{count} {status}" for status, count in counts.most_common())
    several = len(trials) > 1
    heads = (["Dataset"] if several else []) + ["Arm", "Seeds", "Status", "Reason"]
    rows = []
    for (dataset, arm, status, why), seeds in reasons.items():
        cells = ([dataset] if several else []) + [arm, ends(seeds), status, why]
        inner = "".join(
            element("th", text(cell), scope="row") if place == int(several) else element("td", text(cell))
            for place, cell in enumerate(cells)
        )
        rows.append(element("tr", inner))
    head = element("thead", element("tr", "".join(element("th", name, scope="col") for name in heads)))
    caption = element("caption", "Trials that are not ok, with their reasons")
    table = element("table", caption + head + element("tbody", "\n".join(rows)), class_="plain")
    return Section(
        "trials", "Trials", element("p", f"Of {total} planned trials: {text(told)}.") + scroller(table, "Trials")
    )


def environment(trials: Sequence[TrialSet]) -> Section:
    """Machine and versions; where records differ, every value."""
    found: dict[str, dict[str, None]] = defaultdict(dict)
    for one in trials:
        for record in one.records.values():
            for name, value in (record.get("environment") or {}).items():
                if value not in {None, ""}:
                    found[str(name)][str(value)] = None
    pairs = [(name.replace("_", " "), "<br>".join(map(text, values))) for name, values in found.items()]
    body = terms(pairs, class_="pairs") or element("p", "The records do not say.")
    return Section("environment", "Environment", body)


def settings(trials: Sequence[TrialSet], suite_text: str | None) -> Section:
    """What was asked: the baseline's settings, what each arm changes, and the suite's text where it is known."""
    first = trials[0]
    record = next((r for one in trials for r in one.records.values() if r["arm"] == first.baseline), first.heading)
    parts = [element("h3", f"All arms, unless they change it ({text(record['arm'])})")]
    parts.append(terms(_flat(record.get("settings") or {}), class_="pairs"))
    changes = {r["arm"]: r.get("changes") or "" for one in trials for r in one.records.values()}
    listed = [(arm, element("code", text(changes[arm]))) for arm in first.arms if changes.get(arm)]
    if listed:
        parts += [element("h3", "What each arm changes"), terms(listed, class_="pairs")]
    if suite_text is not None:
        parts += [element("h3", "The suite's file"), code_block(suite_text, "The suite's file, TOML")]
    return Section("settings", "Settings", "\n".join(parts))


def reproduction(trials: Sequence[TrialSet]) -> Section:
    """Commands that repeat the run, and how to refer to it."""
    heading = trials[0].heading
    records = [record for one in trials for record in one.records.values()]
    suite = heading.get("suite") or {}
    name, file = str(suite.get("name") or "suite"), str(suite.get("file") or "suite.toml")
    known = heading.get("environment") or {}
    seeds = trials[0].seeds
    run = ["cnnbench", "run", file]
    if (heading.get("planned") or {}).get("looks"):
        run += ["--seeds", "auto"]
    elif seeds == tuple(range(len(seeds))):
        run += ["--seeds", str(len(seeds))]
    version = f"=={known['cnnbench']}" if known.get("cnnbench") else ""
    commands = [
        shlex.join(["pip", "install", f"cnnbench{version}"]),
        shlex.join(run),
        shlex.join(["cnnbench", "report", f"results/{name}", "--format", "html", "--output", "report.html"]),
    ]
    verify = element("code", text(shlex.join(["cnnbench", "verify", f"results/{name}"])))
    digest = str(suite.get("sha256") or "")
    versions = [f"{package} {known[package]}" for package in ("cnnbench", "torch") if known.get(package)]
    parts = [
        name,
        *versions,
        " and ".join(machines_of(records)),
        ends_of_run(records),
        f"suite {file}" + (f", sha256 {digest}" if digest else ""),
    ]
    return Section(
        "reproduce",
        "Reproduce and cite",
        "\n".join(
            [
                code_block("\n".join(commands), "Commands that repeat the run"),
                element(
                    "p", f"Where it is published, {verify} renders everything again from the records and compares."
                ),
                element(
                    "p",
                    "Quality repeats bit for bit on one CPU and one version of torch. Timings repeat as far as the "
                    "machine does: compare ratios, not milliseconds.",
                ),
                element("p", "Refer to this run as:"),
                element("p", text("; ".join(filter(None, parts)) + "."), class_="cite"),
                element("p", "What may be claimed from it:"),
                bullets(_CLAIMS),
            ]
        ),
    )


_CLAIMS = (
    "“Better” and “worse” where the verdict says so, with interval, number of seeds, budget and dataset.",
    "“No difference that matters” where the verdict is equivalent, with the margin; not where an interval holds zero.",
    "Nothing of an arm that is unresolved, and nothing of the highest mean among many.",
    "Latency, energy and memory of the machine above, and of no other.",
)


def _values(records: Sequence[Record], of: Any) -> list[str]:
    return list(dict.fromkeys(str(value) for record in records if (value := of(record))))


def _usual(records: Sequence[Record], key: str) -> str:
    counts = Counter(str(record[key]) for record in records if record.get(key))
    return counts.most_common(1)[0][0] if counts else ""


def _flat(data: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Settings as names with dots and values in words; what is not set is left out."""
    for key, value in data.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict) and "slot" not in value:
            yield from _flat(value, f"{name}.")
        elif value is not None:
            yield name, element("code", text(_worded(value)))


def _worded(value: Any) -> str:
    """``sgd (lr 0.1, momentum 0.9)`` of a technique; lists with a plus between."""
    if isinstance(value, dict) and "slot" in value:
        options = [f"{key} {_worded(given)}" for key, given in value["options"].items() if given is not None]
        return f"{value['name']} ({', '.join(options)})" if options else str(value["name"])
    if isinstance(value, list | tuple):
        return " + ".join(map(_worded, value)) or "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)
