"""``cnnbench merge``: results of several machines as one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from cnnbench.commands.common import OK, put, tell
from cnnbench.errors import UsageError

if TYPE_CHECKING:
    import argparse

    from cnnbench.commands.common import AddCommand
    from cnnbench.record_lines import Records


def add(command: AddCommand) -> None:
    """What the command asks for."""
    merge = command("merge", _merge, "join results of one suite from several machines, each machine's times apart")
    merge.add_argument(
        "results", metavar="RESULTS", type=Path, nargs="+", help="folders with records.jsonl, or such files"
    )
    merge.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder for the joint records")


def _merge(given: argparse.Namespace) -> int:
    from cnnbench.joint import write
    from cnnbench.merge import merge
    from cnnbench.store import open_results

    if len(given.results) < 2:
        raise UsageError(f"merge: expected two results or more, got {len(given.results)}")
    found: dict[str, Records] = {}
    for path in given.results:
        one = open_results(path)
        same = next((name for name, other in found.items() if other.path.resolve() == one.path.resolve()), None)
        if same is not None:
            raise UsageError(f"merge: {path}: the same records as {same}: expected every folder once")
        found[str(path)] = one
    for one in found.values():
        for problem in one.problems:
            tell(f"cnnbench: warning: {one.path}: {problem}")
    merged = merge({name: one.records for name, one in found.items()})
    for remark in merged.remarks:
        tell(f"cnnbench: note: {remark}")
    for line in write(merged, given.output, [one.path.parent for one in found.values()]):
        put(line, None)
    return OK
