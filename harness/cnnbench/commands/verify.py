"""``cnnbench verify``: whether a published folder is what its records come to, and whether a trial comes out again."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from cnnbench.commands.common import OK, SOME_FAILED, plugin_host, put, tell
from cnnbench.errors import UsageError

if TYPE_CHECKING:
    import argparse

    from cnnbench.commands.common import AddCommand


def add(command: AddCommand) -> None:
    """What the command asks for."""
    verify = command("verify", _verify, "render a published folder again from its records, and compare")
    verify.add_argument("folder", metavar="FOLDER", type=Path, help="a folder that 'cnnbench publish' has written")
    verify.add_argument(
        "--rerun", nargs="?", const="", metavar="ARM", help="also run one trial again (default: of the fastest arm)"
    )
    verify.add_argument(
        "--allow-import", action="store_true", help="--rerun may import code that the published suite names"
    )
    verify.add_argument("--seed", type=int, metavar="S", help="its seed (default: the first that is ok)")


def _verify(given: argparse.Namespace) -> int:
    from cnnbench.verify import verify

    if given.seed is not None and given.rerun is None:
        raise UsageError("--seed: says which trial --rerun runs again, expected together with it")
    found = verify(given.folder)
    for finding in found.findings:
        put(f"{finding.place}: {finding.fault or 'matches'}", None)
        for line in finding.excerpt:
            put(f"    {line}", None)
    if found.cause:
        put(f"likely cause: {found.cause}", None)
    if found.publication is not None:
        put(f"{found.publication.ok}/{found.publication.planned} trials ok", None)
    put(found.sum, None)
    good = found.clean
    if given.rerun is not None:
        from cnnbench.rerun import choose, rerun

        if found.publication is None:
            raise UsageError("--rerun: the records and the suite file do not belong together, so nothing has run")
        record = choose(found.publication.records, given.rerun or None, given.seed)
        tell(f"cnnbench: {record['arm']}, seed {record['seed']}: runs again")
        again = rerun(given.folder, record, plugin_host(), imports=given.allow_import)
        put("\n".join(again.lines), None)
        good &= again.agrees
    return OK if good else SOME_FAILED
