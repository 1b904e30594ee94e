"""Runs tasks on a Ray cluster. Nothing but messages passes between its machines: no file system is shared.

Each place is an actor that lives on between stages, as local workers do: torch is imported and data are read once, and
Ray lends it the CPUs and GPUs of one stage for as long. A stage goes to a place only when that place is there, so that
one that Ray can't give now holds nothing up. Latency and energy are taken by a place that has all CPUs and GPUs of its
node, after the others have given theirs back.
"""

from __future__ import annotations

import time
from collections import deque
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from cnnbench.data import load
from cnnbench.errors import UsageError
from cnnbench.execute.cache import CacheError, filling
from cnnbench.execute.interface import Epoch, Outcome, Placed, Task
from cnnbench.execute.ray_places import Held, Places, share_of
from cnnbench.key_text import digest
from cnnbench.options import make
from cnnbench.parcel import arrays_of, pack, unpack
from cnnbench.plan import EXCLUSIVE
from cnnbench.types import Choice

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from cnnbench.execute.ray_cluster import RayCluster, Say
    from cnnbench.registry import Registry

    Event = Outcome | Epoch | Placed

MEASURED = EXCLUSIVE | {"memory"}
"""Stages whose keys name the machine: they run on nodes of one kind."""
TRIES = 3
"""How often a stage is begun before it counts as what brings its nodes down."""
WAIT_SECONDS = 1.0
LOOK_SECONDS = 5.0
"""How often it is looked which nodes there are."""
DATASETS = 4
"""How many datasets, the last ones used, stay in the object store for tasks to come."""
PATIENCE_SECONDS = 30.0
"""After how long people are told what is waited for."""


class RayExecutor:
    """Places on the nodes of a cluster.

    Args:
        cluster: joined; it stays when the executor is closed.
        registry: where datasets come from, which are read here and sent.
        workers: how many stages run at once; None for one a CPU, or one a GPU.
        say: told what people should know.

    Raises:
        UsageError: the cluster has no room for that many.
    """

    def __init__(self, cluster: RayCluster, registry: Registry, workers: int | None, say: Say) -> None:
        self._cluster = cluster
        self._registry = registry
        self._say = say
        share = share_of(cluster.nodes(), cluster.place.threads, cluster.device, workers)
        self._all = Places(cluster, share, workers)
        self._all.look()
        self._queue: deque[Task] = deque()
        self._begun: dict[str, int] = {}
        self._inputs: dict[str, Any] = {}
        self._data: dict[str, Any] = {}
        self._looked = self._quiet_since = time.monotonic()

    @property
    def places(self) -> int:
        """How many tasks run at once on the nodes that are there."""
        return max(1, len(self._all.there()))

    def submit(self, task: Task) -> None:
        """Queue the task; it starts when a place is there."""
        self._queue.append(task)
        self._fill()

    def wait(self) -> Sequence[Event]:
        """Block until something happened on the cluster.

        Raises:
            UsageError: no node is left that could run what is queued.
        """
        events: list[Event] = []
        while not events and (self._queue or self._busy):
            self._fill()
            asked = {held.waits_for: held for held in self._all.held if held.waits_for is not None}
            ready = self._cluster.wait(list(asked), WAIT_SECONDS)
            for reference in ready:
                events += self._hear(asked[reference])
            if time.monotonic() - self._looked > LOOK_SECONDS:
                self._all.look()
                self._looked = time.monotonic()
                self._check()
        if events:
            self._quiet_since = time.monotonic()
        return events

    def close(self) -> None:
        """End all places, in mid-task too."""
        self._queue.clear()
        self._all.retire(self._all.held)

    @property
    def _busy(self) -> list[Held]:
        return [held for held in self._all.held if held.task is not None]

    def _fill(self) -> None:
        """Have places for what is queued, and give them work."""
        alone = any(task.spec["kind"] in EXCLUSIVE for task in self._queue)
        if alone and not self._busy:
            self._all.open_whole()
        elif self._queue and not alone:
            self._all.open(len(self._busy) + len(self._queue))
        for held in self._all.held:
            if held.waits_for is None:
                task = next((task for task in self._queue if self._suits(task, held)), None)
                if task is not None:
                    self._queue.remove(task)
                    self._hand(task, held)

    def _suits(self, task: Task, held: Held) -> bool:
        kind = task.spec["kind"]
        return held.whole == (kind in EXCLUSIVE) and (kind not in MEASURED or self._cluster.measures(held.node))

    def _hand(self, task: Task, held: Held) -> None:
        self._begun[task.key] = self._begun.get(task.key, 0) + 1
        beside_each_other = 1 if held.whole else self._all.most_on_one()
        members = [replace(one, spec={**one.spec, "workers": beside_each_other}) for one in task.members]
        folders = dict.fromkeys(folder for one in members for folder in one.inputs)
        inputs = {Path(folder).name: self._input(folder) for folder in folders}
        data = self._dataset(task)
        held.task, held.told = task, set()
        sent = replace(members[0], beside=tuple(members[1:]))
        held.waits_for = held.actor.perform.options(num_returns="streaming").remote(sent, inputs, data)

    def _input(self, folder: str) -> Any:
        """Reference to a folder's content, which is put once for all tasks that need it at the time."""
        if folder not in self._inputs:
            self._inputs[folder] = self._cluster.put(pack(Path(folder)))
        return self._inputs[folder]

    def _dataset(self, task: Task) -> Mapping[str, Any]:
        """Reference to a task's dataset, by its key: read here once, so that nodes need no copy of their own."""
        choice = Choice.from_plain(task.spec["settings"]["dataset"])
        key = digest(choice.plain())
        if key in self._data:
            put = self._data.pop(key)
        else:
            put = self._cluster.put(arrays_of(load(make(choice, self._registry))))
        self._data[key] = put  # the last one used is the last in line
        while len(self._data) > DATASETS:
            del self._data[next(iter(self._data))]  # a task that runs holds its own
        return {key: put}

    def _hear(self, held: Held) -> list[Event]:
        """Take what a place says, or that it is gone."""
        try:
            if held.starting:
                self._cluster.get(held.waits_for)
                held.starting, held.waits_for = False, None
                return []
            said = self._cluster.next(held.waits_for)
        except self._cluster.fault as error:  # in the actor's own code, such as a full disk there
            return self._failed(held, error)
        except self._cluster.lost as error:
            return self._lost(held, error)
        if said is None:
            held.waits_for = None
            return self._over(held)
        if isinstance(said, Epoch):
            return [said]
        if isinstance(said, Placed):
            return [Placed(said.key, f"node {held.node.address}")]
        assert held.task is not None
        folders = {one.key: one.folder for one in held.task.members}
        held.told.update(result.outcome.key for result in said)
        return [_keep(result.outcome, result.files, Path(folders[result.outcome.key])) for result in said]

    def _over(self, held: Held) -> list[Event]:
        """A place has ended its task."""
        held.task = None
        needed = {folder for other in self._busy if other.task for one in other.task.members for folder in one.inputs}
        self._inputs = {folder: put for folder, put in self._inputs.items() if folder in needed}
        return []

    def _failed(self, held: Held, error: Exception) -> list[Event]:
        """The place itself raised: its task fails, since it would again."""
        task, reason = held.task, f"on node {held.node.address}: {_cause(error)}"
        if task is None:
            self._all.lose(held)
            self._say(f"node {held.node.address} can't start a place: {_cause(error)}")
            return []
        held.waits_for = None
        self._over(held)
        return [Outcome(one.key, "failed", reason) for one in _open(task, held.told)]

    def _lost(self, held: Held, error: Exception) -> list[Event]:
        """A place is gone, and with it most likely its node: its task runs again elsewhere, a few times."""
        self._all.lose(held)
        self._all.look()
        task = held.task
        if task is None or not (left := _open(task, held.told)):
            return []  # it had nothing to do, or its outcomes have come
        tries = self._begun[task.key]
        if tries >= TRIES:
            reason = f"lost its node {tries} times, the last one {held.node.address}: {_cause(error)}"
            return [Outcome(one.key, "crashed", reason) for one in left]
        self._say(f"node {held.node.address} lost a stage that it ran ({task.spec['kind']}): it runs again, elsewhere")
        self._queue.appendleft(task)
        return []

    def _check(self) -> None:
        """Tell what is waited for; end the run where nothing can come."""
        waiting = [task for task in self._queue if not self._all.there(measured=task.spec["kind"] in MEASURED)]
        if waiting and not self._busy:
            what = f"a {waiting[0].spec['kind']} stage" if len(waiting) == 1 else f"{len(waiting)} stages"
            raise UsageError(
                f"--executor ray: no node is left that could run {what}; what is done is kept: "
                "run again when the cluster is whole, and the rest runs"
            )
        if self._queue and not self._busy and time.monotonic() - self._quiet_since > PATIENCE_SECONDS:
            self._quiet_since = time.monotonic()
            whole = any(held.whole for held in self._all.held)
            what = "a whole node, since latency and energy are taken alone" if whole else "free CPUs or GPUs"
            self._say(f"waiting for {what}; 'ray status' tells who holds them")


def _open(task: Task, told: Collection[str]) -> list[Task]:
    """Members of a task that have an outcome to come."""
    return [one for one in task.members if one.folder and one.key not in told]


def _keep(outcome: Outcome, files: Mapping[str, bytes], folder: Path) -> Outcome:
    """Put the result that came with an outcome into the cache."""
    if outcome.status != "ok":
        return outcome
    try:
        with filling(folder) as scratch:
            unpack(files, scratch)
    except CacheError as error:
        befell: Literal["removed", "unusable"] = "removed" if error.removed else "unusable"
        return Outcome(outcome.key, "failed", str(error), seconds=outcome.seconds, cache=befell)
    except (OSError, ValueError) as error:
        return Outcome(outcome.key, "failed", f"its result can't be kept: {error}", seconds=outcome.seconds)
    return outcome


def _cause(error: Exception) -> str:
    """What Ray says of a loss, or of what was raised in its actor, in one line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    dead = [line for line in lines if line.startswith("The actor is dead because")]
    text = (
        dead[0].removeprefix("The actor is dead because ") if dead else (lines[-1] if lines else type(error).__name__)
    )
    return text[:200]
