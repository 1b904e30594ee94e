from __future__ import annotations

import socket
import threading
from dataclasses import dataclass, field
from types import SimpleNamespace

import pytest
import torch

from cnnbench import meters
from cnnbench.devices import Device
from cnnbench.meters import CodecarbonMeter, Component, EnergyMeter, Reading, Task
from cnnbench.stages.energy import LONG_WINDOW, SHORT_WINDOW, inference_energy, training_energy
from cnnbench.types import EnergyOptions

CPU = Device("cpu")
INPUTS = torch.zeros(64, 1, 2, 2)


@dataclass
class FakeMachine(EnergyMeter):
    """A machine whose clock moves only as it idles or computes, and whose components draw constant powers."""

    idle: dict[str, float]
    busy: dict[str, float]
    methods: dict[str, str]
    call_seconds: float = 0.01
    fail_at: int = -1
    now: float = 0.0
    joules: dict[str, float] = field(default_factory=dict)
    tasks: list[float] = field(default_factory=list)
    calls: list[int] = field(default_factory=list)

    def sleep(self, seconds: float) -> None:
        self._pass(seconds, self.idle)

    def call(self, batch: torch.Tensor) -> torch.Tensor:
        self.calls.append(len(batch))
        self._pass(self.call_seconds, self.busy)
        return batch

    def _pass(self, seconds: float, watts: dict[str, float]) -> None:
        self.now += seconds
        for name, power in watts.items():
            self.joules[name] = self.joules.get(name, 0.0) + power * seconds

    def start(self, device: Device) -> None:
        self._begin = (self.now, dict(self.joules))

    def stop(self) -> Reading:
        began, before = self._begin
        self.tasks.append(self.now - began)
        if len(self.tasks) - 1 == self.fail_at:
            return Reading(note="energy: the counter is gone")
        parts = {
            name: Component(joules - before.get(name, 0.0), self.methods[name], "machine")
            for name, joules in self.joules.items()
        }
        return Reading(parts, self.now - began)

    def measure(self, **options):
        return inference_energy(
            self.call, INPUTS, self, EnergyOptions(**options), CPU, clock=lambda: self.now, sleep=self.sleep
        )


def test_energy_above_idle_by_image() -> None:
    # 100 calls of 32 images a second at 30 W above idle.
    machine = FakeMachine({"cpu": 10.0}, {"cpu": 40.0}, {"cpu": "measured"})
    got = machine.measure(batch_size=32)
    assert got.metrics == pytest.approx({"energy_inference_mj": 30 / 3200 * 1000})
    assert got.methods == {"energy_inference_mj": "measured"}
    assert got.details["energy"]["idle_watts"] == pytest.approx({"cpu": 10})
    assert got.notes == []


def test_a_measured_source_gets_long_windows_after_a_long_idle() -> None:
    machine = FakeMachine({"cpu": 10.0}, {"cpu": 40.0}, {"cpu": "measured"})
    machine.measure()
    assert machine.tasks == pytest.approx([SHORT_WINDOW, *[LONG_WINDOW] * 4], abs=0.02)


def test_an_estimate_gets_short_windows() -> None:
    machine = FakeMachine({"cpu": 0.0, "ram": 5.0}, {"cpu": 4.0, "ram": 5.0}, {"cpu": "estimated", "ram": "estimated"})
    got = machine.measure(windows=5)
    assert machine.tasks == pytest.approx([SHORT_WINDOW] * 6, abs=0.02)
    assert got.methods == {"energy_inference_mj": "estimated"}
    assert len(got.details["energy"]["windows_mj"]) == 5


def test_windows_are_never_fewer_than_three_and_as_long_as_asked() -> None:
    machine = FakeMachine({"cpu": 1.0}, {"cpu": 2.0}, {"cpu": "measured"})
    machine.measure(windows=1, window_seconds=0.5)
    assert machine.tasks == pytest.approx([0.5] * 4, abs=0.02)


def test_the_median_window_is_the_figure_and_a_call_longer_than_the_window_counts_once() -> None:
    machine = FakeMachine({"gpu": 0.0}, {"gpu": 1.0}, {"gpu": "measured"}, call_seconds=5.0)
    got = machine.measure(batch_size=8, window_seconds=0.1)
    assert got.details["energy"]["images"] == [8, 8, 8]
    assert got.metrics["energy_inference_mj"] == pytest.approx(5.0 / 8 * 1000)
    assert set(machine.calls) == {8}


def test_one_estimated_part_makes_the_sum_an_estimate_unless_it_adds_nothing() -> None:
    methods = {"cpu": "measured", "ram": "estimated"}
    adds = FakeMachine({"cpu": 1.0, "ram": 1.0}, {"cpu": 2.0, "ram": 2.0}, methods).measure()
    assert adds.methods == {"energy_inference_mj": "estimated"}
    nothing = FakeMachine({"cpu": 1.0, "ram": 0.0}, {"cpu": 2.0, "ram": 0.0}, methods).measure()
    assert nothing.methods == {"energy_inference_mj": "measured"}


@pytest.mark.parametrize("fail_at", [0, 1, 3])
def test_a_meter_that_fails_leaves_no_figure_but_a_note(fail_at: int) -> None:
    machine = FakeMachine({"cpu": 1.0}, {"cpu": 2.0}, {"cpu": "estimated"}, fail_at=fail_at)
    got = machine.measure()
    assert (got.metrics, got.methods, got.details) == ({}, {}, {})
    assert got.notes == ["energy: the counter is gone"]


def test_a_machine_that_draws_less_under_load_is_reported_as_such() -> None:
    got = FakeMachine({"cpu": 2.0}, {"cpu": 1.0}, {"cpu": "measured"}).measure()
    assert got.metrics["energy_inference_mj"] < 0
    assert got.notes == ["energy: inference did not rise above the idle machine"]


def test_training_energy_is_the_reading() -> None:
    parts = {"cpu": Component(3.0, "measured", "machine"), "ram": Component(0.0, "estimated", "process")}
    got = training_energy(Reading(parts, 2.0))
    assert (got.metrics, got.methods) == ({"energy_train_j": 3.0}, {"energy_train_j": "measured"})
    assert got.details["energy_train"]["ram"] == {"joules": 0.0, "method": "estimated", "scope": "process"}
    assert training_energy(Reading(note="gone")).metrics == {}
    assert training_energy(Reading(note="gone")).notes == ["gone"]


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ({"cpu": (1, "measured"), "gpu": (1, "measured")}, "measured"),
        ({"cpu": (1, "measured"), "gpu": (1, "unknown")}, "unknown"),
        ({"cpu": (1, "estimated"), "gpu": (1, "unknown")}, "estimated"),
        ({"cpu": (0, "estimated"), "gpu": (0, "measured")}, "estimated"),
        ({}, "unknown"),
    ],
)
def test_the_weakest_part_names_the_sum(parts, expected) -> None:
    components = {name: Component(joules, method, "machine") for name, (joules, method) in parts.items()}
    assert Reading(components).method == expected


# codecarbon itself


@pytest.fixture
def sealed(tmp_path, monkeypatch: pytest.MonkeyPatch):
    """An empty working folder, no network, and a user's configuration that asks for every output there is.

    Yields the folder; that no connection was tried is checked at the end, since codecarbon swallows such errors.
    """
    tried = []

    def refuse(*where, **_more):
        tried.append(where)
        raise OSError("no network here")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    for name, value in {
        "SAVE_TO_FILE": "true",
        "SAVE_TO_API": "true",
        "SAVE_TO_LOGGER": "true",
        "EMISSIONS_ENDPOINT": "http://localhost:1",
        "ELECTRICITYMAPS_API_TOKEN": "token",
        "ALLOW_MULTIPLE_RUNS": "false",
        "LOG_LEVEL": "debug",
        "PUE": "3",
    }.items():
        monkeypatch.setenv(f"CODECARBON_{name}", value)
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    assert tried == []


def _threads() -> set[str]:
    return {thread.name for thread in threading.enumerate() if thread.is_alive()}


def test_codecarbon_reads_offline_and_leaves_nothing_behind(sealed, capfd) -> None:
    meter = CodecarbonMeter()
    before = _threads()
    with meter.task(CPU) as first:
        sum(i * i for i in range(200_000))
    with meter.task(CPU) as second:
        pass
    for task in (first, second):
        assert task.reading.note == ""
        assert {"cpu", "ram"} >= set(task.reading.components) >= {"cpu"}
        assert all(part.joules >= 0 for part in task.reading.components.values())
        assert all(part.method in {"measured", "estimated"} for part in task.reading.components.values())
    assert first.reading.joules > 0
    assert first.reading.seconds > 0
    assert meter._tracker._pue == 1  # joules of the machine, not of the building
    meter.close()
    assert list(sealed.iterdir()) == []
    assert _threads() == before
    assert capfd.readouterr() == ("", "")


def test_codecarbon_is_stopped_when_the_work_raises(sealed) -> None:
    meter = CodecarbonMeter()
    before = _threads()
    with pytest.raises(TimeoutError), meter.task(CPU):
        raise TimeoutError
    assert _threads() == before
    with meter.task(CPU) as again:
        pass
    assert again.reading.components


def _fake_tracker(**parts):
    """A tracker with the private fields that the meter looks at, in kWh: 1 J is 1/3.6e6 kWh."""
    kwh = 1 / 3.6e6
    return SimpleNamespace(
        start_task=lambda: None,
        stop_task=lambda: SimpleNamespace(cpu_energy=2 * kwh, gpu_energy=3 * kwh, ram_energy=5 * kwh),
        **parts,
    )


def _part(kind: str, **fields):
    return type(kind, (), fields)()


def _read(monkeypatch, device: Device, *hardware) -> Reading:
    monkeypatch.setattr(meters, "_offline_tracker", lambda _device: _fake_tracker(_hardware=list(hardware)))
    with CodecarbonMeter().task(device) as task:
        pass
    return task.reading


def test_codecarbons_units_and_methods(monkeypatch) -> None:
    counted = SimpleNamespace(devices=[SimpleNamespace(last_energy=1)])
    polled = SimpleNamespace(devices=[SimpleNamespace(last_energy=None)])
    load, rapl = _part("CPU", _mode="cpu_load"), _part("CPU", _mode="intel_rapl")

    on_cpu = _read(monkeypatch, CPU, load, _part("RAM"), _part("GPU", devices=counted))
    assert {n: c.joules for n, c in on_cpu.components.items()} == pytest.approx({"cpu": 2, "ram": 5})
    assert on_cpu.method == "estimated"
    assert on_cpu.components["cpu"].scope == "process"

    cuda = Device("cuda", 0)
    with_rapl = _read(monkeypatch, cuda, rapl, _part("RAM"), _part("GPU", devices=counted))
    assert {n: c.joules for n, c in with_rapl.components.items()} == pytest.approx({"cpu": 2, "gpu": 3})
    assert with_rapl.method == "measured"
    assert {n: c.scope for n, c in with_rapl.components.items()} == {"cpu": "machine", "gpu": "device"}

    without_counter = _read(monkeypatch, cuda, rapl, _part("RAM"), _part("GPU", devices=polled))
    assert without_counter.components["gpu"].method == "estimated"


def test_private_fields_that_moved_make_methods_unknown(monkeypatch) -> None:
    moved = _read(monkeypatch, CPU, _part("Processor"), _part("CPU"))
    assert moved.joules == pytest.approx(7)
    assert moved.method == "unknown"


@pytest.mark.parametrize("where", ["start_task", "stop_task"])
def test_codecarbon_that_breaks_costs_the_figure_alone(monkeypatch, where) -> None:
    def broken(*_args):
        raise RuntimeError("no such\ncounter")

    trackers = [_fake_tracker(_hardware=[]), _fake_tracker(_hardware=[])]
    setattr(trackers[0], where, broken)
    monkeypatch.setattr(meters, "_offline_tracker", lambda _device: trackers.pop(0))
    meter = CodecarbonMeter()
    with meter.task(CPU) as task:
        pass
    assert task.reading.components == {}
    assert task.reading.note == "energy: codecarbon failed: RuntimeError: no such counter"
    with meter.task(CPU) as task:  # a new tracker
        pass
    assert task.reading.note == ""


def test_a_tpu_is_not_seen(monkeypatch) -> None:
    reading = _read(monkeypatch, Device("tpu"), _part("CPU", _mode="cpu_load"), _part("RAM"))
    assert set(reading.components) == {"cpu", "ram"}
    assert "no source here sees a TPU" in reading.note


@pytest.mark.parametrize(("visible", "expected"), [(None, 1), ("", 1), ("5,7", 7), ("GPU-ab,GPU-cd", 1), ("3", 1)])
def test_gpus_are_named_as_the_driver_counts_them(monkeypatch, visible, expected) -> None:
    if visible is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert meters._physical_index(1) == expected


def test_a_task_is_empty_until_it_ends() -> None:
    assert Task().reading == Reading()
