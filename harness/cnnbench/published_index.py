"""The index of published results: one row for each, in the README of their folder."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from cnnbench.answers import answers_of
from cnnbench.durable import write
from cnnbench.errors import CnnbenchError, StoreError
from cnnbench.publication import MANIFEST
from cnnbench.publish import manifest_of
from cnnbench.store import open_results
from cnnbench.tables import make_report
from cnnbench.text import escaped, listed

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

BEGIN: Final = "<!-- published -->"
END: Final = "<!-- end of published -->"
_HEAD: Final = (
    "| suite | question | answer | arms × seeds | ok | machine | date |\n| --- | --- | --- | --- | --- | --- | --- |"
)


def refresh(root: Path) -> list[str]:
    """Write the index of all published folders below ``root`` into its README.md, between the marks; else at its end.

    Returns:
        A line for each folder that could not be read; it has no row.

    Raises:
        StoreError: the README can't be read or written.
    """
    rows: list[str] = []
    problems: list[str] = []
    for path in sorted(root.rglob(MANIFEST), key=lambda path: path.parent.relative_to(root).as_posix()):
        try:
            rows.append(_row(path.parent, path.parent.relative_to(root).as_posix()))
        except CnnbenchError as error:
            problems.append(f"no row in the index: {error}")
    part = "\n".join([BEGIN, "", *([_HEAD, *rows] if rows else ["Nothing is published yet."]), "", END])
    readme = root / "README.md"
    try:
        text = readme.read_text(encoding="utf-8") if readme.exists() else "# Results\n"
    except (OSError, UnicodeDecodeError) as error:
        raise StoreError(f"{readme}: can't be read: {error}") from error
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    new = f"{before}{part}{after}" if begin and end else f"{text.rstrip()}\n\n{part}\n"
    if new != text:
        write(readme, new.encode())
    return problems


def _row(folder: Path, link: str) -> str:
    said = manifest_of(folder)
    records = open_results(folder).records
    report = make_report(records)
    table = report.tables[0]
    seeds = sorted({row.planned for row in table.rows})
    cells = [
        f"[{escaped(str(said.get('suite')))}]({quote(link)}/table.md), [report]({quote(link)}/report.html)",
        escaped(table.question),
        " ".join(map(escaped, answers_of(report, records).lines)),
        f"{len(table.rows)} × {seeds[0]}" + (f" to {seeds[-1]}" if len(seeds) > 1 else ""),
        escaped(f"{said.get('ok')}/{said.get('planned')}"),
        escaped(_machines(records)),
        _dates(records),
    ]
    return f"| {' | '.join(cells)} |"


def _machines(records: Sequence[Mapping[str, Any]]) -> str:
    found = {str((r.get("environment") or {}).get("device") or r.get("device") or "") for r in records} - {""}
    return listed(sorted(found), most=3)


def _dates(records: Sequence[Mapping[str, Any]]) -> str:
    """The day of the last trial."""
    return max((escaped(str(record["finished"])[:10]) for record in records if record.get("finished")), default="")
