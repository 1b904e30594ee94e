"""The watch over a measuring session: on trees that stand in for /proc and /sys, and once on the real machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from cnnbench import nvml
from cnnbench.devices import Device
from cnnbench.nvml import GpuState
from cnnbench.stages import noise
from cnnbench.stages.noise import NoiseWatch

CPU = Device("cpu")
TICKS = os.sysconf("SC_CLK_TCK")


class Machine:
    """A machine of four cores of which this process may use two, 1 and 2; every time is in seconds."""

    def __init__(self, root: Path) -> None:
        self.proc, self.sys = root / "proc", root / "sys"
        self.now = 0.0
        self.cores = {cpu: dict.fromkeys(("user", "system", "idle", "steal"), 0.0) for cpu in range(4)}
        self.processes = {os.getpid(): [1, 0.0, 0.0], 1: [0, 0.0, 0.0]}  # parent, own time, time of ended children
        self.write()

    def work(self, cpu: int, seconds: float, kind: str = "user") -> None:
        self.cores[cpu][kind] += seconds

    def write(self) -> None:
        lines = ["cpu  9 9 9 9 9 9 9 9 9 9"]
        for cpu, t in self.cores.items():
            fields = [t["user"], 0, t["system"], t["idle"], 0, 0, 0, t["steal"], 0, 0]
            lines.append(f"cpu{cpu} " + " ".join(str(round(value * TICKS)) for value in fields))
        lines.append("intr 5 0 0")
        self.put(self.proc / "stat", "\n".join(lines))
        for pid, (parent, own, ended) in self.processes.items():
            ticks = [round(own * TICKS), 0, round(ended * TICKS), 0]
            fields = ["R", parent, *[0] * 9, *ticks, 20, 0]
            self.put(self.proc / str(pid) / "stat", f"{pid} (a (b) c) " + " ".join(map(str, fields)))

    def put(self, path: Path, text: object) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n", encoding="utf-8")

    def core(self, cpu: int, file: str, value: object) -> None:
        self.put(self.sys / f"devices/system/cpu/cpu{cpu}" / file, value)

    def watch(self, device: Device = CPU) -> NoiseWatch:
        return NoiseWatch(device, proc=self.proc, sys=self.sys, clock=lambda: self.now)


@pytest.fixture
def machine(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {1, 2}, raising=False)
    return Machine(tmp_path)


def session(machine: Machine, seconds: float = 10.0, **busy: float) -> None:
    """Time goes by; what the usable cores do not do, they idle."""
    machine.now += seconds
    for cpu in (1, 2):
        used = sum(busy.get(f"{kind}{cpu}", 0.0) for kind in ("user", "system", "steal"))
        for kind in ("user", "system", "steal"):
            machine.work(cpu, busy.get(f"{kind}{cpu}", 0.0), kind)
        machine.work(cpu, seconds - used, "idle")
    machine.write()


def test_others_are_what_is_busy_less_what_this_process_did(machine):
    with machine.watch() as watch:
        machine.processes[os.getpid()][1] += 9.0
        session(machine, 10, user1=9.5, user2=2.0, system2=0.5)
    assert watch.details["others_percent"] == pytest.approx(30)  # (9.5 + 2.5 - 9) of 10 s
    assert watch.details["steal_percent"] == 0
    assert (watch.details["seconds"], watch.details["cores"]) == (10, 2)


def test_a_quiet_machine_shows_nothing_and_never_less(machine):
    with machine.watch() as watch:
        machine.processes[os.getpid()][1] += 9.02
        session(machine, 10, user1=9.0)
    assert watch.details["others_percent"] == 0


def test_cores_that_the_process_may_not_use_do_not_count(machine):
    with machine.watch() as watch:
        machine.work(0, 10)
        machine.work(3, 10)
        session(machine, 10)
    assert watch.details["others_percent"] == 0


def test_what_this_process_started_is_its_own_work(machine):
    machine.processes |= {70: [os.getpid(), 0.0, 0.0], 71: [70, 0.0, 0.0], 72: [1, 0.0, 0.0]}
    machine.write()
    with machine.watch() as watch:
        machine.processes[70][1] += 1.0  # a child
        machine.processes[71][1] += 2.0  # its child
        machine.processes[os.getpid()][2] += 3.0  # a child that has ended
        machine.processes[72][1] += 4.0  # somebody else's
        session(machine, 10, user1=10)
    assert watch.details["others_percent"] == pytest.approx(40)


def test_stolen_time_stands_by_itself(machine):
    with machine.watch() as watch:
        session(machine, 10, steal1=0.5)
    assert (watch.details["steal_percent"], watch.details["others_percent"]) == (pytest.approx(5), 0)


def test_counters_that_stand_still_say_nothing(machine):
    with machine.watch() as watch:
        machine.now += 10
    assert watch.details["others_percent"] is None
    assert watch.details["steal_percent"] is None


@pytest.mark.parametrize("text", ["", "cpu1 a b c d e f g h", "cpu1 1 2"])
def test_a_file_that_can_not_be_read_costs_nothing_but_its_facts(machine, text):
    machine.put(machine.proc / "stat", text)
    with machine.watch() as watch:
        machine.now += 10
    assert watch.details["others_percent"] is None


def test_the_clock_is_that_of_the_fastest_usable_core(machine):
    for cpu, khz in enumerate((9_000_000, 3_400_000, 800_000, 9_000_000)):
        machine.core(cpu, "cpufreq/scaling_cur_freq", khz)
    with machine.watch() as watch:
        machine.core(1, "cpufreq/scaling_cur_freq", 2_900_000)
        session(machine)
    assert watch.details["cpu_mhz"] == [3400, 2900]


def test_the_clock_comes_from_cpuinfo_where_sys_has_none(machine):
    def cpuinfo(mhz):
        entries = [
            f"processor\t: {cpu}\ncpu MHz\t\t: {mhz if cpu == 2 else 5000 * (cpu in (0, 3))}" for cpu in range(4)
        ]
        machine.put(machine.proc / "cpuinfo", "\n\n".join(entries))

    cpuinfo(2400.5)
    with machine.watch() as watch:
        cpuinfo(2000)
        session(machine)
    assert watch.details["cpu_mhz"] == [2400.5, 2000]


def test_no_clock_where_none_is_told(machine):
    with machine.watch() as watch:
        session(machine)
    assert watch.details["cpu_mhz"] is None
    assert watch.details["throttle_events"] is None


def test_heat_is_counted_over_usable_cores_and_packages(machine):
    for cpu in range(4):
        for part in ("core", "package"):
            machine.core(cpu, f"thermal_throttle/{part}_throttle_count", 100)
    with machine.watch() as watch:
        machine.core(1, "thermal_throttle/core_throttle_count", 103)
        machine.core(2, "thermal_throttle/package_throttle_count", 101)
        machine.core(3, "thermal_throttle/core_throttle_count", 900)
        session(machine)
    assert watch.details["throttle_events"] == 4


def test_a_gpu_is_looked_at_on_both_ends(machine, monkeypatch):
    states = iter([GpuState(1980, 41, ("power cap",)), GpuState(1500, 78, ("power cap", "hardware slowdown"))])

    class Gpu:
        def state(self):
            return next(states)

    monkeypatch.setattr(nvml, "find", lambda device: Gpu() if device.kind == "cuda" else None)
    with machine.watch(Device("cuda", 0)) as watch:
        session(machine)
    assert watch.details["gpu_mhz"] == [1980, 1500]
    assert watch.details["gpu_celsius"] == [41, 78]
    assert watch.details["gpu_throttles"] == ["power cap", "hardware slowdown"]


def test_a_gpu_that_tells_nothing_is_told_apart_from_a_cool_one(machine, monkeypatch):
    monkeypatch.setattr(nvml, "find", lambda device: None)
    with machine.watch(Device("cuda", 0)) as watch:
        session(machine)
    assert [watch.details[key] for key in ("gpu_mhz", "gpu_celsius", "gpu_throttles")] == [None, None, None]
    with machine.watch() as watch:
        session(machine)
    assert not any(key.startswith("gpu") for key in watch.details)


def test_elsewhere_psutil_tells_as_far_as_it_goes(tmp_path, monkeypatch):
    times = iter([(10.0, 2.0, 88.0), (22.0, 2.0, 96.0)])  # user, system, idle of all cores
    own = iter([1.0, 9.0])

    class Times(tuple):
        def _asdict(self):
            return dict(zip(("user", "system", "idle"), self, strict=True))

    class Process:
        def children(self, recursive):
            return []

        def cpu_times(self):
            return (next(own), 0.0, 0.0, 0.0)

    monkeypatch.setattr(psutil, "cpu_times", lambda: Times(next(times)))
    monkeypatch.setattr(psutil, "Process", Process)
    monkeypatch.setattr(psutil, "cpu_count", lambda: 2)
    monkeypatch.setattr(psutil, "cpu_freq", lambda: None)
    seconds = iter([0.0, 10.0])
    with NoiseWatch(CPU, proc=tmp_path / "none", sys=tmp_path / "none", clock=lambda: next(seconds)) as watch:
        pass
    assert watch.details["others_percent"] == pytest.approx(40)
    assert watch.details["steal_percent"] is None
    assert watch.details["cpu_mhz"] is None


def test_details_are_there_after_an_error_too(machine):
    watch = machine.watch()

    def fail():
        session(machine)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), watch:
        fail()
    assert watch.details["seconds"] == 10


@pytest.mark.skipif(not Path("/proc/stat").exists(), reason="counts as Linux does")
def test_the_real_machine_notices_a_busy_neighbour():
    """Load, not time: a stranger that spins takes CPU time, whatever else this machine does meanwhile."""
    own = [sys.executable, "-c", "import time; t = time.time()\nwhile time.time() < t + 60: pass"]
    # Started through a shell that ends: a process whose parent is not this one.
    shell = subprocess.run(["sh", "-c", '"$@" >&- 2>&- & echo $!', "sh", *own], capture_output=True, check=True)
    stranger = psutil.Process(int(shell.stdout))
    try:
        with NoiseWatch(CPU) as watch:
            before = sum(stranger.cpu_times()[:2])
            deadline = time.monotonic() + 60
            while sum(stranger.cpu_times()[:2]) < before + 1.0 and time.monotonic() < deadline:
                time.sleep(0.05)
        taken = sum(stranger.cpu_times()[:2]) - before
    finally:
        stranger.kill()
    json.dumps(watch.details, allow_nan=False)
    if watch.details["others_percent"] is None:
        pytest.skip("the counters of this machine stand still")
    others = watch.details["others_percent"] / 100 * watch.details["seconds"]
    assert others > 0.8 * taken > 0.7
    assert watch.details["involuntary_switches"] >= 0


@pytest.mark.skipif(not Path("/proc/stat").exists(), reason="counts as Linux does")
def test_the_process_itself_and_its_children_are_no_neighbours():
    spin = [sys.executable, "-c", "sum(range(30_000_000))"]
    before = noise._own_ticks(Path("/proc"))
    subprocess.run(spin, check=True)  # waited for
    after = noise._own_ticks(Path("/proc"))
    assert after - before > 0.1 * TICKS


@pytest.mark.gpu
def test_a_real_gpu_is_watched():
    with NoiseWatch(Device("cuda", 0)) as watch:
        pass
    assert all(100 < mhz < 10_000 for mhz in watch.details["gpu_mhz"])
