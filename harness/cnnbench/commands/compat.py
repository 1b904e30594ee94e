"""``cnnbench compat``: which techniques can act on a model."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from cnnbench.commands.common import OK, plugin_host, put
from cnnbench.errors import UsageError

if TYPE_CHECKING:
    import argparse

    from cnnbench.commands.common import AddCommand


def add(command: AddCommand) -> None:
    """What the command asks for."""
    compat = command("compat", _compat, "which techniques can act on a model, by two training steps each")
    compat.add_argument("models", nargs="+", metavar="MODEL", help="a model's name, torchvision's, or module:callable")
    compat.add_argument("--slot", action="append", default=[], metavar="SLOT", help="only this slot (may be repeated)")
    compat.add_argument("--image", default="3x64x64", metavar="CxHxW", help="shape of the images (default: 3x64x64)")
    compat.add_argument("--classes", type=int, default=10, metavar="K", help="number of classes (default: 10)")
    compat.add_argument("--output", type=Path, metavar="FILE", help="write the page there instead of printing it")


def _compat(given: argparse.Namespace) -> int:
    from cnnbench import compat, compat_page
    from cnnbench.devices import resolve
    from cnnbench.registry import nearest

    for slot in given.slot:
        if slot not in compat.SLOTS:
            raise UsageError(f"--slot: unknown slot {slot!r}: {nearest(slot, compat.SLOTS)}")
    shape = re.fullmatch(r"([13])x([1-9]\d*)x([1-9]\d*)", given.image)
    if shape is None:
        raise UsageError(f"--image: expected CxHxW with C 1 or 3, such as 3x64x64, got {given.image!r}")
    if given.classes < 2:
        raise UsageError(f"--classes: expected at least 2, got {given.classes}")
    registry, device = plugin_host().registry, resolve("cpu")
    models = [(text, compat.parse_model(text, registry)) for text in given.models]
    splits = compat.random_splits((int(shape[1]), int(shape[2]), int(shape[3])), given.classes)
    verdicts = []
    for technique in compat.candidates(registry, given.slot or compat.SLOTS):
        for text, model in models:
            verdict = compat.try_technique(technique, model, text, splits, registry, device)
            verdicts.append(verdict)
            print(f"{technique.slot} {technique.name} on {text}: {verdict.status}", file=sys.stderr)
    again = compat_page.command_line(given.models, given.slot, given.image, given.classes, given.output)
    put(compat_page.page(verdicts, command=again, image=given.image, classes=given.classes), given.output)
    print(compat_page.totals(verdicts), file=sys.stderr)
    return OK
