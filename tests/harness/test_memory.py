from __future__ import annotations

import mmap
import threading
from pathlib import Path

import pytest

from cnnbench.devices import Device
from cnnbench.stages.memory import MIB, PeakMemory

CPU = Device("cpu")
SIZE = 64 * MIB


def _touch() -> None:
    """Use 64 MiB that go straight back to the system."""
    with mmap.mmap(-1, SIZE) as pages:
        for offset in range(0, SIZE, 4096):
            pages[offset] = 1


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="Linux keeps the peak there")
def test_a_peak_that_is_gone_again_is_seen() -> None:
    with PeakMemory(CPU) as memory:
        _touch()
    assert memory.method in {"resident peak", "resident sampled"}
    assert 60 <= memory.peak_mib <= 100


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="Linux keeps the peak there")
def test_an_earlier_peak_does_not_count() -> None:
    _touch()
    with PeakMemory(CPU) as memory:
        pass
    assert 0 <= memory.peak_mib < 30


def test_where_the_peak_cannot_be_reset_a_thread_samples(tmp_path) -> None:
    before = threading.active_count()
    with PeakMemory(CPU, proc=tmp_path / "absent") as memory:
        assert threading.active_count() == before + 1
        with mmap.mmap(-1, SIZE) as pages:
            for offset in range(0, SIZE, 4096):
                pages[offset] = 1
            threading.Event().wait(0.1)
    assert memory.method == "resident sampled"
    assert threading.active_count() == before
    assert 60 <= memory.peak_mib <= 100


def test_the_peak_is_read_when_the_work_raises(tmp_path) -> None:
    before = threading.active_count()
    memory = PeakMemory(CPU, proc=tmp_path / "absent")
    with pytest.raises(ValueError, match="work"), memory:
        raise ValueError("work")
    assert memory.peak_mib is not None
    assert threading.active_count() == before


def test_a_system_without_the_field_is_sampled(tmp_path) -> None:
    (tmp_path / "clear_refs").write_text("")
    (tmp_path / "status").write_text("Name:\tpython\nVmRSS:\t 1 kB\n")
    with PeakMemory(CPU, proc=tmp_path) as memory:
        pass
    assert memory.method == "resident sampled"


def test_the_systems_own_figure_is_used(tmp_path) -> None:
    (tmp_path / "clear_refs").write_text("")
    (tmp_path / "status").write_text("Name:\tpython\nVmHWM:\t 9999999 kB\n")
    memory = PeakMemory(CPU, proc=tmp_path)
    with memory:
        assert (tmp_path / "clear_refs").read_text() == "5"
        resident = memory._before
    assert memory.method == "resident peak"
    assert memory.peak_mib == pytest.approx((9999999 * 1024 - resident) / MIB)


class _Allocator(Device):
    """A device with allocator statistics."""

    def reset_memory_peak(self) -> int:
        return 10 * MIB

    def memory_peak(self) -> int:
        return 35 * MIB


def test_cuda_uses_the_allocators_statistics() -> None:
    with PeakMemory(_Allocator("cuda", 0)) as memory:
        assert memory.peak_mib is None
    assert (memory.method, memory.peak_mib) == ("allocator", 25)


def test_nothing_is_claimed_for_a_tpu() -> None:
    with PeakMemory(Device("tpu")) as memory:
        pass
    assert (memory.method, memory.peak_mib) == ("unknown", None)


@pytest.mark.gpu
def test_a_cuda_peak_is_what_was_allocated() -> None:
    import torch

    with PeakMemory(Device("cuda", 0)) as memory:
        block = torch.zeros(SIZE, dtype=torch.uint8, device="cuda:0")
        del block
    assert memory.peak_mib == 64
