from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from cnnbench.stages import pinning
from cnnbench.stages.pinning import bound_to_cores, choose_cpus

linux = pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="binding is known on Linux alone")


def _masks() -> dict[int, set[int]]:
    return {int(task.name): os.sched_getaffinity(int(task.name)) for task in Path("/proc/self/task").iterdir()}


class Waiting:
    """A thread that waits, bound to some processors by itself."""

    def __init__(self, cpus: set[int] | None = None) -> None:
        self._done, ready = threading.Event(), threading.Event()

        def wait() -> None:
            if cpus:
                os.sched_setaffinity(0, cpus)
            self.id = threading.get_native_id()
            ready.set()
            self._done.wait()

        self._thread = threading.Thread(target=wait, daemon=True)
        self._thread.start()
        ready.wait()

    def end(self) -> None:
        self._done.set()
        self._thread.join()


@linux
def test_every_thread_is_bound_and_gets_its_own_mask_back():
    allowed = os.sched_getaffinity(0)
    bound = Waiting({max(allowed)})
    free = Waiting()
    before = _masks()
    try:
        with bound_to_cores(1) as cpus:
            if cpus is None:
                pytest.skip("binding is forbidden here")
            assert len(cpus) == 1
            assert {free.id, bound.id, threading.get_native_id()} <= _masks().keys()
            assert all(mask == set(cpus) for mask in _masks().values())
            late = Waiting()
        after = _masks()
        assert after.pop(late.id) == allowed
        assert after == before
        assert after[bound.id] == {max(allowed)}
        late.end()
    finally:
        bound.end()
        free.end()


@linux
def test_masks_come_back_after_an_error_too():
    before = os.sched_getaffinity(0)
    with pytest.raises(KeyboardInterrupt), bound_to_cores(1):
        raise KeyboardInterrupt
    assert os.sched_getaffinity(0) == before


@linux
def test_a_thread_that_ends_meanwhile_is_no_harm():
    brief = Waiting()
    with bound_to_cores(1):
        brief.end()


@linux
def test_where_binding_is_forbidden_nothing_is_bound(monkeypatch):
    tried = []

    def forbidden(thread: int, cpus: set[int]) -> None:
        tried.append(thread)
        raise PermissionError(1, "Operation not permitted")

    before = _masks()
    with monkeypatch.context() as patch:
        patch.setattr(os, "sched_setaffinity", forbidden)
        with bound_to_cores(1) as cpus:
            assert cpus is None
    assert tried
    assert _masks() == before


@linux
def test_where_one_thread_cannot_be_bound_none_is(monkeypatch):
    allowed = os.sched_getaffinity(0)
    waiting = Waiting()
    real = os.sched_setaffinity

    def sometimes(thread: int, cpus: set[int]) -> None:
        if thread == waiting.id and set(cpus) != allowed:
            raise PermissionError(1, "Operation not permitted")
        real(thread, cpus)

    before = _masks()
    try:
        with monkeypatch.context() as patch:
            patch.setattr(os, "sched_setaffinity", sometimes)
            patch.setattr(pinning, "choose_cpus", lambda allowed, count: (min(allowed),))
            with bound_to_cores(1) as cpus:
                assert (cpus is None) == (len(allowed) > 1)
                assert _masks() == before
    finally:
        waiting.end()


def test_elsewhere_nothing_happens(monkeypatch, tmp_path):
    monkeypatch.setattr(pinning, "TASKS", tmp_path / "nowhere")
    with bound_to_cores(1) as cpus:
        assert cpus is None


# Which processors. Each is given as core, socket and clock in MHz.


@pytest.fixture
def machine(tmp_path, monkeypatch):
    def make(cpus: list[tuple[int, int, int]]) -> None:
        monkeypatch.setattr(pinning, "CPUS", tmp_path)
        for number, (core, socket, clock) in enumerate(cpus):
            siblings = [str(n) for n, other in enumerate(cpus) if other[:2] == (core, socket)]
            for name, text in (
                ("topology/thread_siblings_list", ",".join(siblings)),
                ("topology/physical_package_id", str(socket)),
                ("cpufreq/cpuinfo_max_freq", str(clock * 1000)),
            ):
                file = tmp_path / f"cpu{number}" / name
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(text + "\n")

    return make


def test_one_hardware_thread_of_each_core_comes_first(machine):
    machine([(0, 0, 3000), (0, 0, 3000), (1, 0, 3000), (1, 0, 3000)])
    assert choose_cpus(range(4), 1) == (0,)
    assert choose_cpus(range(4), 2) == (0, 2)
    assert choose_cpus(range(4), 3) == (0, 1, 2)
    assert choose_cpus(range(4), 9) == (0, 1, 2, 3)
    assert choose_cpus({1, 2, 3}, 2) == (1, 2), "of those that the process may use"


def test_cores_of_one_socket_come_together(machine):
    machine([(core, socket, 3000) for core in range(2) for socket in range(2)])  # even and odd, as some boards count
    assert choose_cpus(range(4), 2) == (0, 2)
    assert choose_cpus(range(4), 3) == (0, 1, 2)


def test_frugal_cores_come_last(machine):
    machine([(0, 0, 2000), (1, 0, 2000), (2, 0, 4000), (3, 0, 4200)])
    assert choose_cpus(range(4), 2) == (2, 3)
    assert choose_cpus(range(4), 1) == (2,), "a slightly higher clock is no other kind of core"


def test_where_the_system_tells_nothing_each_processor_is_a_core(tmp_path, monkeypatch):
    monkeypatch.setattr(pinning, "CPUS", tmp_path)
    assert choose_cpus({5, 3, 4}, 2) == (3, 4)
    assert choose_cpus(set(), 2) == ()
