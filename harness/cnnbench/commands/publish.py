"""``cnnbench publish``: a finished run as a folder for others, and the index of all such folders."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from cnnbench.commands.common import OK, tell

if TYPE_CHECKING:
    import argparse

    from cnnbench.commands.common import AddCommand


def add(command: AddCommand) -> None:
    """What the command asks for."""
    publish = command("publish", _publish, "write a finished run for others: records, tables, report, figures, index")
    publish.add_argument("results", metavar="RESULTS", type=Path, help="a folder with records.jsonl, or such a file")
    publish.add_argument(
        "--to", type=Path, default=Path("results"), metavar="DIR", help="folder of published results (default: results)"
    )
    publish.add_argument("--suite", type=Path, metavar="FILE", help="the suite file, where the results hold no copy")
    publish.add_argument("--partial", action="store_true", help="also a run that has not finished")


def _publish(given: argparse.Namespace) -> int:
    from cnnbench.publish import publish
    from cnnbench.published_index import refresh

    done = publish(given.results, given.to, suite=given.suite, partial=given.partial)
    publication = done.publication
    for remark in (*done.remarks, *refresh(given.to)):
        tell(f"cnnbench: note: {remark}")
    print(f"{done.folder}: {publication.ok}/{publication.planned} trials ok")
    for name, content in publication.files.items():
        print(f"  {name}  {len(content) / 1024:,.1f} KiB")
    print(f"index: {given.to / 'README.md'}")
    return OK
