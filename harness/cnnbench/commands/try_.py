"""``cnnbench try``: a technique against a baseline on a small real task, in less than a minute."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from cnnbench.commands.common import OK, SOME_FAILED, tell, warn_of
from cnnbench.errors import UsageError

if TYPE_CHECKING:
    import argparse

    from cnnbench.commands.common import AddCommand


def add(command: AddCommand) -> None:
    """What the command asks for."""
    attempt = command("try", _try, "a technique against its baseline on a small real task, in under a minute")
    attempt.add_argument("target", metavar="TARGET", help="a .py file, module, distribution, NAME or SLOT/NAME")
    attempt.add_argument("--model", metavar="M", help="a name, or a suite's inline table in quotes")
    attempt.add_argument("--dataset", metavar="D", help="likewise (default: one on which the technique can act)")
    attempt.add_argument("--seeds", type=int, default=3, metavar="N", help="seeds 0 to N-1 (default: 3)")
    attempt.add_argument("--device", default="auto", metavar="D", help="cpu, cuda, cuda:1, mps, xla or auto")
    attempt.add_argument("--suite", type=Path, metavar="FILE", help="write the suite that ran there, to go on from")


def _try(given: argparse.Namespace) -> int:
    from cnnbench.execute.cache import default_cache
    from cnnbench.execute.local import start_fork_server
    from cnnbench.progress import make_progress
    from cnnbench.targets import find

    if given.seeds < 1:
        raise UsageError(f"--seeds: expected at least 1, got {given.seeds}")
    if given.suite is not None and given.suite.suffix != ".toml":
        raise UsageError(f"--suite: expected a file that ends with .toml, got {str(given.suite)!r}")
    if given.suite is not None and given.suite.exists():
        raise UsageError(f"--suite: {given.suite} is there already: name another file, or remove it")
    target = find(given.target, Path.cwd())
    warn_of(target.host.problems)
    start_fork_server()  # it imports torch while a baseline is looked for
    from cnnbench.try_fit import Asked
    from cnnbench.trying import Attempt

    outcome = Attempt(
        target=target,
        asked=Asked(given.model, given.dataset, given.seeds, given.device),
        file=given.suite or Path("try.toml"),
        cache=default_cache(),
        executor="local",
        say=lambda text: print(f"{text}\n", flush=True),
        progress=lambda: make_progress(quiet=not sys.stderr.isatty()),
    ).run()
    if outcome.suite is not None:
        _go_on(given, outcome.suite)
    return OK if outcome.fine else SOME_FAILED


def _go_on(given: argparse.Namespace, suite: str) -> None:
    """Leave the suite where it was asked for, or say how to."""
    target = shlex.quote(given.target)
    if given.suite is None:
        tell(f"cnnbench try {target} --suite FILE.toml   leaves the suite that ran, for an ablation of your own")
        return
    try:
        given.suite.write_text(suite, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"--suite: {given.suite} can't be written: {error.strerror}") from error
    tell(f"cnnbench run {shlex.quote(str(given.suite))}   runs it: give it your own question, data and seeds")
