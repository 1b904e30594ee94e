"""Which stages may run beside which, as far as memory goes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cnnbench.execute.room import WORKER_MIB, fits

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from cnnbench.execute.interface import Outcome


class Admission:
    """Keeps account of the memory of the tasks that run.

    A stage is expected to need what the rehearsal of its arm has reached; before that is known, as much as any has.

    Args:
        room: MiB for all tasks together; None for no limit.
    """

    def __init__(self, room: float | None) -> None:
        self._room = room
        self._needs: dict[str, float] = {}  # by key of the rehearsal
        self._held: dict[str, float] = {}  # by the first stage of each task
        self._most_at_once = 0
        self._crowded: set[str] = set()
        self.again: set[str] = set()
        """Stages that ran out of memory beside others, and run once more alone."""
        self.waiting: list[str] = []
        """Those of them that have not begun again."""

    @property
    def tasks(self) -> int:
        """How many run."""
        return len(self._held)

    def learn(self, rehearsal: str, mib: float) -> None:
        """A rehearsal, or a stage of its arm, has come to hold so much."""
        self._needs[rehearsal] = max(mib, self._needs.get(rehearsal, 0.0))

    def need(self, rehearsal: str) -> float | None:
        """MiB that a stage of an arm may come to hold; None while nothing is known of any arm."""
        return self._needs.get(rehearsal, max(self._needs.values(), default=None))

    def admits(self, rehearsal: str) -> bool:
        """Whether a stage of an arm has room beside what runs; alone, any has."""
        if self._room is None or not self._held:
            return True
        idle = max(0, self._most_at_once - len(self._held) - 1)
        return fits(self.need(rehearsal) or WORKER_MIB, self._held.values(), idle, self._room)

    def enter(self, stages: Sequence[str], rehearsals: Iterable[str], running: Iterable[str]) -> None:
        """A task starts.

        Args:
            stages: its own; with what each needs beyond the worker that they share.
            rehearsals: of each stage.
            running: all stages that run now, its own among them.
        """
        beyond = sum(max(0.0, (self.need(rehearsal) or 0.0) - WORKER_MIB) for rehearsal in rehearsals)
        self._held[stages[0]] = WORKER_MIB + beyond
        self._most_at_once = max(self._most_at_once, len(self._held))
        if len(self._held) > 1:
            self._crowded.update(running)

    def leave(self, stage: str) -> None:
        """A stage has ended, well or not."""
        self._held.pop(stage, None)

    def starved(self, outcome: Outcome, rehearsal: str) -> bool:
        """Whether a stage ran out of memory that others may have taken: it has one more chance, alone.

        Args:
            outcome: of the stage.
            rehearsal: of its arm, whose further stages are expected to need as much.
        """
        if outcome.status != "oom" or outcome.key in self.again:
            return False
        reached = outcome.result.get("details", {}).get("peak_mib")
        if reached is not None:
            self.learn(rehearsal, reached)
        if outcome.key not in self._crowded:
            return False
        self.again.add(outcome.key)
        self.waiting.append(outcome.key)
        return True
