"""``cnnbench export``: a trained network as a file for others, with its model card."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from cnnbench.commands.common import OK, plugin_host, put, tell
from cnnbench.errors import UsageError

if TYPE_CHECKING:
    import argparse

    from cnnbench.commands.common import AddCommand


def add(command: AddCommand) -> None:
    """What the command asks for."""
    export = command("export", _export, "hand over a trained network with its model card")
    export.add_argument("results", metavar="RESULTS", type=Path, help="a folder with records.jsonl, or such a file")
    export.add_argument("--arm", metavar="ARM", help="the arm, by its name in the table")
    export.add_argument("--dataset", metavar="LABEL", help="of a run on several datasets, the one that it learned")
    export.add_argument("--seed", type=int, metavar="S", help="its seed (default: the first that is ok)")
    export.add_argument("--format", default="onnx", metavar="NAME", help="onnx (default), pt2 or state_dict")
    export.add_argument("--output", type=Path, metavar="DIR", help="folder (default: exports/<suite>/<arm and seed>)")
    export.add_argument(
        "--allow-import",
        action="store_true",
        help="import the plugins that the run's suite named, as the run kept them",
    )
    export.add_argument("--cache", type=Path, metavar="DIR", help="stage cache (default: the user's cache folder)")


def _export(given: argparse.Namespace) -> int:
    from cnnbench.execute.cache import StageCache, default_cache
    from cnnbench.export import FORMATS, choose, default_folder, hand_over, model_file
    from cnnbench.frame import on_dataset
    from cnnbench.opening import host_of_results
    from cnnbench.registry import nearest
    from cnnbench.store import open_results

    form = next((name for name in FORMATS if name == given.format), None)
    if form is None:
        raise UsageError(f"--format: unknown format {given.format!r}: {nearest(given.format, FORMATS)}")
    opened = open_results(given.results)
    for problem in opened.problems:
        tell(f"cnnbench: warning: {opened.path}: {problem}")
    trials = on_dataset(opened.records, given.dataset)
    record = choose(trials, given.arm, given.seed)
    model = model_file(record, StageCache(given.cache or default_cache()))
    folder = given.output or default_folder(record, form)
    # In the order of the plan: the card's table speaks of the run that the last record describes.
    records = [found for arm in trials.arms for found in trials.of(arm)]
    host = host_of_results(opened.path.parent, record, plugin_host(), imports=given.allow_import)
    made = hand_over(records, record, model, form, folder, host.registry)
    put(f"{made.file}: {made.size / 1024:.1f} KiB, {record['arm']}, seed {record['seed']}\n{made.check}", None)
    print(f"model card: {folder / 'README.md'}")
    if not made.check.close:
        print("cnnbench: warning: look at that comparison before you use the file", file=sys.stderr)
    return OK
