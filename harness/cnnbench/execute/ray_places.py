"""Places on a Ray cluster: which there may be, those that are there, and those that are lost."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from cnnbench.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cnnbench.execute.interface import Task
    from cnnbench.execute.ray_cluster import Node, RayCluster

END_SECONDS = 3.0
"""How long places may take to clear up before they are killed."""
STARTS = 3
"""How often a node may fail to start a place before it is let be."""


@dataclass(frozen=True)
class Share:
    """What a place takes of its node.

    Attributes:
        cpus: CPUs, one for each thread of a stage.
        gpus: GPUs, or a fraction of one.
    """

    cpus: float
    gpus: float


def share_of(nodes: Sequence[Node], threads: int, device: str, workers: int | None) -> Share:
    """What each stage takes.

    Args:
        nodes: those that can be used.
        threads: intra-op threads of a training.
        device: ``cpu`` or ``cuda``.
        workers: how many stages shall run at once; None for one a CPU, or one a GPU.

    Raises:
        UsageError: that many places are more than the nodes have.
    """
    share = Share(threads, 0.0)
    if device == "cuda":
        gpus = sum(math.floor(node.gpus) for node in nodes)
        several = 1 if workers is None or gpus == 0 else math.ceil(workers / gpus)
        share = Share(threads, math.floor(1e4 / several) / 1e4)  # Ray counts in ten thousandths
    there = sum(count_on(node, share) for node in nodes)
    if workers is not None and workers > there:
        what = "CPUs" if device == "cpu" else f"CPUs, and {sum(node.gpus for node in nodes):g} GPUs,"
        raise UsageError(f"--workers {workers}: expected at most {there}: the cluster has {what} for no more")
    return share


def count_on(node: Node, share: Share) -> int:
    """How many places a node has room for."""
    by_cpu = math.floor(node.cpus / share.cpus)
    return by_cpu if not share.gpus else min(by_cpu, math.floor(node.gpus) * math.floor(1 / share.gpus))


def spread(nodes: Sequence[Node], share: Share, most: int | None) -> list[Node]:
    """The node of each place, so that nodes have as many as they can, and equally many as far as they can."""
    rounds = max((count_on(node, share) for node in nodes), default=0)
    every = [node for turn in range(rounds) for node in nodes if count_on(node, share) > turn]
    return every[:most]


@dataclass
class Held:
    """A place that is there, or is to be.

    Attributes:
        node: where it is.
        actor: Ray's handle.
        waits_for: what it answers next; None while it is idle.
        whole: it has its node to itself.
        starting: it has not said yet that it has its CPUs.
        task: what it performs.
        told: keys of those of its members whose outcomes have come.
    """

    node: Node
    actor: Any
    waits_for: Any
    whole: bool
    starting: bool = True
    task: Task | None = None
    told: set[str] = field(default_factory=set)


@dataclass
class Places:
    """The places that a run holds.

    Args:
        cluster: where.
        share: what each takes.
        most: how many there may be; None for as many as there is room for.
    """

    cluster: RayCluster
    share: Share
    most: int | None
    held: list[Held] = field(default_factory=list)
    _failed: Counter[str] = field(default_factory=Counter)
    _nodes: list[Node] = field(default_factory=list)

    def look(self) -> None:
        """Take in which nodes there are now."""
        self._nodes = [node for node in self.cluster.nodes() if self._failed[node.name] < STARTS]

    def there(self, *, measured: bool = False) -> list[Node]:
        """The node of each place that there may be.

        Args:
            measured: only those on which what depends on the machine is measured.
        """
        places = spread(self._nodes, self.share, self.most)
        return [node for node in places if not measured or self.cluster.measures(node)]

    def most_on_one(self) -> int:
        """The most places that one node has: so many stages run side by side."""
        return max(Counter(node.name for node in self.there()).values(), default=1)

    def open(self, count: int) -> None:
        """Have that many places, or as many as there may be; no whole node among them."""
        self.retire([held for held in self.held if held.whole])
        free = Counter(node.name for node in self.there()) - Counter(held.node.name for held in self.held)
        for node in self.there():
            if len(self.held) < count and free[node.name] > 0:
                free[node.name] -= 1
                self.held.append(self._start(node, self.share))

    def open_whole(self) -> None:
        """Have one place that has a node to itself, and no other: all CPUs and GPUs of one node that measures."""
        self.retire([held for held in self.held if not held.whole])
        for node in self.there(measured=True)[:1]:
            if not self.held:
                self.held.append(self._start(node, Share(node.cpus, node.gpus), whole=True))

    def lose(self, held: Held) -> None:
        """Let go of a place that is gone."""
        self.held.remove(held)
        self._failed[held.node.name] += held.starting
        self.cluster.kill(held.actor)

    def retire(self, places: Sequence[Held]) -> None:
        """End places; each clears up after itself as far as it answers."""
        self.cluster.end([held.actor for held in places], END_SECONDS)
        self.held = [held for held in self.held if held not in places]

    def _start(self, node: Node, share: Share, *, whole: bool = False) -> Held:
        actor = self.cluster.start(node, share.cpus, share.gpus)
        return Held(node, actor, actor.ready.remote(), whole)
