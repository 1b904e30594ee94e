"""What runs on the nodes of a Ray cluster: a look at the node, and places that perform stages.

A place is an actor with the CPUs and GPUs of one stage. It performs stages in a worker process of its own, through the
local executor, so that crashes, time limits and running out of memory mean there what they mean on one machine; that
the actor itself is lost means that its node is.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import ray

from cnnbench.environment import manifest, usable_cores
from cnnbench.errors import UsageError
from cnnbench.execute.interface import Outcome
from cnnbench.execute.ray_needs import packages_here
from cnnbench.here import find_place
from cnnbench.parcel import pack, unpack, write_data
from cnnbench.plugins import PluginHost

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from cnnbench.execute.interface import Epoch, Placed, Task
    from cnnbench.execute.ray_needs import Needs
    from cnnbench.keys import Place

DATA = "data"
"""Folder that the places of a node share."""
CODE, INPUTS, OUT, TEMPORARY = "code", "inputs", "out", "tmp"
"""Folders that each has for itself."""


@dataclass(frozen=True)
class Sight:
    """What a look at a node has found.

    Attributes:
        packages: see ``ray_needs.packages_here``.
        place: where stages would run; None where the device is not there.
        environment: versions and hardware, for records.
        cores: physical cores that a process may use there.
        problem: why there is no place.
    """

    packages: Mapping[str, str]
    place: Place | None
    environment: Mapping[str, str]
    cores: int
    problem: str = ""


@dataclass(frozen=True)
class Result:
    """An outcome on its way to the driver.

    Attributes:
        outcome: of a task, or of one beside it.
        files: its result folder; empty where it is not ok.
    """

    outcome: Outcome
    files: Mapping[str, bytes]


def look(needs: Needs, device: str, threads: int | None, omp: str | None) -> Sight:
    """Look at this node, in a process that does nothing else.

    Args:
        needs: what the suite asks of it.
        device: as Ray's resources allow it: ``cpu`` or ``cuda``.
        threads: intra-op threads for latency, if the suite fixes them.
        omp: ``OMP_NUM_THREADS`` of the driver, if it is set.
    """
    _as_on_driver(omp)
    if not os.environ.get("CUDA_VISIBLE_DEVICES", "-"):
        del os.environ["CUDA_VISIBLE_DEVICES"]  # Ray hides GPUs from whom it lent none; to look is not to use
    with tempfile.TemporaryDirectory(prefix="cnnbench-") as folder:
        unpack(needs.code, Path(folder))
        sys.path.insert(0, folder)
        host = PluginHost.discover(local=needs.local_in(Path(folder)))
        packages = packages_here(needs, host.registry)
        try:
            place = find_place(device, threads)
            return Sight(packages, replace(place, gpus=(), remark=""), manifest(place.device), usable_cores())
        except UsageError as error:
            return Sight(packages, None, {}, usable_cores(), str(error))


def _as_on_driver(omp: str | None) -> None:
    """Undo what Ray sets for its own workers: elsewhere it would change how many threads libraries use."""
    os.environ.pop("OMP_NUM_THREADS", None)
    if omp is not None:
        os.environ["OMP_NUM_THREADS"] = omp


class PlaceActor:
    """One place on a node.

    Args:
        run: name of the run, for its folder on the node.
        needs: what the suite asks of the node, with the files to find on ``sys.path``.
        omp: ``OMP_NUM_THREADS`` of the driver, if it is set.
    """

    def __init__(self, run: str, needs: Needs, omp: str | None) -> None:
        from cnnbench.execute.local import LocalExecutor

        _as_on_driver(omp)
        node = ray.get_runtime_context().get_node_id()
        self._shared = Path(tempfile.gettempdir()) / f"cnnbench-{run}-{node[:12]}"
        self._own = self._shared / f"place-{os.getpid()}"
        self._own.mkdir(parents=True)
        unpack(needs.code, self._own / CODE)
        sys.path.insert(0, str(self._own / CODE))
        (self._own / TEMPORARY).mkdir()
        # What stages leave there goes with the rest.
        tempfile.tempdir = os.environ["TMPDIR"] = str(self._own / TEMPORARY)
        # The worker has no need of Ray's own main module, which it would import anew.
        with suppress(AttributeError):
            del sys.modules["__main__"].__file__
        self._executor = LocalExecutor(1, local=needs.local_in(self._own / CODE))

    def ready(self) -> None:
        """Answer: the place has its CPUs."""

    def perform(
        self, task: Task, inputs: Mapping[str, Any], data: Mapping[str, Any]
    ) -> Iterator[Epoch | Placed | list[Result]]:
        """Perform a task, with those beside it; epochs as they end, then what became of each.

        Args:
            task: with folders of the driver's machine, whose names are the stages' keys.
            inputs: reference to the content of each input folder, by name.
            data: reference to the dataset's arrays, by key; one.
        """
        self._fetch(inputs)
        file = self._dataset(data)
        local = self._here(task, file)
        wanted = {one.key for one in local.members if one.folder}
        try:
            self._executor.submit(local)
            while wanted:
                results = []
                for event in self._executor.wait():
                    if not isinstance(event, Outcome):
                        yield event
                        continue
                    wanted.discard(event.key)
                    folder = self._own / OUT / event.key
                    results.append(Result(event, pack(folder) if event.status == "ok" else {}))
                if results:
                    yield results
        finally:
            shutil.rmtree(self._own / OUT, ignore_errors=True)

    def end(self) -> None:
        """End what runs and remove what lies on the node; the actor is of no use afterwards."""
        children = psutil.Process().children(recursive=True)
        for child in children:
            with suppress(psutil.NoSuchProcess):
                child.kill()
        psutil.wait_procs(children, timeout=1)
        shutil.rmtree(self._own, ignore_errors=True)
        if not any(self._shared.glob("place-*")):
            shutil.rmtree(self._shared, ignore_errors=True)

    def _fetch(self, inputs: Mapping[str, Any]) -> None:
        """Have the input folders of a task here, and those of the task before only as far as it shares them."""
        for folder in (self._own / INPUTS).glob("*"):
            if folder.name not in inputs:
                shutil.rmtree(folder)
        for name, reference in inputs.items():
            folder = self._own / INPUTS / name
            if not folder.exists():
                unpack(ray.get(reference), folder)

    def _dataset(self, data: Mapping[str, Any]) -> Path:
        """The file with the dataset, one for all places of the node."""
        ((key, reference),) = data.items()
        file = self._shared / DATA / f"{key}.npz"
        if not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True)
            write_data(ray.get(reference), file)
        return file

    def _here(self, task: Task, data: Path) -> Task:
        """The task with folders of this node."""

        def one(member: Task) -> Task:
            inputs = tuple(str(self._own / INPUTS / Path(folder).name) for folder in member.inputs)
            folder = str(self._own / OUT / member.key) if member.folder else ""
            return replace(member, inputs=inputs, folder=folder, spec={**member.spec, "data": str(data)})

        beside: Sequence[Task] = tuple(map(one, task.beside))
        return replace(one(task), beside=tuple(beside))
