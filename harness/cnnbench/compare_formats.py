"""A comparison as text: for terminals, as a Markdown comment, and as data in JSON."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from typing import TYPE_CHECKING, Any, Final

from rich.cells import cell_len
from tabulate import tabulate

from cnnbench.compare import LEVEL, SAME_CODE, SAME_NETWORK
from cnnbench.compare_notes import notes
from cnnbench.compare_text import Change, change, change_beside, lines
from cnnbench.text import escaped, printable, wrapped

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from cnnbench.compare import Comparison, Result
    from cnnbench.compare_text import Line

    Names = tuple[str, str]

_GAP = "  "
_HEADS = ("metric", "before", "after", "difference", "beside", "verdict")
_LONG = 30
"""A table of more lines than fill a screen only names what did not change."""


def terminal(result: Result, names: Names) -> str:
    """The headline, a block for each arm, and the notes."""
    width = shutil.get_terminal_size((100, 24)).columns
    everything = lines(result)
    found = [line for line in everything if not _unchanged(line)] if len(everything) > _LONG else everything
    text = [_headline(result), "", *_blocks(result, found, width)] if found else [_headline(result), ""]
    if len(found) < len(everything):
        text += _folded([line for line in everything if _unchanged(line)], {line.arm for line in found}, width)
    text.append("")
    for note in notes(result, names):
        text += wrapped(note, width, "  ")
    return "\n".join(line.rstrip() for line in text)


def _unchanged(line: Line) -> bool:
    return line.verdict == "no change shown" and line.reason in {"", SAME_CODE, SAME_NETWORK}


def _folded(some: Sequence[Line], moved: Collection[str], width: int) -> list[str]:
    """What did not change, by name: arms in which nothing did together, the others one by one."""
    still = list(dict.fromkeys(line.arm for line in some if line.arm not in moved))
    text = [f"No change shown in any metric of {', '.join(map(printable, still))}."] if still else []
    for arm in dict.fromkeys(line.arm for line in some if line.arm in moved):
        metrics = ", ".join(printable(line.metric) for line in some if line.arm == arm)
        text.append(f"No further change shown of {printable(arm)}: {metrics}.")
    text.append("--format markdown has the figures of these.")
    return ["", *(part for sentence in text for part in wrapped(sentence, width, "  "))]


def _blocks(result: Result, found: Sequence[Line], width: int) -> list[str]:
    """Heads, then the lines of each arm that has some."""
    cells = {id(line): _cells(line) for line in found}
    heads = _HEADS if any(line.beside for line in found) else tuple(head for head in _HEADS if head != "beside")
    widths = {head: max(cell_len(text) for text in [head, *(c[head] for c in cells.values())]) for head in heads}
    text = [_row({head: head for head in heads}, widths)]
    text.append(_GAP.join("─" * widths[head] for head in heads))
    for arm in result.arms:
        mine = [line for line in found if line.arm == arm]
        text += wrapped(printable(arm), width, "  ") if mine else []
        for line in mine:
            row, aside = _row(cells[id(line)], widths).rstrip(), f" ({printable(line.reason)})"
            fits = cell_len(row + aside) <= width
            text.append(row + aside if line.reason and fits else row)
            if line.reason and not fits:
                text += ["      " + part for part in wrapped(printable(line.reason), width - 6)]
    return text


def _cells(line: Line) -> dict[str, str]:
    return {
        "metric": f"  {printable(line.metric)}",
        "before": line.before,
        "after": line.after,
        "difference": line.difference,
        "beside": printable(line.beside),
        "verdict": line.verdict,
    }


def _row(cells: Mapping[str, str], widths: Mapping[str, int]) -> str:
    """Figures at the right of their columns, words at the left."""
    texts = []
    for head, width in widths.items():
        pad = " " * (width - cell_len(cells[head]))
        texts.append(pad + cells[head] if head in {"before", "after"} else cells[head] + pad)
    return _GAP.join(texts)


def _headline(result: Result) -> str:
    counts = Counter(line.verdict for line in lines(result))
    if not result.regressions:
        start = "No regression"
    else:
        start = f"{result.regressions} regression{'s' * (result.regressions > 1)}"
        start += ", or the machine's doing" if result.explained else ""
    others = [f"{counts[word]} {word}" for word in ("improved", "no change shown", "not compared") if counts[word]]
    return f"{start} ({', '.join(others)})." if others else f"{start}."


def markdown(result: Result, names: Names) -> str:
    """A comment: headline and what moved in sight, everything else folded away."""
    found = lines(result)
    moved = [line for line in found if line.verdict in {"regressed", "improved"}]
    text = [f"### {escaped(str((result.after.heading.get('suite') or {}).get('name') or 'results'))}", ""]
    text += [f"**{_headline(result)}**", ""]
    if moved:
        text += [_pipe(moved), ""]
    text += ["<details><summary>All comparisons</summary>", "", _pipe(found), "", "</details>", ""]
    text += [f"- {escaped(note)}" for note in notes(result, names)]
    return "\n".join(text)


def _pipe(some: Sequence[Line]) -> str:
    beside = any(line.beside for line in some)
    heads = ["arm", *(head for head in _HEADS if beside or head != "beside")]
    rows = []
    for line in some:
        cells = {name: escaped(text) for name, text in _cells(line).items()}
        verdict = f"**{line.verdict}**" if line.verdict == "regressed" else line.verdict
        cells["verdict"] = f"{verdict}: {escaped(line.reason)}" if line.reason else verdict
        rows.append([escaped(line.arm), *(cells[head] for head in heads[1:])])
    sides = ["right" if head in {"before", "after"} else "left" for head in heads]
    return tabulate(rows, heads, tablefmt="pipe", colalign=sides, disable_numparse=True)


def json_text(result: Result, names: Names) -> str:
    """Everything as one JSON object: values in the recorded unit, relative differences as shares."""
    data = {
        "regressions": result.regressions,
        "level": LEVEL,
        "before": {"source": names[0], **_heading(result.before.heading)},
        "after": {"source": names[1], **_heading(result.after.heading)},
        "comparisons": list(map(_comparison, result.comparisons)),
        "trials": [
            {
                "arm": one.arm,
                "seeds": list(one.seeds),
                "before": one.before,
                "after": one.after,
                "verdict": one.verdict,
                "reason": one.reason or None,
            }
            for one in result.trials
        ],
        "notes": list(notes(result, names)),
    }
    return json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False)


def _heading(heading: Mapping[str, Any]) -> dict[str, Any]:
    environment = heading.get("environment") or {}
    return {"suite": heading.get("suite"), "revision": environment.get("revision"), "started": heading.get("started")}


def _comparison(one: Comparison) -> dict[str, Any]:
    evidence, tolerance = one.evidence, one.tolerance
    found: dict[str, Any] = {"arm": one.arm, "metric": one.metric, "quantity": one.quantity.key, "verdict": one.verdict}
    found |= {"reason": one.reason or None, "p": one.p, "tolerance": None, "before": None, "after": None}
    found |= {"seeds": [], "difference": None, "beside": None, "decided_by": []}
    if tolerance is not None:
        found["tolerance"] = {"amount": tolerance.amount, "relative": tolerance.relative}
    if evidence is not None:
        found |= {"before": evidence.before, "after": evidence.after, "seeds": [pair.seed for pair in evidence.pairs]}
        found["difference"] = _ends(change(evidence, one.quantity))
        if one.p is not None:
            named = {"difference": evidence.shift, "beside": evidence.beside}
            found["decided_by"] = [name for name, shift in named.items() if shift in evidence.deciding]
        beside = change_beside(evidence)
        found["beside"] = {"reference": evidence.reference, **_ends(beside)} if beside else None
    return found


def _ends(found: Change) -> dict[str, Any]:
    return {"mean": found.mean, "low": found.low, "high": found.high, "relative": found.relative}


FORMATS: Final[Mapping[str, Callable[[Result, Names], str]]] = {
    "terminal": terminal,
    "markdown": markdown,
    "json": json_text,
}
"""What a comparison can be shown as: functions of it and of where the two runs came from."""
