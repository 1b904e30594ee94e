"""``cnnbench report``: the table of finished results, in any format."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cnnbench.commands.common import OK, plugin_host, put
from cnnbench.errors import UsageError

if TYPE_CHECKING:
    import argparse

    from cnnbench.commands.common import AddCommand


def add(command: AddCommand) -> None:
    """What the command asks for."""
    report = command("report", _report, "render the table of finished results again")
    report.add_argument("results", metavar="RESULTS", type=Path, help="a folder with records.jsonl, or such a file")
    report.add_argument("--format", default="terminal", metavar="NAME", help="terminal, markdown, csv or json")
    report.add_argument("--output", type=Path, metavar="FILE", help="write there instead of printing")


def _report(given: argparse.Namespace) -> int:
    from cnnbench.store import open_results

    found = open_results(given.results)
    for problem in found.problems:
        print(f"cnnbench: warning: {found.path}: {problem}", file=sys.stderr)
    put(_rendered(list(found.records), given.format, given.results), given.output)
    return OK


def _rendered(records: list[dict[str, Any]], form: str, source: Path) -> str:
    """Records in one of the harness's formats, or a plugin's; plugins are loaded only for theirs."""
    from cnnbench.registry import nearest
    from cnnbench.tables import FORMATS, render

    if form in FORMATS:
        return render(records, form, source=source)
    from cnnbench.options import make
    from cnnbench.types import Choice

    registry = plugin_host().registry
    names = registry.names("reporter")
    if form not in names:
        raise UsageError(f"unknown format {form!r}: {nearest(form, [*FORMATS, *names])}")
    return str(make(Choice("reporter", form), registry)(records))
