"""``cnnbench run``: suites to their tables."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from cnnbench.calls import check_address, looks, place_data
from cnnbench.commands.common import (
    OK,
    SOME_FAILED,
    load_suite,
    no_suite,
    plugin_host,
    results_folder,
    suite_overrides,
    tell,
    time_budget,
    warn_of,
)
from cnnbench.errors import SuiteError, UsageError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from cnnbench.commands.common import AddCommand
    from cnnbench.errors import Problem
    from cnnbench.opening import Opened


def add(command: AddCommand) -> None:
    """What the command asks for."""
    run = command("run", _run, "run suites to their tables")
    run.add_argument("suites", nargs="*", metavar="SUITE", type=Path, help="suite files (TOML)")
    suite_overrides(run)
    run.add_argument(
        "--time-budget",
        type=time_budget,
        metavar="TIME",
        help="90m, 2h, 1h30m or minutes: run the whole seeds that fit, and say what is left out",
    )
    run.add_argument("--executor", default="local", metavar="NAME", help="local (worker processes), inline or ray")
    run.add_argument("--address", metavar="ADDR", help="with --executor ray: HOST:PORT, auto (default) or local")
    run.add_argument("--workers", type=int, metavar="N", help="worker processes (default: as cores and memory allow)")
    run.add_argument("--results", type=Path, metavar="DIR", help="results folder (default: results/<suite>)")
    run.add_argument("--cache", type=Path, metavar="DIR", help="stage cache (default: the user's cache folder)")
    run.add_argument("--fresh", action="store_true", help="run everything again, whatever is on disk")
    run.add_argument(
        "--tracker", action="append", default=[], metavar="NAME", help="tell mlflow, tensorboard or wandb of the run"
    )
    run.add_argument("--quiet", action="store_true", help="no progress, only the table")


def _run(given: argparse.Namespace) -> int:
    if not given.suites:
        raise no_suite("run")
    if given.time_budget is not None and len(given.suites) > 1:
        raise UsageError("--time-budget is for one suite, but there are several: run them one by one")
    check_address(given.address, given.executor)
    place_data()
    if given.executor == "local" and (given.fresh or not _on_record(given)):
        from cnnbench.execute.local import start_fork_server

        start_fork_server()  # it imports torch while suites are read and planned
    host = plugin_host()
    # Every suite is read before the first one runs: a mistake in the last must not show after an hour.
    suites: list[Opened] = []
    problems: list[Problem] = []
    for path in given.suites:
        try:
            suites.append(load_suite(path, given, host))
        except SuiteError as error:
            problems += error.problems
    if problems:
        raise SuiteError(problems)
    _check_together(given, suites)
    from cnnbench.commands.run_end import again, ends
    from cnnbench.execute.cache import default_cache
    from cnnbench.progress import make_progress
    from cnnbench.runner import RunOptions, run_suite
    from cnnbench.tables import render
    from cnnbench.tracking import tracked

    everything_ok = True
    for path, (suite, host) in zip(given.suites, suites, strict=True):
        options = RunOptions(
            results=results_folder(given, suite),
            cache=given.cache or default_cache(),
            executor=given.executor,
            address=given.address,
            workers=given.workers,
            fresh=given.fresh,
            only=tuple(given.only),
            looks=looks(suite, given.seeds),
            time_budget=given.time_budget,
        )
        known = len(host.problems)
        with tracked(host, given.tracker, suite, options.results):
            summary = run_suite(suite, host, options, make_progress(quiet=given.quiet))
        warn_of(host.problems[known:])
        everything_ok &= summary.clean
        print(render(list(summary.records), "terminal", source=options.results), flush=True)
        for line in ends(summary, again(given, path, suite, summary), str(options.results)):
            tell(line)
    return OK if everything_ok else SOME_FAILED


def _check_together(given: argparse.Namespace, suites: Sequence[Opened]) -> None:
    """See that the suites can be run by this one command.

    Raises:
        UsageError: one of them knows no such tracker, or two would write to the same folder.
    """
    from cnnbench.tracking import check_trackers

    for opened in suites:
        check_trackers(given.tracker, opened.host.registry)
    if given.results is not None and len(suites) > 1:
        raise UsageError(
            "--results names one folder, but there are several suites: leave it out, or run them one by one"
        )
    for name, count in Counter(opened.suite.name for opened in suites).items():
        if count > 1:
            raise UsageError(
                f"{count} of the suites would write to results/{name}: run them one by one, with --results"
            )


def _on_record(given: argparse.Namespace) -> bool:
    """Whether each suite has records already, so that there may be nothing left to run."""
    folders = [given.results or Path("results") / path.stem for path in given.suites]
    return all((folder / "records.jsonl").exists() for folder in folders)
