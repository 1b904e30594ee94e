"""A technique under test, and how it is made."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from importlib.metadata import packages_distributions, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, get_args

from cnnbench.errors import UsageError
from cnnbench.options import make, options_of
from cnnbench.reader import read_choice
from cnnbench.registry import Entry, Owner, Registry
from cnnbench.technique import card_of
from cnnbench.testing.rule import NotChecked
from cnnbench.types import Choice

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from cnnbench.testing.use import Situation, Use


class SlotUse(Protocol):
    """How techniques of one slot are used; a module of ``cnnbench.testing.uses``."""

    @property
    def situations(self) -> tuple[Situation, ...]:
        """What they must cope with, the plainest first."""

    def use(self, subject: Subject, technique: Any, situation: Situation, draw: int) -> Use:
        """Use an instance once.

        Args:
            subject: whose it is.
            technique: the instance.
            situation: what it meets.
            draw: seed of every generator.
        """


@dataclass(frozen=True)
class Subject:
    """A technique under test.

    Attributes:
        entry: the technique as it is registered.
        registry: all techniques, those that its options may name among them.
        how: how techniques of its slot are used.
        folder: an empty one, for files.
        options: to try it with, over those of its ``example``.
    """

    entry: Entry
    registry: Registry
    how: SlotUse
    folder: Path
    options: Mapping[str, Any] = field(default_factory=dict)
    _uses: dict[tuple[Situation, int], Use | Exception] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    @property
    def slot(self) -> str:
        """Its slot."""
        return self.entry.card.slot

    @property
    def name(self) -> str:
        """Slot and name, for people."""
        return f"{self.slot} {self.entry.card.name!r}"

    def choice(self, options: Mapping[str, Any] | None = None) -> Choice:
        """The technique as a suite would name it, complete.

        Args:
            options: over those that it is tried with.

        Raises:
            UsageError: they are not valid.
            NotChecked: it needs a file, whose path nobody gave.
        """
        card = self.entry.card
        chosen = {**card.example, **self.options, **(options or {})}
        known = options_of(self.entry.cls)
        needed = [option for key, option in known.items() if option.required and key not in chosen]
        if any(option.hint is Path or Path in get_args(option.hint) for option in needed):
            name = needed[0].name
            raise NotChecked(
                f"it needs {name!r}, a file or folder: let options(cls, folder) of a ConformanceCase make it"
            )
        if needed and card.imports:
            raise NotChecked(
                f"it needs {needed[0].name!r}, code: let options(cls, folder) of a ConformanceCase name it"
            )
        if needed:
            raise UsageError(
                f"it needs {needed[0].name!r}, {needed[0].expects}, and has no example: "
                f"add example={{{needed[0].name!r}: ...}} to @technique(...)"
            )
        return read_choice(Choice(card.slot, card.name, chosen), self.registry, self.folder)

    def technique(self, options: Mapping[str, Any] | None = None) -> Any:
        """A fresh instance, made as a worker makes it."""
        return make(self.choice(options), self.registry)

    def situations(self) -> Iterator[Situation]:
        """Those that it copes with, the plainest first."""
        for situation in self.how.situations:
            with suppress(Exception):  # a rule of its own tells of those that it does not cope with
                self.use(situation)
                yield situation

    def use(self, situation: Situation, draw: int = 0) -> Use:
        """What comes of using it once; kept, so that rules which only look share one use.

        Args:
            situation: what it meets.
            draw: seed of every generator that it is handed.
        """
        if (situation, draw) not in self._uses:
            try:
                self._uses[situation, draw] = self.fresh(situation, draw)
            except Exception as error:  # noqa: BLE001 - kept as well, and raised below
                self._uses[situation, draw] = error
        found = self._uses[situation, draw]
        if isinstance(found, Exception):
            raise found
        return found

    def fresh(self, situation: Situation, draw: int = 0, options: Mapping[str, Any] | None = None) -> Use:
        """The same, never kept: for rules that change what comes out, or that watch the use itself."""
        return self.how.use(self, self.technique(options), situation, draw)


def entry_of(cls: type[Any], registry: Registry) -> Entry:
    """A technique as it is registered; one that is not becomes so, as its package's."""
    card = card_of(cls)
    if card.name in registry.names(card.slot) and registry.get(card.slot, card.name).cls is cls:
        return registry.get(card.slot, card.name)
    top = cls.__module__.partition(".")[0]
    names = packages_distributions().get(top)
    owner = Owner(top, names[0], version(names[0])) if names else Owner(top, top, "not installed")
    registry.add(cls, owner)
    return registry.get(card.slot, card.name)
