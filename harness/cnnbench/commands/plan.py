"""``cnnbench plan``: what a run would do."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from cnnbench.bulk import no_collection
from cnnbench.calls import AUTO
from cnnbench.commands.common import (
    OK,
    load_suite,
    no_suite,
    number,
    plugin_host,
    results_folder,
    suite_overrides,
    tell,
    time_budget,
    warn_of,
)
from cnnbench.errors import UsageError

if TYPE_CHECKING:
    import argparse

    from cnnbench.commands.common import AddCommand


def add(command: AddCommand) -> None:
    """What the command asks for."""
    plan = command("plan", _plan, "what would run, what is on disk already, and what the seeds can show")
    plan.add_argument("suite", nargs="?", metavar="SUITE", type=Path, help="a suite file (TOML)")
    suite_overrides(plan)
    plan.add_argument(
        "--effect",
        type=number,
        metavar="E",
        help="how many seeds a difference in the primary metric takes, in its recorded unit: 0.01 is a point of "
        "accuracy, or 1 %% of a time (default: the suite's margin)",
    )
    plan.add_argument(
        "--time-budget", type=time_budget, metavar="TIME", help="90m, 2h, 1h30m or minutes: what of it would run"
    )
    plan.add_argument("--results", type=Path, metavar="DIR", help="results folder (default: results/<suite>)")
    plan.add_argument("--cache", type=Path, metavar="DIR", help="stage cache (default: the user's cache folder)")


@no_collection()  # techniques, the suite and its plan all stay until the end
def _plan(given: argparse.Namespace) -> int:
    from cnnbench.execute.cache import StageCache, default_cache
    from cnnbench.here import default_workers, find_place
    from cnnbench.outlook import outlook
    from cnnbench.quantities import quantities
    from cnnbench.store import Store

    if given.suite is None:
        raise no_suite("plan")
    if given.effect is not None and not 0 < given.effect < float("inf"):
        raise UsageError(f"--effect: expected a number above 0, got {given.effect:g}")
    suite, host = load_suite(given.suite, given, plugin_host())
    known = len(host.problems)
    if given.effect is not None and given.effect > 1:
        primary = quantities([suite.measure.primary], suite.measure.latency.batch_sizes)[0]
        if primary.unit == "%":
            hint = f": did you mean {given.effect / 100:g}?" if given.effect <= 100 else ", expected at most 1"
            raise UsageError(f"--effect: {primary.label} is a share{hint}")
    place = find_place(suite.device, suite.measure.latency.threads)
    store, cache = Store(results_folder(given, suite)), StageCache(given.cache or default_cache())
    workers, adaptive = default_workers(place), given.seeds == AUTO
    only, effect, budget = given.only, given.effect, given.time_budget
    warn = lambda text: tell(f"cnnbench: warning: {text}")  # noqa: E731
    text = outlook(suite, host, place, store, cache, workers, only, effect, adaptive=adaptive, budget=budget, warn=warn)
    warn_of(host.problems[known:])
    print(text)
    return OK
