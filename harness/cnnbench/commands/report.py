"""``cnnbench report``: finished results as tables, in any format, or as a page."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cnnbench.commands.common import OK, host_with, plugin_option, put, tell
from cnnbench.errors import UsageError

if TYPE_CHECKING:
    import argparse

    from cnnbench.commands.common import AddCommand

_PAGE = "html"


def add(command: AddCommand) -> None:
    """What the command asks for."""
    report = command("report", _report, "render the table of finished results again, or a report as a page")
    report.add_argument("results", metavar="RESULTS", type=Path, help="a folder with records.jsonl, or such a file")
    report.add_argument(
        "--format",
        default="terminal",
        metavar="NAME",
        help="terminal, markdown, latex, html (the whole report as one page), csv, json or parquet",
    )
    report.add_argument("--output", type=Path, metavar="FILE", help="write there instead of printing")
    report.add_argument(
        "--traces", action="store_true", help="what failed and where in the code, in place of the table"
    )
    report.add_argument("--figures", type=Path, metavar="DIR", help="write every figure there too, as SVG and PNG")
    plugin_option(report)


def _report(given: argparse.Namespace) -> int:
    from cnnbench.bulk import no_collection

    with no_collection():  # over many records it would find nothing, again and again
        return _reported(given)


def _reported(given: argparse.Namespace) -> int:
    from cnnbench.store import open_results
    from cnnbench.tables import FORMATS

    table_alone = given.format in FORMATS and given.figures is None and not given.traces
    found = open_results(given.results, lean=table_alone)
    for problem in found.problems:
        tell(f"cnnbench: warning: {found.path}: {problem}")
    if given.traces:
        from cnnbench.failures import failures, trace_text
        from cnnbench.frame import by_dataset

        latest = [record for trials in by_dataset(found.records).values() for record in trials.records.values()]
        put(trace_text(failures(latest)), given.output)
        return OK
    if given.figures is not None:
        _draw(list(found.records), given.results, given.figures)
    rendered = _rendered(list(found.records), given.format, given.results, found.path.parent, given.plugin)
    if isinstance(rendered, str):
        put(rendered, given.output)
    else:
        _put_bytes(rendered, given.format, given.output)
    return OK


def _draw(records: list[dict[str, Any]], source: Path, folder: Path) -> None:
    """All figures into a folder; what was written is told beside the table, not in it."""
    from cnnbench.figures import make_figures, write
    from cnnbench.tables import make_report

    try:
        written = write(make_figures(make_report(records, source), records), folder)
    except OSError as error:
        raise UsageError(f"--figures: {folder} can't be written: {error.strerror}") from error
    tell(f"cnnbench: {len(written) // 2} figures as SVG and PNG in {folder}")


def _put_bytes(content: bytes, form: str, output: Path | None) -> None:
    """Write to a file or into a pipe; a terminal is no place for bytes."""
    if output is None:
        if sys.stdout.isatty():
            raise UsageError(f"--format {form} is not text: expected --output FILE, or a pipe")
        sys.stdout.buffer.write(content)
        return
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_bytes(content)
    except OSError as error:
        raise UsageError(f"--output: {output} can't be written: {error.strerror}") from error


def _rendered(records: list[dict[str, Any]], form: str, source: Path, folder: Path, plugins: list[str]) -> str | bytes:
    """Records in one of the harness's formats, or a plugin's; plugins are loaded only for theirs."""
    from cnnbench.registry import nearest
    from cnnbench.tables import FORMATS, render

    if form == _PAGE:
        from cnnbench.run_page import page_of

        return page_of(records, source, folder)
    if form in FORMATS:
        return render(records, form, source=source)
    from cnnbench.options import make
    from cnnbench.types import Choice

    registry = host_with(plugins).registry
    names = registry.names("reporter")
    if form not in names:
        raise UsageError(f"--format: unknown format {form!r}: {nearest(form, [*FORMATS, _PAGE, *names])}")
    return str(make(Choice("reporter", form), registry)(records))
