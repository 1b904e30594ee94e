"""``cnnbench new``: a plugin to start from."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from cnnbench.commands.common import OK, plugin_host
from cnnbench.errors import UsageError

if TYPE_CHECKING:
    import argparse

    from cnnbench.commands.common import AddCommand
    from cnnbench.scaffold.names import Names


def add(command: AddCommand) -> None:
    """What the command asks for."""
    new = command("new", _new, "a plugin for any slot that works at once: a package, or a single file")
    new.add_argument("name", metavar="NAME", help="my-norm makes a package; my_norm.py makes a file and its suite")
    new.add_argument("--slot", required=True, metavar="SLOT", help="what kind of technique: cnnbench list shows them")
    new.add_argument("--output", type=Path, default=Path(), metavar="DIR", help="where to put it (default: here)")


def _new(given: argparse.Namespace) -> int:
    from cnnbench.registry import nearest
    from cnnbench.scaffold.names import check_free, names_of_file, names_of_project
    from cnnbench.scaffold.write import names_in, package_files, single_files
    from cnnbench.slots import SLOTS

    if given.slot not in SLOTS:
        raise UsageError(f"--slot: unknown slot {given.slot!r}: {nearest(given.slot, SLOTS)}")
    single = given.name.endswith(".py")
    written = Path(given.name)
    names = names_of_file(written.name) if single else names_of_project(given.name)
    folder = given.output / written.parent if single else given.output / names.project
    made = single_files(names, given.slot) if single else package_files(names, given.slot)
    _check_absent([folder / name for name in made] if single else [folder])
    check_free(names, given.slot, plugin_host().registry, names_in(given.slot))
    try:
        for name, text in made.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"new: {error.filename} can't be written: {error.strerror}") from error
    steps = _steps_of_file(names, given.slot, folder) if single else _steps_of_package(names, given.slot, folder)
    wrote = ", ".join(str(folder / name) for name in made) if single else f"{folder}/, {len(made)} files"
    print(f"wrote {wrote}; next:\n\n" + "\n".join(f"  {step}" for step in steps))
    return OK


def _check_absent(paths: list[Path]) -> None:
    for path in paths:
        if path.exists() or path.is_symlink():
            raise UsageError(f"new: {path} exists, and nothing is ever written over: choose another name or --output")


def _steps_of_package(names: Names, slot: str, folder: Path) -> list[str]:
    from cnnbench.scaffold.write import uses

    return [
        f"cd {shlex.quote(str(folder))}",
        'pip install -e ".[test]"',
        "pytest",
        f"cnnbench try {names.project}",
        *uses(slot, names.module, f"suites/{names.project}.toml", names.project),
    ]


def _steps_of_file(names: Names, slot: str, folder: Path) -> list[str]:
    from cnnbench.scaffold.write import uses

    file, suite = (shlex.quote(str(folder / f"{names.module}.{ending}")) for ending in ("py", "toml"))
    return [
        f"cnnbench check {file}",
        f"cnnbench try {file}",
        *uses(slot, names.module, suite, names.module, file),
    ]
