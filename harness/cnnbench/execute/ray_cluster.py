"""A Ray cluster as a run sees it: which nodes it can use, that they are alike, and which of them measure.

Ray waits for ever for what a cluster has not. So what a suite asks for is compared with what there is before anything
runs, and again when nodes are lost.
"""

from __future__ import annotations

import logging
import os
import socket
import time
import uuid
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from cnnbench.errors import UsageError
from cnnbench.execute.ray_needs import differences, needs_of, packages_here
from cnnbench.text import listed

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from cnnbench.execute.ray_node import Sight
    from cnnbench.plugins import PluginHost
    from cnnbench.suite import Suite

    Say = Callable[[str], None]

LOOK_SECONDS = 120.0
"""How long a node may take to answer what it has: torch and all plugins are imported there, maybe from slow disks."""

ANSWER_SECONDS = 10.0
"""How long the head of a cluster may take to accept a connection."""


@dataclass(frozen=True)
class Node:
    """A node that stages can run on.

    Attributes:
        name: Ray's id of it.
        address: for people.
        cpus: CPUs that Ray gives out there.
        gpus: GPUs, likewise.
        sight: what a look at it has found.
    """

    name: str
    address: str
    cpus: float
    gpus: float
    sight: Sight

    @property
    def machine(self) -> str:
        """Identity as latency and energy have it."""
        assert self.sight.place is not None
        return f"{self.sight.place.machine}; {self.sight.place.energy}"


class RayCluster:
    """The cluster that this process has joined for one run.

    Attributes:
        place: where the run takes place, as keys have it.
        environment: versions and hardware of a node that measures, for records.
        needs: reference to what the suite asks of each place.
        run: name of the run.
        omp: ``OMP_NUM_THREADS`` of this process.
    """

    def __init__(self, suite: Suite, host: PluginHost, say: Say) -> None:
        """Look at every node; ``join`` connects first.

        Raises:
            UsageError: the cluster has not what the suite asks for, or its nodes differ from this machine.
        """
        import ray

        self._ray: Any = ray  # most of its types say less than its documentation
        self._say = say
        self._threads = suite.measure.latency.threads
        self.omp = os.environ.get("OMP_NUM_THREADS")
        self.run = uuid.uuid4().hex[:12]
        self.device = _device(suite.device, self._alive())
        self._needs = needs_of(suite, host.registry, host.local)
        self._here = packages_here(self._needs, host.registry)
        self.needs = ray.put(self._needs)
        self._known: dict[str, Node | None] = {}
        nodes, problems = self._look(self._alive())
        if problems:
            raise UsageError("\n".join(problems))
        self._model = _first(
            nodes, ray.get_runtime_context().get_node_id(), lambda node: node.sight.environment["device"]
        )
        usable = [node for node in nodes if self._alike(node)]
        self.machine = _first(usable, ray.get_runtime_context().get_node_id(), lambda node: node.machine)
        measuring = next(node for node in usable if node.machine == self.machine)
        if self._threads is not None and self._threads > measuring.sight.cores:
            raise UsageError(
                f"measure.latency.threads: expected at most {measuring.sight.cores}, the physical cores of node "
                f"{measuring.address}, got {self._threads}"
            )
        assert measuring.sight.place is not None
        self.place = replace(measuring.sight.place, remark=_remark(nodes, usable, self.machine))
        self.environment = measuring.sight.environment

    def nodes(self) -> list[Node]:
        """The nodes that can be used now, those that have joined since the run began among them."""
        alive = self._alive()
        _, problems = self._look([node for node in alive if node["NodeID"] not in self._known])
        for problem in problems:
            self._say(f"not used: {problem}")
        known = [self._known[node["NodeID"]] for node in alive]
        return [node for node in known if node is not None and self._alike(node)]

    def measures(self, node: Node) -> bool:
        """Whether what depends on the machine is measured on a node."""
        return node.machine == self.machine

    def start(self, node: Node, cpus: float, gpus: float) -> Any:
        """A new place on a node: it is there once Ray can lend it that much."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        from cnnbench.execute.ray_node import PlaceActor

        # Two calls at a time: ``end`` must be heard while a stage runs.
        remote: Any = self._ray.remote(num_cpus=cpus, num_gpus=gpus, max_restarts=0, max_concurrency=2)(PlaceActor)
        strategy = NodeAffinitySchedulingStrategy(node.name, soft=False)
        return remote.options(scheduling_strategy=strategy).remote(self.run, self.needs, self.omp)

    def kill(self, actor: Any) -> None:
        """End an actor, if it is still there."""
        with suppress(self._ray.exceptions.RayError):
            self._ray.kill(actor)

    def end(self, actors: Sequence[Any], seconds: float) -> None:
        """Have actors clear up, and kill them when they have, or time is up."""
        asked = [actor.end.remote() for actor in actors]
        if asked:
            self._ray.wait(asked, num_returns=len(asked), timeout=seconds)
        for actor in actors:
            self.kill(actor)

    def put(self, value: Any) -> Any:
        """Reference to a value in the object store, which holds it as long as the reference is."""
        return self._ray.put(value)

    def get(self, reference: Any) -> Any:
        """The value behind a reference."""
        return self._ray.get(reference)

    def wait(self, references: Sequence[Any], seconds: float) -> list[Any]:
        """Those that have an answer, as soon as one has."""
        if not references:
            time.sleep(seconds)
            return []
        ready, _ = self._ray.wait(list(references), num_returns=1, timeout=seconds)
        return list(ready)

    def next(self, stream: Any) -> Any:
        """The next that a stream has yielded, None at its end."""
        try:
            return self._ray.get(next(stream))
        except StopIteration:
            return None

    @property
    def fault(self) -> type[Exception]:
        """What is raised where the code of an actor raised."""
        found: type[Exception] = self._ray.exceptions.RayTaskError
        return found

    @property
    def lost(self) -> type[Exception]:
        """What is raised where an actor, its node, or a value that lay there is gone."""
        found: type[Exception] = self._ray.exceptions.RayError
        return found

    def close(self) -> None:
        """Leave the cluster; one that was started for this run ends."""
        self._ray.shutdown()

    def _alive(self) -> list[Mapping[str, Any]]:
        return sorted((node for node in self._ray.nodes() if node["Alive"]), key=lambda node: node["NodeID"])

    def _alike(self, node: Node) -> bool:
        return node.sight.environment["device"] == self._model or self.device == "cpu"

    def _look(self, nodes: Sequence[Mapping[str, Any]]) -> tuple[list[Node], list[str]]:
        """Look at those nodes that have the device: what they are, and what is wrong with them, a line each."""
        from ray.exceptions import RayError
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        from cnnbench.execute.ray_node import look

        remote: Any = self._ray.remote(num_cpus=0, max_calls=1, max_retries=0)(look)
        ahead = {}
        for node in nodes:
            self._known[node["NodeID"]] = None
            if _fits(node["Resources"], self.device):
                strategy = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
                task = remote.options(scheduling_strategy=strategy)
                reference = task.remote(self.needs, self.device, self._threads, self.omp)
                ahead[node["NodeID"]] = (node, reference)
        found, problems = [], []
        for name, (node, reference) in ahead.items():
            address, resources = node["NodeManagerAddress"], node["Resources"]
            try:
                sight: Sight = self._ray.get(reference, timeout=LOOK_SECONDS)
            except self._ray.exceptions.GetTimeoutError:
                problems.append(f"node {address}: does not answer within {LOOK_SECONDS:g} s")
                continue
            except (RayError, ImportError) as error:
                if all(other["NodeID"] != name for other in self._alive()):
                    continue  # it was lost while it was looked at
                problems.append(f"node {address}: {_last_line(error)}: is cnnbench installed there as it is here?")
                continue
            wrong = differences(self._here, sight.packages)
            if wrong or sight.place is None:
                problems.append(f"node {address}: {'; '.join(wrong) or sight.problem}")
                continue
            known = Node(name, address, resources.get("CPU", 0.0), resources.get("GPU", 0.0), sight)
            self._known[name] = known
            found.append(known)
        return found, problems


def join(address: str | None, suite: Suite, host: PluginHost, say: Say) -> RayCluster:
    """Connect to a cluster, or start one on this machine alone, and look at its nodes.

    Args:
        address: ``HOST:PORT``; ``auto`` or None, the one that this machine is part of; ``local``, one of this machine
            alone.
        suite: what is to run.
        host: plugins of this process.
        say: told what people should know.

    Raises:
        UsageError: Ray is not installed, there is no such cluster, or it has not what the suite asks for.
    """
    ray = _import_ray()
    if ray.is_initialized():
        raise UsageError("--executor ray: this process is connected to Ray already; call ray.shutdown() before")
    address = address or os.environ.get("RAY_ADDRESS") or "auto"
    if address.startswith("ray://"):
        raise UsageError(
            f"--address {address}: Ray's client can't be used: run on a node of the cluster, with --address auto"
        )
    _check_answers(address)
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR, "include_dashboard": False}
    if address == "local":
        from cnnbench.environment import usable_cores

        quiet["num_cpus"] = usable_cores()
    else:
        del quiet["include_dashboard"]
    try:
        ray.init(address=address, **quiet)
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        text = " ".join(str(error).split())
        raise _no_cluster(address, text[:300]) from error
    try:
        return RayCluster(suite, host, say)
    except BaseException:
        ray.shutdown()
        raise


def _check_answers(address: str) -> None:
    """Have nobody wait for a machine that does not answer: Ray tries for minutes.

    Raises:
        UsageError: nobody listens there.
    """
    host, colon, port = address.rpartition(":")
    if not colon:
        return
    try:
        with socket.create_connection((host, int(port)), timeout=ANSWER_SECONDS):
            pass
    except (OSError, ValueError, OverflowError) as error:
        raise _no_cluster(address, str(error)) from error


def _no_cluster(address: str, reason: str) -> UsageError:
    return UsageError(
        f"--address {address}: no Ray cluster there ({reason}): start one with 'ray start --head', or use "
        "--address local"
    )


def _import_ray() -> Any:
    """Ray, told before it is imported that what its daemons have to say is for its log files, not for the table."""
    silence = "RAY_DEDUP_LOGS_SKIP_REGEX"
    before = os.environ.get(silence)
    os.environ[silence] = "[\\s\\S]*"
    try:
        import ray
    except ImportError as error:
        raise UsageError("--executor ray needs ray, which is not installed: pip install 'cnnbench[ray]'") from error
    finally:
        if before is None:
            del os.environ[silence]
        else:
            os.environ[silence] = before
    return ray


def _device(wanted: str, nodes: Sequence[Mapping[str, Any]]) -> str:
    """The kind of device that stages ask Ray for."""
    gpus = sum(node["Resources"].get("GPU", 0.0) for node in nodes)
    cpus = sum(node["Resources"].get("CPU", 0.0) for node in nodes)
    name = wanted.strip().lower()
    if name == "auto":
        name = "cuda" if any(_fits(node["Resources"], "cuda") for node in nodes) else "cpu"
    if name not in {"cpu", "cuda"}:
        raise UsageError(
            f"device {wanted!r}: expected cpu, cuda or auto on a cluster, where Ray says which GPU is whose"
        )
    if not any(_fits(node["Resources"], name) for node in nodes):
        asked = "1 CPU" if name == "cpu" else "1 CPU and 1 GPU"
        count = f"{len(nodes)} node{'s' * (len(nodes) != 1)}"
        raise UsageError(
            f"device {wanted!r}: each stage asks for a node with {asked}, and the cluster has none: "
            f"{count} with {cpus:g} CPUs and {gpus:g} GPUs"
        )
    return name


def _fits(resources: Mapping[str, float], device: str) -> bool:
    return resources.get("CPU", 0.0) >= 1 and (device == "cpu" or resources.get("GPU", 0.0) >= 1)


def _first(nodes: Sequence[Node], own: str, name: Callable[[Node], str]) -> str:
    """The kind of machine that counts: the driver's own, else the most frequent, else the first by name."""
    for node in nodes:
        if node.name == own:
            return name(node)
    counts = Counter(map(name, nodes))
    return min(counts, key=lambda kind: (-counts[kind], kind))


def _remark(nodes: Sequence[Node], usable: Sequence[Node], machine: str) -> str:
    """What people should know where nodes are not all of a kind."""
    told = []
    if left_out := [node for node in nodes if node not in usable]:
        names = (f"{node.address} ({node.sight.environment['device']})" for node in left_out)
        told.append(f"left out, since their device is another: {listed(list(names))}")
    if others := [node.address for node in usable if node.machine != machine]:
        told.append(
            f"latency, energy and memory are measured on {machine.partition(';')[0]}; {listed(others)} only train"
        )
    return "; ".join(told)


def _last_line(error: BaseException) -> str:
    """What an error of a remote call comes to: its text ends with what was raised there."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[-1] if lines else type(error).__name__)[:300]
