"""codecarbon itself, offline, and what is read from it."""

from __future__ import annotations

import socket
import threading
from types import SimpleNamespace

import pytest

from cnnbench.devices import Device
from cnnbench.meters import codecarbon
from cnnbench.meters.base import Reading, Task
from cnnbench.meters.codecarbon import CodecarbonMeter

CPU = Device("cpu")


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


def _ended(before: set[str]) -> bool:
    """Whether no thread is left beside those of before; a stopped one may take a moment to be gone."""
    for thread in threading.enumerate():
        if thread.name not in before:
            thread.join(timeout=10)
    return _threads() <= before


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
    assert _ended(before)
    assert capfd.readouterr() == ("", "")


def test_codecarbon_is_stopped_when_the_work_raises(sealed) -> None:
    meter = CodecarbonMeter()
    before = _threads()
    with pytest.raises(TimeoutError), meter.task(CPU):
        raise TimeoutError
    assert _ended(before)
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
    monkeypatch.setattr(
        codecarbon, "_offline_tracker", lambda _device, *, by_load: _fake_tracker(_hardware=list(hardware))
    )
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


def test_memorys_constant_power_lasts_as_long_as_the_task(monkeypatch) -> None:
    kwh = 1 / 3.6e6
    data = SimpleNamespace(cpu_energy=0, gpu_energy=0, ram_energy=9 * kwh, ram_power=10.0)
    tracker = SimpleNamespace(start_task=lambda: None, stop_task=lambda: data, _hardware=[_part("RAM")])
    monkeypatch.setattr(codecarbon, "_offline_tracker", lambda _device, *, by_load: tracker)
    with CodecarbonMeter().task(CPU) as task:
        pass
    assert task.reading.components["ram"].joules == pytest.approx(10.0 * task.reading.seconds)


def test_private_fields_that_moved_make_methods_unknown(monkeypatch) -> None:
    moved = _read(monkeypatch, CPU, _part("Processor"), _part("CPU"))
    assert moved.joules == pytest.approx(7)
    assert moved.method == "unknown"


def test_by_load_no_counter_of_codecarbons_own_is_read(sealed) -> None:
    meter = CodecarbonMeter(by_load=True)
    with meter.task(CPU) as task:
        sum(i * i for i in range(200_000))
    assert task.reading.components["cpu"].method == "estimated"
    assert meter._tracker._conf["force_mode_cpu_load"] is True


@pytest.mark.parametrize("where", ["start_task", "stop_task"])
def test_codecarbon_that_breaks_costs_the_figure_alone(monkeypatch, where) -> None:
    def broken(*_args):
        raise RuntimeError("no such\ncounter")

    trackers = [_fake_tracker(_hardware=[]), _fake_tracker(_hardware=[])]
    setattr(trackers[0], where, broken)
    monkeypatch.setattr(codecarbon, "_offline_tracker", lambda _device, *, by_load: trackers.pop(0))
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
    assert codecarbon._physical_index(1) == expected


def test_a_task_is_empty_until_it_ends() -> None:
    assert Task().reading == Reading()
