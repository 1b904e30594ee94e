"""What ``doctor`` says of energy, on fake machines."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from cnnbench import nvml
from cnnbench.devices import Device
from cnnbench.meters import survey as module
from cnnbench.meters.counters import CounterFault
from cnnbench.meters.survey import survey

if TYPE_CHECKING:
    from pathlib import Path

LAST = "an estimate knows nothing beyond time; tables mark it est."


@pytest.fixture
def powercap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package with its DRAM; counters move unless their label is in ``still``."""
    for folder, name in (("intel-rapl:0", "package-0"), ("intel-rapl:0:0", "dram")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "name").write_text(name)
        (tmp_path / folder / "energy_uj").write_text("1")
    monkeypatch.setattr(module, "available", lambda: [Device("cpu")])
    monkeypatch.setattr(module, "update_interval", lambda _counter: 0.001)
    return tmp_path


def test_all_is_measured(powercap: Path) -> None:
    assert survey(powercap) == [
        "CPU: measured by RAPL (package-0), of the whole machine",
        "RAM: measured by RAPL (dram of package-0), of the whole machine",
        LAST,
    ]


def test_a_package_without_dram(powercap: Path) -> None:
    (powercap / "intel-rapl:0:0" / "name").write_text("core")
    assert survey(powercap)[1].startswith("RAM: RAPL counts none here; left out")


def test_the_platform_is_both(powercap: Path) -> None:
    (powercap / "intel-rapl:0" / "name").write_text("psys")
    assert survey(powercap)[:-1] == ["CPU and RAM: measured by RAPL (psys), of the whole machine"]


def test_counters_that_may_not_be_read_and_what_to_do(powercap: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)
    first, now, for_good, warning, *_ = survey(powercap)
    assert "may not read them; estimated" in first
    assert now == f"  until the next start: sudo chmod a+r {powercap}/intel-rapl*:*/energy_uj"
    assert "sudo tee /etc/udev/rules.d/70-rapl.rules" in for_good
    assert 'SUBSYSTEM=="powercap"' in for_good
    assert "CVE-2020-8694" in warning


def test_a_counter_that_stands_still(powercap: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interval(counter) -> float:
        raise CounterFault(counter, "stands still", lasting=True)

    monkeypatch.setattr(module, "update_interval", interval)
    assert survey(powercap) == [
        "CPU: RAPL's counter package-0 stands still; estimated as power x time",
        "RAM: RAPL's counter dram of package-0 stands still; left out",
        LAST,
    ]


@pytest.mark.parametrize(
    ("system", "expected"),
    [("Linux", "no RAPL counters here"), ("Windows", "Windows 11"), ("Darwin", "no counters that can be read")],
)
def test_no_counters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, system: str, expected: str) -> None:
    monkeypatch.setattr(module.platform, "system", lambda: system)
    monkeypatch.setattr(module, "available", lambda: [Device("cpu")])
    cpu, ram, last = survey(tmp_path)
    assert expected in cpu
    assert cpu.startswith("CPU: ")
    assert cpu.endswith("estimated as power x time")
    assert (ram, last) == ("RAM: estimated with the CPU", LAST)


class Gpu:
    def __init__(self, joules: float | None) -> None:
        self.joules = joules

    def energy_joules(self) -> float | None:
        return self.joules


def test_each_gpu_has_its_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gpus = {"cuda:0": Gpu(3.0), "cuda:1": Gpu(None), "cuda:2": None}
    monkeypatch.setattr(
        module, "available", lambda: [Device("cpu"), *(Device("cuda", i) for i in range(3)), Device("mps")]
    )
    monkeypatch.setattr(nvml, "find", lambda device: gpus[str(device)])
    lines = survey(tmp_path)[2:-1]
    assert [line.partition(": ")[0] for line in lines] == ["cuda:0", "cuda:1", "cuda:2", "mps"]
    assert "measured by NVML" in lines[0]
    assert "no energy counter" in lines[1]
    assert "does not answer" in lines[2]
    assert "powermetrics" in lines[3]
