"""Which techniques there are, by slot and name, and where each comes from."""

from __future__ import annotations

import difflib
import inspect
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cnnbench.errors import PluginError, UsageError
from cnnbench.session_source import session_digest
from cnnbench.slots import SLOTS
from cnnbench.sources import code_files, digest_of_files
from cnnbench.technique import Card, card_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


@dataclass(frozen=True)
class Owner:
    """Where a technique comes from.

    Attributes:
        plugin: the entry point's name, or a local plugin as the suite names it.
        distribution: the installed distribution, e.g. ``cnnbench``; of a local plugin its file or module.
        version: its version; of a local plugin ``(local file)`` or ``(local module)``, for it has none.
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
        beside: of a local plugin, the folder whose modules are all part of its code.
    """

    cls: type[Any]
    owner: Owner
    beside: Path | None = None

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
        them makes its results stale; see ``sources.code_files``.
        """
        try:
            file = Path(inspect.getfile(self.cls))
        except (OSError, TypeError):  # made in an interactive session
            return session_digest(self.cls)
        return digest_of_files(code_files(file, self.beside))


def nearest(word: str, known: Iterable[str]) -> str:
    """A clause that names the nearest known word, or lists the known ones if they are few, or nothing.

    A beginning of three letters or more stands for the only word that begins so.
    """
    names = list(known)
    begun = {name for name in names if len(word) >= 3 and name.startswith(word)}
    if len(begun) == 1:
        return f"did you mean {begun.pop()!r}?"
    close = difflib.get_close_matches(word, names, n=1, cutoff=0.6)
    if close:
        return f"did you mean {close[0]!r}?"
    return f"known are {', '.join(sorted(names))}" if 0 < len(names) <= 40 else ""


class Registry:
    """Techniques by slot and name. Filled once by ``plugins``, then only read.

    Attributes:
        remarks: why a name may be missing: what went wrong with plugins.
        absent: local plugins that are not loaded, as the suite names them, with the reason where it is not told before.
    """

    def __init__(self) -> None:
        self.remarks: list[str] = []
        self.absent: dict[str, str] = {}
        self._entries: dict[tuple[str, str], Entry] = {}

    def copy(self) -> Registry:
        """Another with the same techniques, to which more can be added."""
        other = Registry()
        other.remarks, other.absent = list(self.remarks), dict(self.absent)
        other._entries = dict(self._entries)
        return other

    def add(self, cls: type[Any], owner: Owner, beside: Path | None = None) -> None:
        """Register a technique.

        Args:
            cls: its class.
            owner: where it comes from.
            beside: see ``Entry``.

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
        self._entries[card.slot, card.name] = Entry(cls, owner, beside)

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
        for plugin, reason in self.absent.items():
            return f"it may be in {plugin}, which is not loaded{reason and ': '}{reason}"
        return "; ".join([hint, *self.remarks[:1]] if hint else self.remarks[:1])

    def names(self, slot: str) -> list[str]:
        """Names in a slot, sorted."""
        return sorted(name for other, name in self._entries if other == slot)

    def __iter__(self) -> Iterator[Entry]:
        order = list(SLOTS)
        return iter(sorted(self._entries.values(), key=lambda e: (order.index(e.card.slot), e.card.name)))

    def __len__(self) -> int:
        return len(self._entries)
