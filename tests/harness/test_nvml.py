"""NVML through a stand-in for pynvml: what is told, what is not, and which GPU is asked."""

from __future__ import annotations

import sys
import types

import pytest

from cnnbench.devices import Device
from cnnbench.nvml import GpuState, find, find_by_uuid


class NVMLError(Exception):
    pass


@pytest.fixture
def pynvml(monkeypatch):
    """A machine with one GPU of UUID GPU-abc."""
    module = types.ModuleType("pynvml")
    module.NVML_CLOCK_SM = 1
    module.NVML_TEMPERATURE_GPU = 0
    module.bits = 0

    def by_uuid(uuid):
        if uuid != "GPU-abc":
            raise NVMLError("not found")
        return "handle"

    module.nvmlInit = lambda: None
    module.nvmlDeviceGetHandleByUUID = by_uuid
    module.nvmlDeviceGetClockInfo = lambda handle, kind: {("handle", 1): 1755}[handle, kind]
    module.nvmlDeviceGetTemperature = lambda handle, kind: {("handle", 0): 61}[handle, kind]
    module.nvmlDeviceGetCurrentClocksThrottleReasons = lambda handle: module.bits
    module.nvmlDeviceGetTotalEnergyConsumption = lambda handle: 1_234_567
    monkeypatch.setitem(sys.modules, "pynvml", module)
    return module


def test_the_state_of_a_gpu(pynvml):
    pynvml.bits = 0x1 | 0x2 | 0x4 | 0x40  # idle and the user's own setting are no trouble
    assert find_by_uuid("abc").state() == GpuState(1755, 61, ("power cap", "hardware thermal slowdown"))


def test_the_counter_is_told_in_joules(pynvml):
    assert find_by_uuid("GPU-abc").energy_joules() == pytest.approx(1234.567)


def test_memory_and_whether_several_processes_may_share_it(pynvml):
    pynvml.nvmlDeviceGetMemoryInfo = lambda handle: types.SimpleNamespace(free=3 * 2**30, total=8 * 2**30)
    pynvml.NVML_COMPUTEMODE_DEFAULT = 0
    modes = {"handle": 0}
    pynvml.nvmlDeviceGetComputeMode = lambda handle: modes[handle]
    gpu = find_by_uuid("abc")
    assert gpu.memory_free_mib() == 3 * 1024
    assert gpu.takes_several()
    modes["handle"] = 3  # exclusive process
    assert not gpu.takes_several()
    del pynvml.nvmlDeviceGetMemoryInfo, pynvml.nvmlDeviceGetComputeMode
    assert gpu.memory_free_mib() is None
    assert not gpu.takes_several()


def test_what_a_gpu_does_not_support_is_none(pynvml):
    def unsupported(*args):
        raise NVMLError("not supported")

    for name in ("ClockInfo", "Temperature", "CurrentClocksThrottleReasons", "TotalEnergyConsumption"):
        setattr(pynvml, f"nvmlDeviceGet{name}", unsupported)
    gpu = find_by_uuid("abc")
    assert gpu.state() == GpuState(None, None, None)
    assert gpu.energy_joules() is None


def test_no_throttling_is_told_apart_from_not_knowing(pynvml):
    assert find_by_uuid("abc").state().throttles == ()


def test_a_gpu_is_found_by_its_uuid_and_not_by_its_place(pynvml, monkeypatch):
    properties = types.SimpleNamespace(uuid="abc")
    monkeypatch.setattr("torch.cuda.get_device_properties", lambda device: properties)
    assert find(Device("cuda", 3)).state().clock_mhz == 1755
    properties.uuid = "another"
    assert find(Device("cuda", 3)) is None


def test_there_is_none_for_other_devices(pynvml):
    assert find(Device("cpu")) is None


def test_there_is_none_without_the_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert find_by_uuid("abc") is None


def test_there_is_none_without_a_driver(pynvml):
    def missing():
        raise NVMLError("library not found")

    pynvml.nvmlInit = missing
    assert find_by_uuid("abc") is None


@pytest.mark.gpu
def test_a_real_gpu_answers():
    import torch

    gpu = find(Device("cuda", 0))
    before = gpu.energy_joules()
    torch.ones(2048, 2048, device="cuda:0").matmul(torch.ones(2048, 2048, device="cuda:0")).sum().item()
    state = gpu.state()
    assert 100 < state.clock_mhz < 10_000
    assert 0 < state.temperature_c < 120
    assert gpu.energy_joules() >= before > 0
