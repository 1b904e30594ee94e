"""Meters on fake counters: trees of files as the kernel shows them, and a GPU as NVML does."""

from __future__ import annotations

import dataclasses
import os
import threading
from pathlib import Path

import pytest

from cnnbench import nvml
from cnnbench.devices import Device
from cnnbench.meters import counting, rapl
from cnnbench.meters.base import Component, EnergyMeter, Reading
from cnnbench.meters.choose import make_meter
from cnnbench.meters.codecarbon import CodecarbonMeter
from cnnbench.meters.constant import ConstantMeter
from cnnbench.meters.counters import PATIENCE, Counter, CounterFault, Watch, update_interval
from cnnbench.meters.counting import RESETS, CountingMeter, find_counters
from cnnbench.types import EnergyOptions

CPU, CUDA = Device("cpu"), Device("cuda", 0)
SPAN = 262_143_328_850  # microjoules; what a real package says


class Clock:
    """Moves on by a step whenever it is looked at, and by hand."""

    def __init__(self, step: float = 1e-4) -> None:
        self.now = 0.0
        self.step = step

    def __call__(self) -> float:
        self.now += self.step
        return self.now


class Tree:
    """A powercap tree under a folder."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def zone(self, folder: str, name: str, joules: float = 100.0, span: int | None = SPAN) -> Path:
        path = self.root / folder
        path.mkdir()
        (path / "name").write_text(f"{name}\n")
        (path / "energy_uj").write_text(f"{int(joules * 1e6)}\n")
        if span is not None:
            (path / "max_energy_range_uj").write_text(f"{span}\n")
        return path / "energy_uj"


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    root = tmp_path / "powercap"
    root.mkdir()
    for control in ("intel-rapl", "dtpm"):  # what is no zone
        (root / control).mkdir()
    return Tree(root)


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch) -> set[Path]:
    """Files that the user may not read, whoever runs the tests."""
    files: set[Path] = set()
    really, reading = os.access, Path.read_text

    def read_text(path: Path, *args: str, **more: str) -> str:
        if path in files:
            raise PermissionError(13, "Permission denied", str(path))
        return reading(path, *args, **more)

    monkeypatch.setattr(os, "access", lambda path, mode: path not in files and really(path, mode))
    monkeypatch.setattr(Path, "read_text", read_text)
    return files


def labels(tree: Tree) -> list[tuple[str, str]]:
    return [(counter.component, counter.label) for counter in rapl.find(tree.root).counters]


# What RAPL shows


def test_packages_and_their_dram_count_once_each(tree: Tree) -> None:
    for socket in (0, 1):
        tree.zone(f"intel-rapl:{socket}", f"package-{socket}", joules=100 + 50 * socket)
        tree.zone(f"intel-rapl:{socket}:0", "core")
        tree.zone(f"intel-rapl:{socket}:1", "uncore")
        tree.zone(f"intel-rapl:{socket}:2", "dram", joules=7)
    tree.zone("intel-rapl:2", "psys")
    tree.zone("intel-rapl-mmio:0", "package-0", joules=1)
    assert labels(tree) == [
        ("cpu", "package-0"),
        ("cpu", "package-1"),
        ("ram", "dram of package-0"),
        ("ram", "dram of package-1"),
    ]
    found = rapl.find(tree.root)
    assert found.components == ("cpu", "ram")
    assert [counter.read() for counter in found.counters] == [100, 150, 7, 7]
    assert {counter.span for counter in found.counters} == {SPAN / 1e6}
    assert {(counter.source, counter.scope) for counter in found.counters} == {("RAPL", "machine")}


def test_the_platform_stands_in_where_no_package_is_shown(tree: Tree) -> None:
    tree.zone("intel-rapl:0", "psys")
    assert labels(tree) == [("machine", "psys")]


def test_of_two_interfaces_to_one_package_that_is_read_which_may_be(tree: Tree, refused: set[Path]) -> None:
    refused.add(tree.zone("intel-rapl:0", "package-0"))
    tree.zone("intel-rapl-mmio:0", "package-0", joules=5)
    (counter,) = rapl.find(tree.root).counters
    assert counter.read() == 5


def test_dies_that_mirror_one_counter_count_once(tree: Tree) -> None:
    tree.zone("intel-rapl:0", "package-0-die-0", joules=5000.0)
    tree.zone("intel-rapl:1", "package-0-die-1", joules=5000.4)
    tree.zone("intel-rapl:2", "package-1-die-0", joules=9000.0)
    assert [label for _, label in labels(tree)] == ["package-0-die-0", "package-1-die-0"]


def test_sockets_that_happen_to_agree_are_two(tree: Tree) -> None:
    tree.zone("intel-rapl:0", "package-0", joules=5000.0)
    tree.zone("intel-rapl:1", "package-1", joules=5000.0)
    assert len(labels(tree)) == 2


def test_one_socket_that_may_not_be_read_makes_the_cpu_unmeasured(tree: Tree, refused: set[Path]) -> None:
    tree.zone("intel-rapl:0", "package-0")
    file = tree.zone("intel-rapl:1", "package-1")
    refused.add(file)
    assert rapl.find(tree.root) == rapl.Rapl(refused=(file,))


def test_memory_that_may_not_be_read_is_left_out(tree: Tree, refused: set[Path]) -> None:
    tree.zone("intel-rapl:0", "package-0")
    refused.add(tree.zone("intel-rapl:0:0", "dram"))
    assert labels(tree) == [("cpu", "package-0")]


def test_no_tree_is_no_counters(tmp_path: Path) -> None:
    assert rapl.find(tmp_path / "nowhere") == rapl.Rapl()


def test_zones_without_a_name_or_energy_are_passed_over(tree: Tree) -> None:
    (tree.root / "intel-rapl:0").mkdir()
    (tree.root / "intel-rapl:0" / "name").write_text("package-0")
    (tree.root / "intel-rapl:1").mkdir()
    (tree.root / "intel-rapl:1" / "energy_uj").write_text("1")
    assert labels(tree) == []


# One counter over a task


def fake(read, span: float | None = None, component: str = "cpu", label: str = "package-0") -> Counter:
    return Counter(component, label, "RAPL", "machine", read, span)


def test_the_update_interval_is_polled() -> None:
    clock = Clock()
    assert update_interval(fake(lambda: clock.now // 0.02), clock) == pytest.approx(0.02, rel=0.01)


def test_a_counter_slower_than_patience_still_moves() -> None:
    clock = Clock(0.01)
    assert update_interval(fake(lambda: clock.now // 1.5), clock) == PATIENCE


def test_a_counter_that_stands_still_is_found_out() -> None:
    clock = Clock()
    with pytest.raises(CounterFault, match=r"^RAPL's counter package-0 stands still$") as raised:
        update_interval(fake(lambda: 5.0), clock)
    assert raised.value.lasting
    assert clock.now == pytest.approx(PATIENCE, rel=0.01)


def watched(values: list[float], span: float | None, seconds: float = 2.0, still_after: float = 1.0) -> list[float]:
    """What a watch says of a counter that reads these values, ``seconds`` apart."""
    clock = Clock(0.0)
    watch = Watch([fake(lambda: values.pop(0), span)], clock)
    clock.now += seconds
    return watch.stop(still_after)


def test_a_counters_joules_over_a_task() -> None:
    assert watched([10.0, 25.0], None) == [15.0]


def test_a_counter_that_wraps_around() -> None:
    assert watched([990.0, 40.0], 1000.0) == [50.0]


@pytest.mark.parametrize(
    ("values", "span"),
    [([990.0, 40.0], None), ([400.0, 3.0], 262_143.0), ([20.0, 10.0], 5.0)],
    ids=["it has no span", "a wrap would be 130 kW", "more than its span"],
)
def test_a_counter_that_falls_without_wrapping_was_reset(values, span) -> None:
    last, value = values
    with pytest.raises(CounterFault, match=rf"fell from {last} J to {value} J") as raised:
        watched(values, span)
    assert not raised.value.lasting


def test_a_counter_that_vanishes() -> None:
    def read() -> float:
        if clock.now:
            raise FileNotFoundError(2, "No such file or directory")
        return 1.0

    clock = Clock(0.0)
    watch = Watch([fake(read)], clock)
    clock.now = 1.0
    with pytest.raises(CounterFault, match=r"can't be read \(No such file or directory\)") as raised:
        watch.stop(1.0)
    assert raised.value.lasting


def test_text_that_is_no_number_can_not_be_read(tree: Tree) -> None:
    tree.zone("intel-rapl:0", "package-0").write_text("\n")
    (counter,) = rapl.find(tree.root).counters
    with pytest.raises(CounterFault, match="can't be read"):
        Watch([counter])


def test_a_counter_that_stands_still_over_a_task() -> None:
    with pytest.raises(CounterFault, match="stands still"):
        watched([10.0, 10.0], None, seconds=2.0, still_after=1.5)
    assert watched([10.0, 10.0], None, seconds=1.0, still_after=1.5) == [0.0]


def test_a_long_task_misses_no_wrap() -> None:
    """A counter that wraps around twice in a task is polled in between."""
    values = iter([0.0, 60.0, 20.0, 80.0])  # of a span of 100: 60, then 60, then 60
    polled = threading.Semaphore(0)
    clock = Clock(0.0)

    def read() -> float:
        value = next(values, 40.0)
        clock.now += 1.0
        polled.release()
        return value

    watch = Watch([fake(read, 100.0)], clock, poll_seconds=0.01)
    for _ in range(4):
        assert polled.acquire(timeout=10)
    assert watch.stop(1000.0) == [240.0]
    assert not any(thread.name == "cnnbench-counters" for thread in threading.enumerate())


def test_a_fault_between_start_and_end_is_told_at_the_end() -> None:
    faulty = threading.Event()

    def read() -> float:
        if armed:
            faulty.set()
            raise OSError(5, "Input/output error")
        return 1.0

    armed = False
    watch = Watch([fake(read, 100.0)], poll_seconds=0.01)
    armed = True
    assert faulty.wait(10)
    armed = False
    with pytest.raises(CounterFault, match="Input/output error"):
        watch.stop(1.0)


# Counters and an estimate together


class Bank:
    """Counters that a test moves: each at its own power, by the clock."""

    def __init__(self, **watts: float) -> None:
        self.clock = Clock()
        self.watts = watts
        self.broken: dict[str, Exception] = {}
        self.offset: dict[str, float] = {}

    def counters(self, _device: Device) -> list[Counter]:
        return [self._counter(label) for label in self.watts]

    def _counter(self, label: str) -> Counter:
        component = label.partition("_")[0]

        def read() -> float:
            if label in self.broken:
                raise self.broken[label]
            return 50.0 + self.watts[label] * self.clock.now + self.offset.get(label, 0.0)

        source, scope = ("NVML", "device") if component == "gpu" else ("RAPL", "machine")
        return Counter(component, label, source, scope, read)


@dataclasses.dataclass
class Guess(EnergyMeter):
    """An estimator with fixed figures."""

    parts: dict[str, float] = dataclasses.field(default_factory=lambda: {"cpu": 2.0, "ram": 3.0, "gpu": 4.0})
    method: str = "estimated"
    note: str = ""
    started: int = 0
    closed: bool = False

    def start(self, device: Device) -> None:
        self.started += 1

    def stop(self) -> Reading:
        return Reading(
            {n: Component(j, self.method, "process", "guess") for n, j in self.parts.items()}, 1.0, self.note
        )

    def close(self) -> None:
        self.closed = True


def read(meter: CountingMeter, bank: Bank, device: Device = CPU, seconds: float = 2.0) -> Reading:
    with meter.task(device) as task:
        bank.clock.now += seconds
    return task.reading


def made(bank: Bank, estimator: EnergyMeter | None) -> CountingMeter:
    return CountingMeter(estimator, bank.counters, bank.clock)


def sources(reading: Reading) -> dict[str, tuple[str, str, str]]:
    return {name: (part.method, part.scope, part.source) for name, part in reading.components.items()}


RAPL = ("measured", "machine", "RAPL")
NVML = ("measured", "device", "NVML")
GUESS = ("estimated", "process", "guess")


def test_every_component_says_where_it_comes_from() -> None:
    for counted, device, expected in [
        ({"cpu": 10.0, "ram": 2.0}, CPU, {"cpu": RAPL, "ram": RAPL}),
        ({"cpu": 10.0}, CPU, {"cpu": RAPL}),  # no assumed power beside a counter
        ({}, CPU, {"cpu": GUESS, "ram": GUESS}),
        ({"machine": 10.0}, CPU, {"machine": RAPL}),
        ({"cpu": 10.0, "gpu": 90.0}, CUDA, {"cpu": RAPL, "gpu": NVML}),
        ({"cpu": 10.0}, CUDA, {"cpu": RAPL, "gpu": GUESS}),
        ({"gpu": 90.0}, CUDA, {"gpu": NVML, "cpu": GUESS, "ram": GUESS}),
        ({}, CUDA, {"gpu": GUESS, "cpu": GUESS, "ram": GUESS}),
    ]:
        bank = Bank(**counted)
        assert sources(read(made(bank, Guess()), bank, device)) == expected, counted


def test_joules_of_sockets_add_up() -> None:
    bank = Bank(cpu_0=10.0, cpu_1=30.0, ram=5.0)
    reading = read(made(bank, Guess()), bank, seconds=2.0)
    assert {n: part.joules for n, part in reading.components.items()} == pytest.approx({"cpu": 80, "ram": 10}, rel=1e-3)
    assert reading.seconds == pytest.approx(2.0, rel=1e-3)
    assert reading.method == "measured"
    assert reading.note == ""


def test_the_slowest_counter_is_told() -> None:
    bank = Bank(cpu=0.0, gpu=0.0)

    def counters(device: Device) -> list[Counter]:
        cpu, gpu = bank.counters(device)
        return [
            dataclasses.replace(cpu, read=lambda: bank.clock.now // 0.001),
            dataclasses.replace(gpu, read=lambda: bank.clock.now // 0.1),
        ]

    meter = CountingMeter(None, counters, bank.clock)
    assert read(meter, bank, CUDA).interval == pytest.approx(0.1, rel=0.02)
    assert read(made(Bank(), Guess()), Bank()).interval is None


def test_no_estimator_runs_where_all_is_counted() -> None:
    bank, guess = Bank(cpu=1.0), Guess()
    meter = made(bank, guess)
    read(meter, bank)
    assert guess.started == 0
    meter.close()
    assert guess.closed


def test_what_is_left_out_is_said() -> None:
    bank = Bank(cpu=10.0)
    assert read(made(bank, Guess()), bank).note == "energy: without main memory, which nothing here counts"
    bank = Bank(gpu=10.0)
    reading = read(made(bank, None), bank, CUDA)
    assert set(reading.components) == {"gpu"}
    assert reading.note == "energy: without the CPU and main memory, which nothing here counts"
    bank = Bank()
    reading = read(made(bank, None), bank)
    assert reading.components == {}
    assert reading.note == "energy: without the CPU and main memory, which nothing here counts"


def test_a_counter_that_stands_still_from_the_first_is_estimated_and_said() -> None:
    bank = Bank(cpu_0=10.0, cpu_1=0.0, ram=2.0)
    reading = read(made(bank, Guess()), bank)
    # One of two sockets would be a wrong sum; memory is still counted.
    assert sources(reading) == {"cpu": GUESS, "ram": RAPL}
    assert reading.method == "estimated"
    assert reading.note == "energy: RAPL's counter cpu_1 stands still and is not used"


def test_a_counter_that_comes_to_stand_still_under_load_costs_one_reading() -> None:
    bank = Bank(cpu=10.0)
    meter = made(bank, Guess())
    assert read(meter, bank).components["cpu"].method == "measured"
    bank.offset["cpu"] = bank.watts["cpu"] * bank.clock.now
    bank.watts["cpu"] = 0.0
    lost = read(meter, bank)
    assert (lost.components, lost.note) == ({}, "energy: RAPL's counter cpu stands still")
    after = read(meter, bank)
    assert sources(after) == {"cpu": GUESS, "ram": GUESS}
    assert "cpu stands still and is not used" in after.note


def test_a_counter_that_vanishes_costs_one_reading() -> None:
    bank = Bank(cpu=10.0)
    meter = made(bank, Guess())
    read(meter, bank)
    with meter.task(CPU) as task:
        bank.broken["cpu"] = FileNotFoundError(2, "No such file or directory")
    assert task.reading.components == {}
    assert task.reading.note == "energy: RAPL's counter cpu can't be read (No such file or directory)"
    assert sources(read(meter, bank)) == {"cpu": GUESS, "ram": GUESS}


def test_a_counter_gone_before_a_task_costs_that_reading() -> None:
    bank = Bank(cpu=10.0)
    meter = made(bank, Guess())
    read(meter, bank)
    bank.broken["cpu"] = FileNotFoundError(2, "No such file or directory")
    assert read(meter, bank).components == {}
    assert sources(read(meter, bank)) == {"cpu": GUESS, "ram": GUESS}


def test_a_reset_costs_one_reading_and_many_the_counter() -> None:
    bank = Bank(cpu=10.0)
    meter = made(bank, Guess())
    for reset in range(RESETS):
        with meter.task(CPU) as task:
            bank.offset["cpu"] = bank.offset.get("cpu", 0.0) - 40.0
        assert task.reading.components == {}
        assert " fell from " in task.reading.note
        after = read(meter, bank)
        assert sources(after) == ({"cpu": RAPL} if reset < RESETS - 1 else {"cpu": GUESS, "ram": GUESS})


def test_an_estimator_that_found_the_refused_counter_is_not_believed() -> None:
    bank = Bank(cpu=0.0)
    reading = read(made(bank, Guess({"cpu": 0.0}, method="measured")), bank)
    assert reading.components == {}
    assert "stands still" in reading.note
    # Where nothing was refused its counters are welcome: codecarbon knows some of other systems.
    assert read(made(Bank(), Guess({"cpu": 1.0}, method="measured")), Bank()).method == "measured"


def test_an_estimator_that_fails_leaves_no_part_of_a_sum() -> None:
    bank = Bank(gpu=10.0)
    reading = read(made(bank, Guess({}, note="energy: codecarbon failed")), bank, CUDA)
    assert (reading.components, reading.note) == ({}, "energy: codecarbon failed")


def test_an_estimators_note_is_passed_on() -> None:
    reading = read(made(Bank(), Guess(note="energy: of the host alone")), Bank(), Device("tpu"))
    assert reading.note == "energy: of the host alone"


def test_the_work_that_raises_ends_the_task() -> None:
    bank = Bank(cpu=1.0)
    meter = made(bank, None)
    with pytest.raises(TimeoutError), meter.task(CPU):
        raise TimeoutError
    assert read(meter, bank).components


# NVML


class FakeGpu:
    def __init__(self, joules: list[float | None]) -> None:
        self.joules = joules

    def energy_joules(self) -> float | None:
        return self.joules.pop(0) if len(self.joules) > 1 else self.joules[0]


def test_an_nvidia_gpu_is_counted_by_nvml(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    tree.zone("intel-rapl:0", "package-0")
    monkeypatch.setattr(nvml, "find", lambda device: FakeGpu([1.0, 2.5, None]) if device.kind == "cuda" else None)
    assert [c.component for c in find_counters(CPU, tree.root)] == ["cpu"]
    gpu = find_counters(CUDA, tree.root)[-1]
    assert (gpu.component, gpu.label, gpu.source, gpu.scope, gpu.span) == ("gpu", "cuda:0", "NVML", "device", None)
    assert gpu.read() == 2.5
    with pytest.raises(OSError, match="driver"):
        gpu.read()


def test_a_gpu_without_a_counter_is_left_to_the_estimate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nvml, "find", lambda _device: FakeGpu([None]))
    assert find_counters(CUDA, tmp_path) == []
    monkeypatch.setattr(nvml, "find", lambda _device: None)
    assert find_counters(CUDA, tmp_path) == []


# The choice


def test_a_constant_power_is_watts_times_time_above_idle() -> None:
    clock = Clock(0.0)
    meter = ConstantMeter({"cpu": 15.0, "gpu": 70.0}, clock)
    with meter.task(CPU) as task:
        clock.now += 2.0
    assert {n: part.joules for n, part in task.reading.components.items()} == {"cpu": 30.0, "gpu": 140.0}
    assert task.reading.method == "estimated"
    assert all(part.above_idle and part.source == "assumed power" for part in task.reading.components.values())
    assert task.reading.seconds == 2.0


@pytest.mark.parametrize("watts", [15, 15.0, {"cpu": 15.0}])
def test_the_options_choose_the_meter(watts, monkeypatch: pytest.MonkeyPatch) -> None:
    constant = make_meter(EnergyOptions(source="constant", watts=watts))
    assert constant._watts == ({"cpu": 15.0} if isinstance(watts, dict) else {"machine": 15.0})
    assert isinstance(make_meter(EnergyOptions(source="codecarbon")), CodecarbonMeter)
    assert make_meter(EnergyOptions(source="counters"))._estimator is None
    monkeypatch.setattr(counting, "find_counters", lambda _device: [])
    for platform, by_load in (("linux", True), ("win32", False)):
        monkeypatch.setattr("sys.platform", platform)
        assert make_meter(EnergyOptions())._estimator._by_load is by_load
