"""The one name that an author gives, in every form that a plugin needs it in."""

from __future__ import annotations

import importlib.metadata
import keyword
import re
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cnnbench.errors import UsageError
from cnnbench.importing import located

if TYPE_CHECKING:
    from collections.abc import Collection

    from cnnbench.registry import Registry

_FOLDERS = ("build", "dist", "results", "suites")
"""Folders that a package has for something else than its module."""


@dataclass(frozen=True)
class Names:
    """A plugin's names.

    Attributes:
        project: of the distribution, as package indexes write it, e.g. ``my-norm``.
        module: of the import package or the file, and of the technique, e.g. ``my_norm``.
        cls: of the technique's class, e.g. ``MyNorm``.
    """

    project: str
    module: str
    cls: str


def names_of_project(written: str) -> Names:
    """Names for a package.

    Args:
        written: any spelling of the distribution's name (PEP 508), without dots: with one it might be a file's.

    Raises:
        UsageError: it is none, or it can't be a module's name as well; says what could.
    """
    if "." in written:
        file, package = _better(written.partition(".")[0]).replace("-", "_"), _better(written)
        raise UsageError(
            f"new: {written!r} is no name for a plugin: expected a file that ends with .py or a package's name without "
            f"dots, such as '{file}.py' or {package!r}"
        )
    if not re.fullmatch(r"[A-Z0-9]|[A-Z0-9][A-Z0-9_-]*[A-Z0-9]", written, re.IGNORECASE | re.ASCII):
        better = _better(written)
        raise UsageError(
            f"new: {written!r} is no name for a package: expected letters, digits and hyphens, such as {better!r}"
        )
    project = re.sub(r"[-_]+", "-", written).lower()
    made = _names(written, project.replace("-", "_"))
    if made.module in _FOLDERS:
        raise UsageError(
            f"new: a package has {made.module}/ for something else: choose another name, say 'my-{project}'"
        )
    if made.module.startswith("test"):
        raise UsageError(
            f"new: pytest would take a class called {made.cls} for tests: choose another name, say 'my-{project}'"
        )
    return made


def names_of_file(written: str) -> Names:
    """Names for a plugin in one file.

    Args:
        written: the file's name, which ends with ``.py``.

    Raises:
        UsageError: it can't be a module's and a technique's name; says what could.
    """
    stem = written.removesuffix(".py")
    if not re.fullmatch(r"[a-z][a-z0-9_]*", stem):
        better = _better(stem).replace("-", "_")
        raise UsageError(
            f"new: {written!r} is no name for a plugin's file: expected small letters, digits and underscores, such as "
            f"'{better}.py'"
        )
    return _names(written, stem)


def check_free(names: Names, slot: str, registry: Registry, used: Collection[str]) -> None:
    """See that nothing else has one of the names.

    Args:
        names: those of the plugin.
        slot: its slot.
        registry: all techniques that are installed.
        used: names that the plugin's own code uses for other things.

    Raises:
        UsageError: something has; says what.
    """
    if names.module in registry.names(slot):
        owner = registry.get(slot, names.module).owner
        raise UsageError(f"new: there is a {slot} {names.module!r} already, of {owner}: choose another name")
    try:
        found = importlib.metadata.distribution(names.project)
        raise UsageError(f"new: a distribution {found.name} {found.version} is installed already: choose another name")
    except importlib.metadata.PackageNotFoundError:
        pass
    spec = located(names.module)
    if spec is not None and spec.origin is not None:
        raise UsageError(f"new: there is a module {names.module!r} already, {spec.origin}: choose another name")
    if names.cls in used:
        raise UsageError(
            f"new: the class would be called {names.cls}, as something is that its code uses: choose another name, say "
            f"'my-{names.project}'"
        )


def _names(written: str, module: str) -> Names:
    cls = "".join(part.capitalize() for part in module.split("_"))
    project = re.sub("_+", "-", module).strip("-")
    if not module[0].isalpha():
        reason = "names of modules and techniques begin with a letter"
    elif keyword.iskeyword(module) or keyword.iskeyword(cls):
        reason = f"{module if keyword.iskeyword(module) else cls} is a word of Python's own"
    elif module in sys.stdlib_module_names:
        reason = f"{module} is a module of Python's own library"
    else:
        return Names(project, module, cls)
    better = f"my_{module}.py" if written.endswith(".py") else f"my-{project}"
    raise UsageError(f"new: {written!r} can't be used, for {reason}: choose another name, say {better!r}")


def _better(written: str) -> str:
    """A name like the one that was given, that is one."""
    words = re.findall(r"[a-z0-9]+", written.lower())
    better = "-".join(words)
    taken = better in _FOLDERS or better in sys.stdlib_module_names or better.startswith("test")
    taken |= keyword.iskeyword(better) or keyword.iskeyword(better.capitalize())
    return better if better[:1].isalpha() and not taken else f"my-{better or 'norm'}"
