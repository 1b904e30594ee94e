"""Executors: two tiny tasks, handed out as the scheduler does."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cnnbench.errors import BrokenContract
from cnnbench.execute.interface import Epoch, Outcome, Placed, Task
from cnnbench.options import complete
from cnnbench.plain import settings_plain
from cnnbench.plugins import PluginHost
from cnnbench.testing.reference import settings
from cnnbench.testing.use import PLAIN, Situation, Use
from cnnbench.types import Choice

if TYPE_CHECKING:
    from cnnbench.testing.subject import Subject

situations = (PLAIN,)
TASKS = 2
DATA = Choice("dataset", "shapes", {"train_images": 40, "test_images": 40})


def use(subject: Subject, technique: Any, situation: Situation, draw: int) -> Use:
    """Rehearse two trials of the reference network with one worker, and close."""
    plain = settings_plain(settings(subject.registry, situation, "plain", dataset=complete(DATA, subject.registry)))
    host = PluginHost()
    host.registry = subject.registry
    spec = {"kind": "rehearse", "settings": plain, "family": "", "device": "cpu", "threads": 1}
    with tempfile.TemporaryDirectory(dir=subject.folder, ignore_cleanup_errors=True) as folder:
        tasks = [Task(f"t{n}", {**spec, "seed": draw + n}, (), str(Path(folder) / f"t{n}")) for n in range(TASKS)]
        executor = technique(1, host)
        try:
            outcomes = _all(subject, executor, tasks)
        finally:
            executor.close()
    return Use(given={}, before={}, result={key: outcome.status for key, outcome in sorted(outcomes.items())})


def _all(subject: Subject, executor: Any, tasks: list[Task]) -> dict[str, Outcome]:
    """What becomes of every task.

    Raises:
        BrokenContract: something else than outcomes came, or a task was not done.
    """
    places: object = executor.places
    if not isinstance(places, int) or places < 1:
        raise BrokenContract(f"{subject.name} has {places!r:.60} places, expected a whole number from 1")
    ahead, running, found = list(tasks), 0, dict[str, Outcome]()
    while len(found) < len(tasks):
        while ahead and running < places:
            executor.submit(ahead.pop(0))
            running += 1
        for event in executor.wait():
            if isinstance(event, Outcome):
                if event.key in found or event.key not in {task.key for task in tasks}:
                    raise BrokenContract(
                        f"{subject.name} gave an outcome of {event.key!r}, which it was not waited for"
                    )
                found[event.key] = event
                running -= 1
            elif not isinstance(event, Epoch | Placed):
                raise BrokenContract(f"{subject.name} returned {event!r:.60} from wait(), expected events")
    for outcome in found.values():
        if outcome.status != "ok":
            raise BrokenContract(f"{subject.name} ended a task as {outcome.status}: {outcome.reason}")
    return found
