"""The command ``cnnbench``: errors become one line and an exit code; heavy imports wait until needed.

Exit codes: 0 all trials ok; 1 some failed, diverged or ran out of time (the table still prints); 2 bad usage or a bad
suite; 3 a regression; 130 interrupted.
"""

from __future__ import annotations

import argparse
import io
import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import cnnbench
from cnnbench.commands import (
    check,
    compare,
    compat,
    doctor,
    export,
    history,
    merge,
    new,
    plan,
    publish,
    report,
    run,
    techniques,
    try_,
    verify,
)
from cnnbench.commands.common import INTERRUPTED, OK, SOME_FAILED, USAGE, tell
from cnnbench.errors import CnnbenchError, SuiteError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

COMMANDS = (
    *(run, plan, techniques, new, check, try_, compat, report, compare, history, merge, publish, verify, export),
    doctor,
)
"""In the order of the help."""

EXAMPLES = """\
examples:
  cnnbench run suites/quickstart.toml      run a suite to its table
  cnnbench plan suites/quickstart.toml     what it would run, and what is done already
  cnnbench list norm                       the techniques of a slot
  cnnbench show group                      one technique: options, formula, source
  cnnbench report results/quickstart       the table again, in any format
  cnnbench export results/quickstart --arm SiLU  its network as an ONNX file
"""


class _Parser(argparse.ArgumentParser):
    """Says the nearest right word where an argument is not known."""

    def error(self, message: str) -> NoReturn:
        """One line, the way to help, exit code 2."""
        from cnnbench.registry import nearest

        unknown = re.search(r"invalid choice: '([^']*)' \(choose from (.*)\)", message)
        if unknown:
            choices = [word.strip(" '") for word in unknown[2].split(",")]
            message = f"{message.partition(':')[0]}: unknown {unknown[1]!r}: {nearest(unknown[1], choices)}"
        self.exit(USAGE, f"{self.prog}: {message} (see {self.prog} --help)\n")

    def refuse(self, word: str) -> NoReturn:
        """End over a word that no argument takes."""
        from cnnbench.registry import nearest

        option, _, _ = word.partition("=")
        hint = nearest(option, re.findall(r"--[a-z]+", self.format_help())) if word.startswith("-") else ""
        kind = "option" if word.startswith("-") else "argument"
        self.error(f"unknown {kind} {option!r}" + (f": {hint}" if hint.startswith("did you mean") else ""))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal without UTF-8 shows ? for ±, and the run is not lost
    try:
        try:
            return _answer(sys.argv[1:] if arguments is None else arguments)
        finally:
            sys.stdout.flush()
    except BrokenPipeError:  # the reader of our output (head, less) has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # where the interpreter flushes what is left
        return OK


def _answer(arguments: Sequence[str]) -> int:
    """Run one command; errors become a line for people and an exit code."""
    parser = _parser()
    if not arguments:
        parser.print_help()
        return USAGE
    given, unknown = parser.parse_known_args(_joined(arguments))
    if "suites" in given and not any(word.startswith("-") for word in unknown):
        given.suites += map(Path, unknown)  # argparse takes no suites after an option: run a.toml --quiet b.toml
    elif unknown:
        given.parser.refuse(min(unknown, key=lambda word: not word.startswith("-")))
    try:
        code: int = given.command(given)
    except SuiteError as error:
        count = len(error.problems)
        tell(f"{error}\ncnnbench: {count} mistake{'s' if count > 1 else ''}; nothing has run")
        return USAGE
    except UsageError as error:
        tell(f"cnnbench: {error}")
        return USAGE
    except CnnbenchError as error:
        tell(f"cnnbench: {error}")
        return SOME_FAILED
    except KeyboardInterrupt:
        print("\ncnnbench: interrupted; finished work is kept, the same command goes on from here", file=sys.stderr)
        return INTERRUPTED
    return code


def _joined(words: Sequence[str]) -> list[str]:
    """The words with ``--time-budget -5m`` as one: argparse takes what begins so for an option, and says no value came.

    Only the option itself can say what it expects.
    """
    joined: list[str] = []
    for word in words:
        if re.match(r"-[\d.]", word) and joined and re.fullmatch(r"--[a-z-]+", joined[-1]):
            joined[-1] += f"={word}"
        else:
            joined.append(word)
    return joined


def _parser() -> argparse.ArgumentParser:
    plain = argparse.RawDescriptionHelpFormatter
    parser = _Parser(
        prog="cnnbench",
        description="Does this technique help my CNN, on my data, on my hardware, and what does it cost?",
        epilog=EXAMPLES,
        formatter_class=plain,
    )
    parser.add_argument("--version", action="version", version=f"cnnbench {cnnbench.__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", title="commands", parser_class=_Parser, required=True)

    def command(name: str, answer: Callable[[argparse.Namespace], int], summary: str) -> argparse.ArgumentParser:
        made: argparse.ArgumentParser = commands.add_parser(name, help=summary, description=summary)
        made.set_defaults(command=answer, parser=made)
        return made

    for module in COMMANDS:
        module.add(command)
    return parser


if __name__ == "__main__":
    sys.exit(main())
