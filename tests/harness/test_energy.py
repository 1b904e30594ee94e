from __future__ import annotations

import random
from dataclasses import dataclass, field

import pytest
import torch

from cnnbench.devices import Device
from cnnbench.meters.base import Component, EnergyMeter, Reading
from cnnbench.stages.energy import (
    ATTEMPTS,
    LONG_WINDOW,
    SETTLING,
    SHORT_WINDOW,
    EnergyFigures,
    inference_energy,
    training_energy,
)
from cnnbench.stages.subject import Subject
from cnnbench.types import EnergyOptions

CPU = Device("cpu")
INPUTS = torch.zeros(64, 1, 2, 2)


@dataclass
class FakeMachine(EnergyMeter):
    """A machine whose clock moves only as it idles or computes, and whose components draw constant powers.

    ``events`` is what happened in order: ``("idle", seconds)``, ``(model, images)``, ``("task", seconds)``.
    """

    idle: dict[str, float]
    busy: dict[str, float]
    methods: dict[str, str]
    call_seconds: float = 0.01
    fail_at: tuple[int, ...] = ()
    interval: float | None = None
    above_idle: bool = False
    now: float = 0.0
    joules: dict[str, float] = field(default_factory=dict)
    tasks: list[float] = field(default_factory=list)
    events: list[tuple[str, float]] = field(default_factory=list)

    def sleep(self, seconds: float) -> None:
        self.events.append(("idle", seconds))
        self._pass(seconds, self.idle)

    def model(self, name: str = "m", factor: float = 1.0, fail_at: int = -1) -> Subject:
        """A model that draws ``factor`` of the busy power and raises at a call, counted from 0."""
        count = 0

        def call(batch: torch.Tensor) -> torch.Tensor:
            nonlocal count
            count += 1
            if count - 1 == fail_at:
                raise RuntimeError(f"{name} broke")
            self.events.append((name, len(batch)))
            self._pass(self.call_seconds, {part: watts * factor for part, watts in self.busy.items()})
            return batch

        return Subject(call, INPUTS)

    def _pass(self, seconds: float, watts: dict[str, float]) -> None:
        self.now += seconds
        for name, power in watts.items():
            self.joules[name] = self.joules.get(name, 0.0) + power * seconds

    def start(self, device: Device) -> None:
        self._begin = (self.now, dict(self.joules))

    def stop(self) -> Reading:
        began, before = self._begin
        self.tasks.append(self.now - began)
        self.events.append(("task", self.now - began))
        if len(self.tasks) - 1 in self.fail_at:
            return Reading(note=f"energy: the counter is gone at {len(self.tasks) - 1}")
        parts = {
            name: Component(joules - before.get(name, 0.0), self.methods[name], "machine", "fake", self.above_idle)
            for name, joules in self.joules.items()
        }
        return Reading(parts, self.now - began, interval=self.interval)

    def measure_all(self, subjects: dict[str, Subject], **options):
        return inference_energy(
            subjects,
            self,
            EnergyOptions(**options),
            CPU,
            clock=lambda: self.now,
            sleep=self.sleep,
            shuffle=random.Random(3),
        )

    def measure(self, **options) -> EnergyFigures:
        got = self.measure_all({"m": self.model()}, **options)["m"]
        assert isinstance(got, EnergyFigures)
        return got


def counted(idle: float = 10.0, busy: float = 40.0, **more) -> FakeMachine:
    return FakeMachine({"cpu": idle}, {"cpu": busy}, {"cpu": "measured"}, **more)


def test_energy_above_idle_by_image() -> None:
    # 100 calls of 32 images a second at 30 W above idle.
    got = counted().measure(batch_size=32)
    assert got.metrics == pytest.approx({"energy_inference_mj": 30 / 3200 * 1000})
    assert got.methods == {"energy_inference_mj": "measured"}
    details = got.details["energy"]
    assert details["idle_watts"] == pytest.approx({"cpu": 10})
    assert details["components_mj"] == pytest.approx({"cpu": 30 / 3200 * 1000})
    assert (details["methods"], details["scopes"], details["sources"]) == (
        {"cpu": "measured"},
        {"cpu": "machine"},
        {"cpu": "fake"},
    )
    assert got.notes == []


@pytest.mark.parametrize(
    ("interval", "length"), [(None, LONG_WINDOW), (0.001, LONG_WINDOW), (0.1, LONG_WINDOW), (0.3, 6.0)]
)
def test_a_counters_windows_are_20_updates_long_and_2_s_at_least(interval, length) -> None:
    machine = counted(interval=interval)
    got = machine.measure()
    assert machine.tasks == pytest.approx([SHORT_WINDOW, *[length] * 6], abs=0.02)
    assert got.details["energy"]["window_seconds"] == length
    assert got.details["energy"]["update_seconds"] == interval


def test_an_estimate_gets_short_windows_and_no_time_to_settle() -> None:
    machine = FakeMachine({"cpu": 0.0, "ram": 5.0}, {"cpu": 4.0, "ram": 5.0}, {"cpu": "estimated", "ram": "estimated"})
    got = machine.measure(windows=5)
    assert machine.tasks == pytest.approx([SHORT_WINDOW] * 11, abs=0.02)
    assert got.methods == {"energy_inference_mj": "estimated"}
    assert len(got.details["energy"]["windows_mj"]) == 5
    assert ("idle", SETTLING) not in machine.events


def test_each_window_follows_an_idle_one_of_its_own_after_the_machine_has_settled() -> None:
    machine = counted(call_seconds=0.5)
    machine.measure_all({"a": machine.model("a"), "b": machine.model("b")}, window_seconds=1.0)
    after_warmup = machine.events[machine.events.index(("task", pytest.approx(SHORT_WINDOW))) + 1 :]
    turns = [after_warmup[i : i + 6] for i in range(0, len(after_warmup), 6)]
    assert len(turns) == 6
    for turn in turns:
        name = turn[3][0]
        assert turn == [
            ("idle", SETTLING),
            ("idle", 1.0),
            ("task", pytest.approx(1.0)),
            (name, 32),
            (name, 32),
            ("task", pytest.approx(1.0)),
        ]
    names = [turn[3][0] for turn in turns]
    assert [sorted(names[i : i + 2]) for i in (0, 2, 4)] == [["a", "b"]] * 3  # each once a round


def test_the_order_within_rounds_is_drawn() -> None:
    machine = counted()
    subjects = {name: machine.model(name) for name in "abcde"}
    machine.measure_all(subjects, windows=6, window_seconds=0.01)
    names = [name for name, _ in machine.events if name in subjects][3 * 5 :]
    rounds = ["".join(names[i : i + 5]) for i in range(0, len(names), 5)]
    assert {"".join(sorted(r)) for r in rounds} == {"abcde"}
    assert len(set(rounds)) > 1


def test_models_that_take_turns_get_their_own_figures() -> None:
    machine = counted()
    got = machine.measure_all({"full": machine.model("full"), "half": machine.model("half", factor=0.5)})
    figures = {name: one.metrics["energy_inference_mj"] for name, one in got.items()}
    assert figures == pytest.approx({"full": 30 / 3200 * 1000, "half": 10 / 3200 * 1000})
    assert list(got) == ["full", "half"]


@pytest.mark.parametrize("fail_at", [0, 2, 3, 500])
def test_a_model_that_raises_leaves_and_the_others_go_on(fail_at: int) -> None:
    machine = counted()
    subjects = {"bad": machine.model("bad", fail_at=fail_at), "good": machine.model("good")}
    got = machine.measure_all(subjects)
    assert isinstance(got["bad"], RuntimeError)
    assert str(got["bad"]) == "bad broke"
    assert got["good"].metrics == pytest.approx({"energy_inference_mj": 30 / 3200 * 1000})
    assert len(got["good"].details["energy"]["windows_mj"]) == 3


def test_what_is_no_exception_goes_through() -> None:
    machine = counted()

    def stop(_batch):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        machine.measure_all({"a": Subject(stop, INPUTS)})


def test_windows_are_never_fewer_than_three_and_as_long_as_asked() -> None:
    machine = counted()
    got = machine.measure(windows=1, window_seconds=0.5)
    assert machine.tasks[1:] == pytest.approx([0.5] * 6, abs=0.02)
    assert got.details["energy"]["window_seconds"] == 0.5


def test_the_median_window_is_the_figure_and_the_spread_is_kept() -> None:
    machine = counted(idle=0.0, busy=1.0)
    subject = machine.model()
    calls = 0

    def call(batch):  # 1 W, then 5 W, then 2 W: the windows come to 5, 25 and 10 J for 8 images
        nonlocal calls
        calls += 1
        machine.busy = {"cpu": {4: 1.0, 5: 5.0, 6: 2.0}.get(calls, 1.0)}
        return subject.call(batch)

    machine.call_seconds = 5.0
    got = machine.measure_all({"m": Subject(call, INPUTS)}, batch_size=8, window_seconds=0.1)["m"]
    details = got.details["energy"]
    assert details["windows_mj"] == pytest.approx([625, 3125, 1250])
    assert details["range_mj"] == pytest.approx([625, 3125])
    assert got.metrics["energy_inference_mj"] == pytest.approx(1250)
    assert details["images"] == [8, 8, 8]  # a call longer than the window counts once


def test_one_estimated_part_makes_the_sum_an_estimate_unless_it_adds_nothing() -> None:
    methods = {"cpu": "measured", "ram": "estimated"}
    adds = FakeMachine({"cpu": 1.0, "ram": 1.0}, {"cpu": 2.0, "ram": 2.0}, methods).measure()
    assert adds.methods == {"energy_inference_mj": "estimated"}
    nothing = FakeMachine({"cpu": 1.0, "ram": 0.0}, {"cpu": 2.0, "ram": 0.0}, methods).measure()
    assert nothing.methods == {"energy_inference_mj": "measured"}


def test_an_assumed_power_has_no_idle_to_subtract() -> None:
    machine = FakeMachine({"cpu": 15.0}, {"cpu": 15.0}, {"cpu": "estimated"}, above_idle=True)
    got = machine.measure()
    assert got.metrics == pytest.approx({"energy_inference_mj": 15 / 3200 * 1000})
    assert got.details["energy"]["idle_watts"] == {}
    assert got.notes == []


@pytest.mark.parametrize("fail_at", [0, 1, 4])
def test_a_meter_that_fails_once_has_all_windows_taken_again(fail_at: int) -> None:
    machine = counted(fail_at=(fail_at,))
    got = machine.measure()
    assert got.metrics == pytest.approx({"energy_inference_mj": 30 / 3200 * 1000})
    assert len(got.details["energy"]["windows_mj"]) == 3
    assert got.notes == [f"energy: the counter is gone at {fail_at}"]
    assert len(machine.tasks) == fail_at + 1 + 7


def test_a_meter_that_keeps_failing_leaves_no_figure_but_notes() -> None:
    machine = counted(fail_at=tuple(range(100)))
    got = machine.measure()
    assert (got.metrics, got.methods, got.details) == ({}, {}, {})
    assert got.notes == [f"energy: the counter is gone at {i}" for i in range(ATTEMPTS)]


def test_windows_of_different_parts_are_not_mixed() -> None:
    machine = counted()
    subject = machine.model()

    def call(batch):
        machine.joules.setdefault("gpu", 0.0)
        machine.methods["gpu"] = "measured"
        return subject.call(batch)

    # The first call of all is in the warm-up, so that every window has both.
    got = machine.measure_all({"m": Subject(call, INPUTS)})["m"]
    assert set(got.details["energy"]["methods"]) == {"cpu", "gpu"}
    machine = counted()
    readings = [Reading({"cpu": Component(1.0, "measured", "machine")}, 1.0)] * 100
    readings[2] = Reading({"ram": Component(1.0, "measured", "machine")}, 1.0)
    machine.stop = lambda: readings.pop(0)  # type: ignore[method-assign]
    got = machine.measure_all({"m": machine.model()})["m"]
    assert got.notes[0] == "energy: the meter's components changed between windows"
    assert len(got.details["energy"]["windows_mj"]) == 3


def test_a_machine_that_draws_less_under_load_is_reported_as_such() -> None:
    got = counted(idle=2.0, busy=1.0).measure()
    assert got.metrics["energy_inference_mj"] < 0
    assert got.notes == ["energy: inference did not rise above the idle machine"]


def test_a_gpu_s_counter_is_shared_by_the_trainings_on_it() -> None:
    gpu = Reading({"gpu": Component(9.0, "measured", "device", "NVML")}, 2.0)
    assert training_energy(gpu, side_by_side=2).methods == {"energy_train_j": "measured"}  # a GPU each
    assert training_energy(gpu, side_by_side=4, on_device=2).methods == {"energy_train_j": "shared"}


def test_training_energy_is_the_reading() -> None:
    parts = {"cpu": Component(3.0, "measured", "machine", "RAPL"), "ram": Component(0.0, "estimated", "process")}
    got = training_energy(Reading(parts, 2.0))
    assert (got.metrics, got.methods) == ({"energy_train_j": 3.0}, {"energy_train_j": "measured"})
    train = got.details["energy_train"]
    assert train["seconds"] == 2.0
    assert train["components"]["cpu"] == {
        "joules": 3.0,
        "method": "measured",
        "scope": "machine",
        "source": "RAPL",
        "above_idle": False,
    }
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
