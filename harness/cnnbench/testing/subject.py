"""A technique under test, and how it is made."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from cnnbench.options import complete, make
from cnnbench.types import Choice

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from cnnbench.registry import Entry, Registry
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
    """

    entry: Entry
    registry: Registry
    how: SlotUse
    folder: Path
    _uses: dict[tuple[Situation, int], Use] = field(default_factory=dict, init=False, repr=False, compare=False)

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
            options: over those of its ``example``.

        Raises:
            UsageError: they are not valid.
        """
        card = self.entry.card
        return complete(Choice(card.slot, card.name, {**card.example, **(options or {})}), self.registry)

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
            self._uses[situation, draw] = self.fresh(situation, draw)
        return self._uses[situation, draw]

    def fresh(self, situation: Situation, draw: int = 0, options: Mapping[str, Any] | None = None) -> Use:
        """The same, never kept: for rules that change what comes out, or that watch the use itself."""
        return self.how.use(self, self.technique(options), situation, draw)
