"""Out of memory: told from other faults, with the peak that was reached."""

from __future__ import annotations

import signal
from types import SimpleNamespace

import pytest
import torch

from cnnbench.devices import Device
from cnnbench.errors import OutOfMemory
from cnnbench.execute import local, process
from cnnbench.execute.interface import Outcome, Placed, Task
from cnnbench.execute.local import LocalExecutor
from cnnbench.execute.oom import high_water_mib, kills
from cnnbench.execute.perform import perform
from cnnbench.execute.process import BEGUN, Worker
from cnnbench.stages.memory import ran_out, reached_mib


def test_the_kernel_s_counts_are_read_where_they_are(tmp_path):
    (tmp_path / "proc").mkdir()
    assert kills(tmp_path) == 0
    (tmp_path / "proc/vmstat").write_text("pgfault 7\noom_kill 2\noom_kill_x 9\n")
    (tmp_path / "sys/fs/cgroup").mkdir(parents=True)
    (tmp_path / "sys/fs/cgroup/memory.events").write_text("oom 4\noom_kill 1\n")
    assert kills(tmp_path) == 3


def test_the_peak_of_a_process(tmp_path):
    assert high_water_mib(5, tmp_path) is None
    (tmp_path / "proc/5").mkdir(parents=True)
    (tmp_path / "proc/5/status").write_text("Name:\tx\nVmHWM:\t  2048 kB\nVmRSS:\t 1024 kB\n")
    assert high_water_mib(5, tmp_path) == 2.0


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), True),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), True),
        (
            RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
            True,
        ),
        (RuntimeError("MPS backend out of memory (MPS allocated: 1 GB)"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_errors_that_mean_no_more_memory(error, expected):
    assert ran_out(error) is expected


def test_this_process_s_peak_is_known():
    assert reached_mib(Device("cpu")) > 50


def test_a_real_allocation_that_can_t_be_met_is_told_from_other_faults():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 62, dtype=torch.uint8)
    assert ran_out(caught.value)


class Bench:
    """A bench whose stages run out of memory."""

    def run(self, *_args):
        raise OutOfMemory(812.4)

    def measure(self, members, faults):
        return {member.key: OutOfMemory(None) for member in members}


def test_it_is_a_status_with_the_peak_reached(tmp_path):
    (one,) = perform(Task("a", {"kind": "train"}, (), str(tmp_path / "a")), Bench(), print)
    assert (one.status, one.reason) == ("oom", "out of memory after reaching 812 MiB")
    assert one.result["details"] == {"peak_mib": 812.4}
    (other,) = perform(Task("a", {"kind": "latency"}, (str(tmp_path),), str(tmp_path / "a")), Bench(), print)
    assert (other.status, other.reason) == ("oom", "out of memory")


@pytest.fixture
def executor():
    made = LocalExecutor(1)
    yield made
    made.close()


def events(executor, count):
    found = []
    while len(found) < count:
        found += executor.wait()
    return found


@pytest.mark.parametrize(("counted", "status"), [(True, "oom"), (False, "crashed")])
def test_a_worker_that_the_system_ended_for_want_of_memory(monkeypatch, tmp_path, executor, counted, status):
    count = iter([0, 1 if counted else 0])
    for module in (local, process):
        monkeypatch.setattr(module, "kills", lambda: next(count))
    monkeypatch.setattr(process, "high_water_mib", lambda pid: 99.6)

    begun, ended = [], []

    class Process:
        pid = 1 << 30  # no process has it: what runs below a worker that is gone is ended too
        exitcode, sentinel = -signal.SIGKILL, 0

        def join(self, *_):
            pass

        def is_alive(self):
            return not ended

    class Pipe:
        def send(self, task):
            pass

        def recv(self):
            if not begun:
                begun.append(True)
                return BEGUN
            executor._busy[0].look()
            ended.append(True)
            raise EOFError

        def poll(self, *_):
            return False

        def close(self):
            pass

    monkeypatch.setattr(executor, "_start", lambda place: Worker(Process(), Pipe()))
    monkeypatch.setattr(local, "wait", lambda pipes, timeout: pipes)
    beside = (Task("b", {}, (), str(tmp_path / "b")), Task("c", {}, (), ""))
    executor.submit(Task("a", {}, (), str(tmp_path / "a"), beside=beside))
    found = [one for one in events(executor, 4) if isinstance(one, Outcome)]
    assert [(one.key, one.status) for one in found] == [("a", status), ("b", status)]
    if counted:
        assert found[0].reason == "out of memory: the system ended its worker process, last seen at 100 MiB"
        assert found[0].result == {"details": {"peak_mib": 99.6}}


def test_a_process_of_its_own_is_new_and_ends_with_its_task(monkeypatch, tmp_path, executor):
    started = []

    def start(place):
        started.append(LocalExecutor._start(executor, place))
        return started[-1]

    monkeypatch.setattr(executor, "_start", start)
    for name, own in (("a", False), ("b", True), ("c", False)):
        executor.submit(Task(name, {"kind": "nonsense", "threads": 1}, (), str(tmp_path / name), own_process=own))
        placed, ended = events(executor, 2)
        assert placed == Placed(name, "worker 1")
        assert ended.status == "failed"
    first, own = started
    assert executor._idle == [first]
    assert not own.process.is_alive()
    assert SimpleNamespace(pid=first.process.pid).pid != own.process.pid
