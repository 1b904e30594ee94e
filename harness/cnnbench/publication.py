"""What is published of a run: every file of its folder, made from its records and its suite file alone.

The same records and suite give the same bytes, wherever and whenever: no clock, no path, no random number. Hence
``verify`` can make them again and compare.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from cnnbench.again import command, other_seeds
from cnnbench.anonymous import HIDDEN, without_folders
from cnnbench.answers import answers_of
from cnnbench.errors import UsageError
from cnnbench.figures import make_figures
from cnnbench.frame import by_dataset
from cnnbench.local_plugins import COPIES
from cnnbench.paths import plain_name
from cnnbench.record_lines import as_line
from cnnbench.report_page import html_page
from cnnbench.store import FILE
from cnnbench.tables import FORMATS, make_report
from cnnbench.text import escaped, listed
from cnnbench.toml import parse_toml

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from cnnbench.figures import Figure
    from cnnbench.tables import Report

MANIFEST: Final = "published.json"
"""Says of a folder that it is published, by which versions, and the sha256 of every file."""

_TAKEN: Final = frozenset(
    {FILE, MANIFEST, "earlier.jsonl", "records.damaged", "table.md", "table.tex", "report.html", "figures", COPIES}
)
"""Names in a published folder that are not the suite's, in lower case: some systems tell no other apart."""
_RENDERERS: Final = ("cnnbench", "numpy", "scipy", "pandas", "matplotlib")
"""Packages whose version can change a published file."""


@dataclass(frozen=True)
class Publication:
    """A run as it is published.

    Attributes:
        report: its tables.
        records: those of the run, in the order of its plan, without folders of paths.
        files: content by path relative to the folder, without the manifest.
        ok, planned: number of trials.
    """

    report: Report
    records: tuple[Mapping[str, Any], ...]
    files: Mapping[str, bytes]
    ok: int
    planned: int

    @property
    def heading(self) -> Mapping[str, Any]:
        """A record that speaks for all."""
        return self.records[-1]

    def manifest(self) -> bytes:
        """The content of ``published.json``."""
        suite = self.heading.get("suite") or {}
        said = {
            "schema": 1,
            "suite": suite.get("name"),
            "sha256": suite.get("sha256"),
            "ok": self.ok,
            "planned": self.planned,
            "versions": {name: version(name) for name in _RENDERERS},
            "files": {name: digest(content) for name, content in sorted(self.files.items())},
        }
        return (json.dumps(said, indent=2, ensure_ascii=False) + "\n").encode()


def digest(content: bytes) -> str:
    """The sha256 of a file's bytes, in hex."""
    return hashlib.sha256(content).hexdigest()


def shown(records: Sequence[Mapping[str, Any]]) -> tuple[Mapping[str, Any], ...]:
    """The records of the latest run alone, in the order of its plan.

    Raises:
        UsageError: there are none.
    """
    return tuple(record for trials in by_dataset(records).values() for arm in trials.arms for record in trials.of(arm))


def make(
    records: Sequence[Mapping[str, Any]], suite: bytes, read: Callable[[str], bytes | None] = lambda _name: None
) -> Publication:
    """The publication of the latest run among the records.

    Args:
        records: in the order of the file.
        suite: the bytes of the suite file that they came from.
        read: content of a file of the suite's plugins by its path from the suite, None where there is none.

    Raises:
        UsageError: there are no records, or they came from another suite file or other plugins.
    """
    mine = tuple(without_folders(dict(record)) for record in shown(records))
    file = suite_file(mine[-1])
    check_suite(mine[-1], suite)
    code = code_files(mine[-1], read)
    trials = by_dataset(mine)
    report = make_report(mine, Path(FILE))
    figures = make_figures(report, mine)
    text = suite.decode("utf-8-sig")
    files = {
        FILE: b"".join(map(as_line, mine)),
        file: suite,
        **code,
        "table.md": _page(report, figures, mine, suite).encode(),
        "table.tex": _rendered(report, "latex") + b"\n",
        "report.html": html_page(report, mine, figures, suite_text=text).encode() + b"\n",
    }
    for figure in figures:
        files[f"figures/{figure.key}.svg"] = figure.svg.encode()
        files[f"figures/{figure.key}.png"] = figure.png()
    planned = sum(len(one.seeds_of(arm)) for one in trials.values() for arm in one.arms)
    return Publication(report, mine, files, sum(record["status"] == "ok" for record in mine), planned)


def suite_file(heading: Mapping[str, Any]) -> str:
    """The name of the suite file beside the records, as a record tells it.

    Raises:
        UsageError: it is no plain name, or that of another published file.
    """
    name = plain_name(str((heading.get("suite") or {}).get("file")), "the suite file")
    if name.lower() in _TAKEN:
        raise UsageError(f"the suite file {name!r} has the name of another published file")
    return name


def code_files(heading: Mapping[str, Any], read: Callable[[str], bytes | None]) -> dict[str, bytes]:
    """Files of the plugins that a suite names, by their path from the suite, as the run had them.

    Args:
        heading: a record of the run.
        read: as of ``make``.

    Raises:
        UsageError: one is missing or was changed since.
    """
    found: dict[str, bytes] = {}
    for name, said in ((heading.get("suite") or {}).get("code") or {}).items():
        path = f"{COPIES}/{name}"
        content = read(path)
        if content is None:
            raise UsageError(f"no {path} beside the records, of the suite's plugins: run it again, and it is put there")
        if digest(content) != said:
            raise UsageError(
                f"the records came from another version of {path}: their sha256 is {str(said)[:12]}, the file's is "
                f"{digest(content)[:12]}"
            )
        found[path] = content
    return found


def check_suite(heading: Mapping[str, Any], suite: bytes) -> None:
    """See that a suite file is the one that records came from.

    Raises:
        UsageError: it is not, and says both digests; or it is no TOML.
    """
    said = heading.get("suite") or {}
    if digest(suite) != said.get("sha256"):
        raise UsageError(
            f"the records came from another version of {said.get('file')}: their sha256 is "
            f"{str(said.get('sha256'))[:12]}, the file's is {digest(suite)[:12]}"
        )
    parse_toml(suite, str(said.get("file")))


def _page(report: Report, figures: Sequence[Figure], records: Sequence[Mapping[str, Any]], suite: bytes) -> str:
    """``table.md``: the answer, the tables, the figures, and the command that makes them again."""
    heading = records[-1]
    suite_name = escaped(str((heading.get("suite") or {}).get("name")))
    parts = [f"# {suite_name}", *(f"**{escaped(text)}**" for text in answers_of(report, records).lines)]
    parts.append(_rendered(report, "markdown").decode())
    parts += ["## Figures"] if figures else []
    for figure in figures:
        parts.append(f"![{escaped(figure.alt)}](figures/{figure.key}.svg)")
        parts.append(f"*{escaped(figure.title)}.* {escaped(figure.caption)}")
    parts.append("All of it on one page, tables to sort, and settings: [report.html](report.html).")
    made = f"```sh\n{command(heading, suite)}\n```"
    parts.append(f"## Again\n\nIn this folder, with the suite file that lies here:\n\n{made}")
    seeds = other_seeds(heading, suite)
    if seeds:
        parts.append(f"The run had the seeds {listed(seeds, most=len(seeds))}: write them into the suite's `seeds`.")
    if _names_paths(heading):
        parts.append("The suite names files by path, relative to where it lay then: see `settings` in the records.")
    parts.append("`cnnbench verify` renders this folder's files again from its records and compares.")
    return "\n\n".join(parts) + "\n"


def _rendered(report: Report, form: str) -> bytes:
    made = FORMATS[form](report, None)
    return made if isinstance(made, bytes) else made.encode()


def _names_paths(value: Any) -> bool:
    """Whether settings hold a path that was absolute."""
    return f'"{HIDDEN}/' in json.dumps((value.get("settings") or {}), ensure_ascii=False)
