"""What several commands share: exit codes, the plugin host, suites as the command line changes them, output."""

from __future__ import annotations

import sys
from argparse import ArgumentTypeError
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from cnnbench.calls import AUTO, changed, records_folder
from cnnbench.errors import UsageError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Sequence

    from cnnbench.opening import Opened
    from cnnbench.plugins import PluginHost, PluginProblem
    from cnnbench.suite import Suite

OK, SOME_FAILED, USAGE, REGRESSION, INTERRUPTED = 0, 1, 2, 3, 130
"""Exit codes."""


class AddCommand(Protocol):
    """Makes the parser of a command."""

    def __call__(self, name: str, answer: Callable[[argparse.Namespace], int], summary: str) -> argparse.ArgumentParser:
        """Return the parser, for the command to add its arguments to."""


def suite_overrides(parser: argparse.ArgumentParser) -> None:
    """Arguments that change a suite for one call."""
    parser.add_argument(
        "--seeds",
        type=_seeds,
        metavar="N",
        help="seeds 0 to N-1 in place of the suite's, or 5-9; auto: more for undecided arms, up to most_seeds",
    )
    parser.add_argument(
        "--no-import", action="store_true", help="refuse a suite that names code to import (plugins, model 'import')"
    )
    parser.add_argument("--device", metavar="D", help="cpu, cuda, cuda:1, mps, xla or auto in place of the suite's")
    parser.add_argument(
        "--only", action="append", default=[], metavar="ARM", help="the baseline and this arm (may be repeated)"
    )


def _seeds(text: str) -> tuple[int, ...] | int | str:
    if text == AUTO:
        return text
    from cnnbench.text import seed_range

    try:
        return seed_range(text) or int(text)
    except ValueError:
        raise ArgumentTypeError(f"expected a number, a range such as 5-9, or {AUTO}, got {text!r}") from None


def number(text: str) -> float:
    """What an option takes that asks for a number.

    Raises:
        ArgumentTypeError: it is none.
    """
    try:
        return float(text)
    except ValueError:
        raise ArgumentTypeError(f"expected a number, got {text!r}") from None


def time_budget(text: str) -> float:
    """Seconds that an option takes as a duration.

    Raises:
        ArgumentTypeError: it is none.
    """
    from cnnbench.text import seconds_of

    try:
        return seconds_of(text)
    except ValueError as error:
        raise ArgumentTypeError(str(error)) from None


def plugin_host() -> PluginHost:
    """The plugin host; what is wrong with plugins goes to stderr, the rest works on."""
    from cnnbench.plugins import PluginHost

    host = PluginHost.discover()
    warn_of(host.problems)
    return host


def plugin_option(parser: argparse.ArgumentParser) -> None:
    """The argument of commands that take no suite, which would name them, but plugins that are not installed."""
    parser.add_argument(
        "--plugin",
        action="append",
        default=[],
        metavar="FILE_OR_MODULE",
        help="also a plugin that is not installed: a Python file, or a module (may be repeated)",
    )


def host_with(plugins: Sequence[str]) -> PluginHost:
    """The plugin host with plugins that are not installed.

    Args:
        plugins: of ``--plugin``: paths of files, or modules of the working directory or the import path.

    Raises:
        UsageError: one of them does not load; all such are told.
    """
    host = plugin_host()
    if not plugins:
        return host
    from cnnbench.opening import with_plugins

    found = with_plugins(host, plugins, Path.cwd())
    if found.faults:
        raise UsageError("\n".join(f"--plugin: {text}" for _, text in found.faults))
    warn_of(found.host.problems[len(host.problems) :])
    return found.host


def tell(text: str) -> None:
    """A line for people, to stderr; what it quotes from files can't steer their terminal."""
    from cnnbench.text import unsteered

    print(unsteered(text), file=sys.stderr)


def warn_of(problems: Sequence[PluginProblem]) -> None:
    """Tell of what is wrong with plugins, each problem once."""
    for text, count in Counter(map(str, problems)).items():  # a hook may fail at every epoch
        tell(f"cnnbench: warning: {text}" + (f" ({count} times)" if count > 1 else ""))


def load_suite(path: Path, given: argparse.Namespace, host: PluginHost) -> Opened:
    """A suite with the command line's changes; data, device and cores are looked for too, before anything runs.

    Args:
        path: its file.
        given: the command line.
        host: the installed plugins; what is returned has the suite's own beside them.
    """
    from cnnbench.opening import open_suite

    opened = open_suite(path, host, data=True, imports=not given.no_import)
    warn_of(opened.host.problems[len(host.problems) :])
    here = getattr(given, "executor", "") != "ray"
    return opened._replace(suite=changed(opened.suite, given.seeds, given.device, here=here))


def no_suite(command: str) -> UsageError:
    """Which suites there are to choose from, for who named none."""
    from cnnbench.text import listed

    found = listed(sorted(path.as_posix() for path in Path("suites").glob("*.toml")))
    return UsageError(f"{command}: which suite? " + (f"Here are {found}" if found else "Expected a suite file (TOML)"))


def results_folder(given: argparse.Namespace, suite: Suite) -> Path:
    """Where a suite's records go."""
    folder: Path | None = given.results
    return folder if folder is not None else records_folder(suite)


def put(text: str, output: Path | None) -> None:
    """Print a text, or write it to a file; a terminal gets no control characters."""
    if output is None:
        from cnnbench.text import unsteered

        print(unsteered(text) if sys.stdout.isatty() else text)
        return
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise UsageError(f"--output: {output} can't be written: {error.strerror}") from error
