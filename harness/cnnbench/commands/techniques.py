"""``cnnbench list``, ``show`` and ``schema``: what there is to name in a suite."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cnnbench.commands.common import OK, host_with, plugin_option

if TYPE_CHECKING:
    import argparse

    from cnnbench.commands.common import AddCommand


def add(command: AddCommand) -> None:
    """What the commands ask for."""
    listing = command("list", _list, "techniques by slot, one line each")
    listing.add_argument("slot", nargs="?", metavar="SLOT", help="only this slot")
    listing.add_argument("--markdown", action="store_true", help="everything about all of them, as a Markdown page")
    show = command("show", _show, "one technique: options, formula, source, caveats")
    show.add_argument("name", metavar="NAME", help="a name, or SLOT/NAME")
    schema = command("schema", _schema, "JSON Schema of suite files, for editors")
    for parser in (listing, show, schema):
        plugin_option(parser)


def _list(given: argparse.Namespace) -> int:
    from cnnbench.cards import listing

    if given.markdown:
        from cnnbench.catalogue import catalogue

        print(catalogue(host_with(given.plugin).registry))
        return OK
    print(listing(host_with(given.plugin).registry, given.slot))
    return OK


def _show(given: argparse.Namespace) -> int:
    from cnnbench.cards import card_text

    print(card_text(host_with(given.plugin).registry, given.name))
    return OK


def _schema(given: argparse.Namespace) -> int:
    import json

    from cnnbench.schema import json_schema

    print(json.dumps(json_schema(host_with(given.plugin).registry), indent=2))
    return OK
