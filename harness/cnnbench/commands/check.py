"""``cnnbench check``: techniques held to the rules of the conformance kit."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from cnnbench.commands.common import INTERRUPTED, OK, SOME_FAILED, put, tell, warn_of
from cnnbench.errors import UsageError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from cnnbench.commands.common import AddCommand
    from cnnbench.testing.finding import Finding
    from cnnbench.testing.rule import Rule

MANY = 10
"""Of more techniques, each is told in short, and no step is timed."""


def add(command: AddCommand) -> None:
    """What the command asks for."""
    check = command("check", _check, "whether techniques keep the contract of their slot, rule by rule")
    what = "a .py file, module, distribution, NAME or SLOT/NAME"
    check.add_argument("target", nargs="?", metavar="TARGET", help=what)
    check.add_argument("--rule", action="append", default=[], metavar="RULE", help="only this rule (may be repeated)")
    check.add_argument("--rules", action="store_true", help="list the rules, with how to mend what breaks them")


def _check(given: argparse.Namespace) -> int:
    try:
        return _told(given)
    except KeyboardInterrupt:
        _at("")
        tell("cnnbench: interrupted")
        return INTERRUPTED


def _told(given: argparse.Namespace) -> int:
    if given.rules:
        from cnnbench import check_report
        from cnnbench.testing.kit import KIT

        put(check_report.rules(KIT), None)
        return OK
    if given.target is None:
        raise UsageError("check: expected a target: a .py file, module, distribution, or a technique's name")
    from cnnbench.execute.local import start_fork_server
    from cnnbench.targets import find

    target = find(given.target, Path.cwd())
    start_fork_server()  # it imports torch while this process does
    from cnnbench import check_report
    from cnnbench.check_process import Checker
    from cnnbench.testing.kit import KIT

    rules = _chosen(given.rule, KIT)
    warn_of(target.host.problems)
    found: list[Finding] = []
    short = len(target.entries) > MANY
    with Checker(target) as checker:
        for number, entry in enumerate(target.entries, 1):
            _at(f"{number} of {len(target.entries)}: {entry.card.slot} {entry.card.name}")
            findings = checker.findings(entry, rules)
            cost = "" if short or given.rule else checker.cost(entry)
            _at("")
            if findings:
                put(check_report.technique(entry, findings, short=short, more=[cost] if cost else []), None)
                sys.stdout.flush()  # a log shows how far a long check has come
            found += findings
    if not found:
        raise UsageError(f"--rule: none is for {given.target}: cnnbench check --rules says which slots they hold")
    put(check_report.summary(found, len({finding.technique for finding in found})), None)
    return SOME_FAILED if any(finding.status == "broken" for finding in found) else OK


def _chosen(names: Sequence[str], kit: Sequence[Rule]) -> list[Rule]:
    """The rules of these names, in the order of the kit; all where none is named."""
    from cnnbench.registry import nearest

    known = [rule.name for rule in kit]
    for name in names:
        if name not in known:
            hint = nearest(name, known)
            hint = hint if hint.startswith("did you mean") else "cnnbench check --rules has them all"
            raise UsageError(f"--rule: unknown rule {name!r}: {hint}")
    return [rule for rule in kit if not names or rule.name in names]


def _at(text: str) -> None:
    """Say on a terminal what is looked at, in place of what was said before."""
    if sys.stderr.isatty():
        from cnnbench.text import unsteered

        sys.stderr.write(f"\r\x1b[K{unsteered(text)[:79]}")
        sys.stderr.flush()
