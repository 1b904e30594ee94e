"""Which techniques there are, by slot and name, and where each comes from."""

from __future__ import annotations

import ast
import difflib
import hashlib
import inspect
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cnnbench.errors import PluginError, UsageError
from cnnbench.slots import SLOTS
from cnnbench.technique import Card, card_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


@dataclass(frozen=True)
class Owner:
    """Where a technique comes from.

    Attributes:
        plugin: the entry point's name.
        distribution: the installed distribution, e.g. ``cnnbench``.
        version: its version.
    """

    plugin: str
    distribution: str
    version: str

    def __str__(self) -> str:
        return f"{self.distribution} {self.version}"


@dataclass(frozen=True)
class Entry:
    """A registered technique.

    Attributes:
        cls: the options class; calling an instance does the work.
        owner: where it comes from.
    """

    cls: type[Any]
    owner: Owner

    @property
    def card(self) -> Card:
        """Slot, name and requirements."""
        return card_of(self.cls)

    @property
    def summary(self) -> str:
        """First line of the docstring."""
        return inspect.cleandoc(self.cls.__doc__ or "").partition("\n")[0]

    @cached_property
    def source_digest(self) -> str:
        """Digest of the code behind the technique: every Python file in its module's folder, and all they import.

        A technique may lean on its neighbours and on helpers elsewhere in its top-level package, so a change to any of
        them makes its results stale. Imports are read from the source, also those inside functions. A module outside a
        package stands for itself alone.
        """
        return _digest_of_folder(self.cls)


def _digest_of_folder(cls: type[Any]) -> str:
    try:
        file = Path(inspect.getfile(cls))
    except (OSError, TypeError):  # made in an interactive session
        return hashlib.sha256(repr(cls).encode()).hexdigest()[:16]
    if not (file.parent / "__init__.py").exists():
        return digest_of_files([file])
    root = file.parent
    while (root.parent / "__init__.py").exists():
        root = root.parent
    found: dict[Path, None] = {}
    ahead = sorted(file.parent.glob("*.py"))
    while ahead:
        path = ahead.pop()
        if path not in found:
            found[path] = None
            ahead += _imported(path, root, path.stat().st_mtime_ns)
    return digest_of_files(sorted(found))


@cache
def _imported(file: Path, root: Path, changed: int) -> tuple[Path, ...]:  # noqa: ARG001 - a changed file is read anew
    """Files of the package at ``root`` that a file imports; one that can't be parsed imports none."""
    try:
        tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError):
        return ()
    modules: list[Path] = []
    for node in _statements(tree):
        if isinstance(node, ast.Import):
            modules += [root.parent.joinpath(*alias.name.split(".")) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = file.parents[node.level - 1] if node.level else root.parent
            module = base.joinpath(*(node.module or "").split("."))
            modules += [module, *(module / alias.name for alias in node.names)]
    files = [module.with_suffix(".py") for module in modules if module.is_relative_to(root) and module != root]
    return tuple(path for path in files if path.is_file())


def _statements(tree: ast.Module) -> Iterator[ast.AST]:
    """Every statement at any depth; expressions, which are most of a tree, hold none."""
    ahead: list[ast.AST] = [tree]
    while ahead:
        node = ahead.pop()
        yield node
        for inside in ("body", "orelse", "finalbody", "handlers", "cases"):
            found = getattr(node, inside, None)
            if isinstance(found, list):
                ahead += found


def digest_of_files(files: Iterable[Path]) -> str:
    """Digest of file names and contents, in the order given."""
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.name.encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def nearest(word: str, known: Iterable[str]) -> str:
    """A clause that names the nearest known word, or lists the known ones if they are few, or nothing."""
    names = list(known)
    close = difflib.get_close_matches(word, names, n=1, cutoff=0.6)
    if close:
        return f"did you mean {close[0]!r}?"
    return f"known are {', '.join(sorted(names))}" if 0 < len(names) <= 40 else ""


class Registry:
    """Techniques by slot and name. Filled once by ``plugins``, then only read.

    Attributes:
        remarks: why a name may be missing: what went wrong with plugins.
    """

    def __init__(self) -> None:
        self.remarks: list[str] = []
        self._entries: dict[tuple[str, str], Entry] = {}

    def add(self, cls: type[Any], owner: Owner) -> None:
        """Register a technique.

        Raises:
            PluginError: not a technique, or its slot and name are taken; names both owners.
        """
        card = card_of(cls)
        known = self._entries.get((card.slot, card.name))
        if known is not None:
            raise PluginError(
                f"{card.slot} {card.name!r} is registered twice: by {known.owner} "
                f"({known.cls.__module__}) and by {owner} ({cls.__module__}); the first stays"
            )
        self._entries[card.slot, card.name] = Entry(cls, owner)

    def get(self, slot: str, name: str) -> Entry:
        """The technique ``name`` of ``slot``.

        Raises:
            UsageError: unknown slot or name; names the nearest right one.
        """
        if slot not in SLOTS:
            raise UsageError(f"unknown slot {slot!r}: {nearest(slot, SLOTS)}")
        entry = self._entries.get((slot, name))
        if entry is None:
            raise UsageError(f"unknown {slot} {name!r}: {self.suggest(slot, name)}")
        return entry

    def suggest(self, slot: str, name: str) -> str:
        """What to say beside an unknown name: the nearest in the slot, or the slot where it does exist."""
        elsewhere = [other for other, known in self._entries if known == name]
        hint = nearest(name, self.names(slot))
        if "did you mean" in hint:
            return hint
        if elsewhere:
            return f"{name!r} belongs to slot {elsewhere[0]!r}"
        return "; ".join([hint, *self.remarks[:1]] if hint else self.remarks[:1])

    def names(self, slot: str) -> list[str]:
        """Names in a slot, sorted."""
        return sorted(name for other, name in self._entries if other == slot)

    def __iter__(self) -> Iterator[Entry]:
        order = list(SLOTS)
        return iter(sorted(self._entries.values(), key=lambda e: (order.index(e.card.slot), e.card.name)))

    def __len__(self) -> int:
        return len(self._entries)
