"""``cnnbench doctor``: what this machine can run and measure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cnnbench.commands.common import OK, plugin_host

if TYPE_CHECKING:
    import argparse

    from cnnbench.commands.common import AddCommand


def add(command: AddCommand) -> None:
    """What the command asks for."""
    command("doctor", _doctor, "devices, energy sources, extras and data found on this machine")


def _doctor(_given: argparse.Namespace) -> int:
    from cnnbench.doctor import diagnosis

    print(diagnosis(plugin_host()))
    return OK
