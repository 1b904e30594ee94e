"""The page of all commands is what the parser says. After a change of the command line, make it anew by:

CNNBENCH_UPDATE_GOLDEN=1 pytest tests/harness/test_commands_page.py
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from cnnbench.cli import _parser

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "commands.md"

HEAD = """\
# Commands

Made from the command line's own help: each command's `--help` says the same.

"""


def _cell(text):
    return " ".join(text.split()).replace("|", "\\|")


def _words(action):
    """How an argument is written."""
    if not action.option_strings:
        name = action.metavar or "|".join(map(str, action.choices or [action.dest.upper()]))
        return {"?": f"[{name}]", "*": f"[{name} ...]", "+": f"{name} ..."}.get(action.nargs, name)
    values = "" if action.nargs == 0 else f" {action.metavar or action.dest.upper()}"
    return ", ".join(f"{flag}{values}" for flag in action.option_strings)


def _table(heading, actions):
    rows = [f"| `{_cell(_words(a))}` | {_cell((a.help or '') % {**vars(a), 'prog': 'cnnbench'})} |" for a in actions]
    return "\n".join([f"| {heading} | meaning |", "| --- | --- |", *rows]) + "\n\n" if rows else ""


def _section(name, command):
    actions = [action for action in command._actions if not isinstance(action, argparse._HelpAction)]
    arguments = [action for action in actions if not action.option_strings]
    options = [action for action in actions if action.option_strings]
    usage = " ".join(["cnnbench", name, *map(_words, arguments), *(["[options]"] if options else [])])
    return (
        f"## {name}\n\n{_cell(command.description)}\n\n```text\n{usage}\n```\n\n"
        f"{_table('argument', arguments)}{_table('option', options)}"
    )


def page():
    """The whole page."""
    (commands,) = (action for action in _parser()._actions if action.choices)
    contents = "\n".join(
        f"- [{name}](#{name}): {_cell(command.description)}" for name, command in commands.choices.items()
    )
    return HEAD + contents + "\n\n" + "".join(_section(*item) for item in commands.choices.items()).rstrip() + "\n"


def test_the_page_of_commands_is_what_the_parser_says():
    if os.environ.get("CNNBENCH_UPDATE_GOLDEN"):
        PAGE.write_text(page(), "utf-8")
    assert PAGE.read_text("utf-8") == page()
