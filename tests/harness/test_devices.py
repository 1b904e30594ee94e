from __future__ import annotations

import contextlib
import subprocess
import sys
import types

import pytest
import torch

from cnnbench import devices
from cnnbench.devices import NAMES, Device, absent, available, resolve, side_by_side, visible_as
from cnnbench.errors import Unsupported, UsageError
from cnnbench.here import default_workers, find_place


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch):
    """Builds a machine with the accelerators named."""

    def build(*, cuda: int = 0, mps: bool = False, xla: str = "") -> None:
        monkeypatch.setattr(torch.cuda, "device_count", lambda: cuda)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
        monkeypatch.setattr(devices.xla, "hardware", lambda: xla)

    return build


@pytest.mark.parametrize(
    ("parts", "name", "expected"),
    [
        ({}, "cpu", "cpu"),
        ({}, "auto", "cpu"),
        ({"mps": True}, "auto", "mps"),
        ({"mps": True}, "mps", "mps"),
        ({"cuda": 2, "xla": "TPU", "mps": True}, "auto", "cuda:0"),
        ({"cuda": 2}, "cuda", "cuda:0"),
        ({"cuda": 2}, "CUDA:1", "cuda:1"),
        ({"cuda": 2}, "cpu", "cpu"),
        ({"xla": "TPU"}, "auto", "tpu"),
        ({"xla": "TPU"}, "xla", "xla"),
        ({"xla": "CPU"}, "auto", "cpu"),
        ({"xla": "CPU"}, "xla", "xla"),
    ],
)
def test_names_resolve(machine, parts, name, expected) -> None:
    machine(**parts)
    assert str(resolve(name)) == expected
    assert resolve(str(resolve(name))) == resolve(name)


@pytest.mark.parametrize(
    ("parts", "name", "has"),
    [
        ({}, "cuda", "which has cpu"),
        ({}, "mps", "which has cpu"),
        ({}, "tpu", "which has cpu (torch_xla is not installed)"),
        ({"cuda": 2}, "cuda:2", "which has cpu, cuda:0, cuda:1"),
        ({"xla": "CPU"}, "tpu", "which has cpu, xla"),
    ],
)
def test_an_absent_device_names_what_there_is(machine, parts, name, has) -> None:
    machine(**parts)
    with pytest.raises(UsageError) as caught:
        resolve(name)
    assert str(caught.value).startswith(f"device {name!r}: not on this machine, {has}")


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("gpu", "did you mean 'cuda'?"),
        ("cuba", "did you mean 'cuda'?"),
        ("cuda:x", ""),
        ("cuda:", ""),
        ("cuda:-1", ""),
        ("cpu:0", ""),
        ("", ""),
    ],
)
def test_a_wrong_name_lists_the_right_ones(name, hint) -> None:
    with pytest.raises(UsageError) as caught:
        resolve(name)
    text = str(caught.value)
    assert text.startswith("device: expected auto, cpu, cuda, mps, tpu, xla or cuda:N")
    assert repr(name) in text
    assert hint in text


def test_every_name_is_known() -> None:
    for name in NAMES:
        with contextlib.suppress(UsageError):
            resolve(name)
    assert Device("cpu") in available()


def test_the_cpu_needs_no_torch() -> None:
    code = "import sys; from cnnbench.devices import resolve; resolve('cpu').describe(); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_torch_devices() -> None:
    assert Device("cpu").torch == torch.device("cpu")
    assert Device("cuda", 1).torch == torch.device("cuda:1")
    assert Device("tpu").torch.type == Device("xla").torch.type == "xla"


def test_autocast() -> None:
    a, b = torch.randn(4, 4), torch.randn(4, 4)
    with Device("cpu").autocast("bf16"):
        assert (a @ b).dtype == torch.bfloat16
    with Device("cpu").autocast("fp32"):
        assert (a @ b).dtype == torch.float32
    with pytest.raises(UsageError, match=r"recipe\.precision: expected 'fp32' or 'bf16', found 'fp16'"):
        Device("cpu").autocast("fp16")


def test_the_cpu_keeps_no_memory_statistics_and_waits_for_nothing() -> None:
    cpu = Device("cpu")
    cpu.synchronize()
    assert cpu.reset_memory_peak() is None
    assert cpu.memory_peak() is None


@pytest.mark.parametrize(
    ("kind", "mkldnn", "capability", "expected"),
    [
        ("cpu", True, "AVX512", True),
        ("cpu", True, "AVX2", False),
        ("cpu", False, "AVX512", False),
        ("cuda", True, "AVX512", False),
    ],
)
def test_channels_last_is_a_rule(monkeypatch, kind, mkldnn, capability, expected) -> None:
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: mkldnn)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    assert Device(kind).channels_last_helps is expected


def test_draws_on_xla_are_made_on_the_host() -> None:
    # torch has no generator for XLA devices; its functions take the host's there and move what they drew.
    assert {kind: Device(kind).draws for kind in ("cpu", "cuda", "mps", "xla")} == {
        "cpu": "cpu",
        "cuda": "cuda",
        "mps": "mps",
        "xla": "cpu",
    }
    assert Device("cuda", 1).draws == "cuda:1"


def test_no_gradients_in_inference() -> None:
    weight = torch.ones(2, requires_grad=True)
    for kind in ("cpu", "cuda", "mps", "xla"):
        with Device(kind).inference():
            made = weight * 2
        assert not made.requires_grad
        assert made.is_inference() is (kind != "xla")


def test_xla_is_driven_through_torch_xla(monkeypatch) -> None:
    events = []
    package = types.ModuleType("torch_xla")
    package.sync = lambda: events.append("sync")
    package.__spec__ = types.SimpleNamespace(name="torch_xla")
    core, model = types.ModuleType("torch_xla.core"), types.ModuleType("torch_xla.core.xla_model")
    model.wait_device_ops = lambda: events.append("wait")
    runtime = types.ModuleType("torch_xla.runtime")
    runtime.device_type = lambda: "TPU"
    for module in (package, core, model, runtime):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    found = resolve("tpu")
    found.flush()
    assert events == ["sync"]
    events.clear()
    found.synchronize()
    assert events == ["sync", "wait"]
    assert found.describe() == "TPU through torch_xla"

    def no_accelerator():
        raise RuntimeError("no accelerator")

    runtime.device_type = no_accelerator
    with pytest.raises(UsageError, match="which has cpu"):
        resolve("xla")


GPUS = ("NVIDIA A100", "NVIDIA T4", "NVIDIA A100")


@pytest.fixture
def gpus(machine, monkeypatch: pytest.MonkeyPatch):
    """A machine with three GPUs of two models."""
    machine(cuda=len(GPUS))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: GPUS[torch.device(device).index or 0])
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


@pytest.mark.parametrize(
    ("name", "together", "apart"),
    [
        ("cuda", ["cuda:0", "cuda:2"], ["cuda:1"]),
        ("auto", ["cuda:0", "cuda:2"], ["cuda:1"]),
        ("cuda:1", ["cuda:1"], []),
        ("cpu", ["cpu"], []),
    ],
)
def test_gpus_of_one_model_are_used_side_by_side(gpus, name, together, apart) -> None:
    assert [list(map(str, devices)) for devices in side_by_side(name)] == [together, apart]


@pytest.mark.parametrize(
    ("visible", "expected"), [(None, "2"), ("", "2"), ("4, 5,7", "7"), ("GPU-a,GPU-b,GPU-c", "GPU-c")]
)
def test_a_worker_is_bound_to_what_this_process_calls_its_gpu(monkeypatch, visible, expected) -> None:
    if visible is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert visible_as(Device("cuda", 2)) == expected


def test_a_run_has_a_worker_for_each_gpu_and_tells_what_it_leaves_out(gpus) -> None:
    place = find_place("cuda")
    assert (place.device, place.gpus, default_workers(place)) == ("cuda:0", ("0", "2"), 2)
    assert place.remark == "left out, since cuda:0 is a NVIDIA A100: cuda:1 (NVIDIA T4)"
    alone = find_place("cuda:1")
    assert (alone.device, alone.gpus, alone.remark, default_workers(alone)) == ("cuda:1", (), "", 1)


GPU_MIB = {"cuda:0": 30_000.0, "cuda:1": 9_000.0, "cuda:2": 13_000.0}


@pytest.mark.parametrize(
    ("name", "cores", "free", "expected"),
    [
        ("cuda:0", 16, GPU_MIB, 4),  # never more on one GPU
        ("cuda:1", 16, GPU_MIB, 2),  # as many as have memory
        ("cuda", 16, GPU_MIB, 2 * 3),  # as the fullest of those that are used
        ("cuda", 5, GPU_MIB, 2 * 2),  # a core each
        ("cuda", 1, GPU_MIB, 2),
        ("cuda:0", 16, {"cuda:0": 500.0}, 1),
        ("cuda:0", 16, {"cuda:0": None}, 1),
        ("cuda", 16, {"cuda:0": 30_000.0, "cuda:2": None}, 2),
    ],
)
def test_trials_share_a_gpu_as_far_as_memory_and_cores_go(gpus, monkeypatch, name, cores, free, expected) -> None:
    def find(device):
        return types.SimpleNamespace(memory_free_mib=lambda: free[str(device)], takes_several=lambda: True)

    monkeypatch.setattr("cnnbench.nvml.find", find)
    monkeypatch.setattr("cnnbench.here.os.sched_getaffinity", lambda _: set(range(cores)))
    monkeypatch.setattr("cnnbench.here.free_mib", lambda: 1e6)
    assert default_workers(find_place(name)) == expected


def test_a_gpu_for_one_process_alone_is_not_shared(gpus, monkeypatch) -> None:
    gpu = types.SimpleNamespace(memory_free_mib=lambda: 30_000.0, takes_several=lambda: False)
    monkeypatch.setattr("cnnbench.nvml.find", lambda _: gpu)
    assert default_workers(find_place("cuda:0")) == 1


def test_what_mps_tells(machine, monkeypatch) -> None:
    machine(mps=True)
    monkeypatch.setattr(torch.mps, "current_allocated_memory", lambda: 4096)
    monkeypatch.setattr(torch.mps, "recommended_max_memory", lambda: 2**33)
    waited = []
    monkeypatch.setattr(torch.mps, "synchronize", lambda: waited.append(True))
    mps = resolve("mps")
    mps.synchronize()
    mps.flush()
    assert waited == [True]
    assert (mps.memory_allocated(), mps.reset_memory_peak(), mps.memory_peak()) == (4096, None, None)
    assert not mps.in_host_memory
    assert not mps.lazy
    assert mps.facts() == ["8.0 GiB at most, shared with the CPU"]


def test_a_tpu_by_torch_tpu_is_a_device_of_torchs_own(machine, monkeypatch) -> None:
    machine()
    waited = []
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: types.SimpleNamespace(type="tpu"))
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "synchronize", lambda: waited.append(True))
    monkeypatch.setattr(
        devices.torch, "device", lambda name: name
    )  # torch knows the name once torch_tpu has registered it
    monkeypatch.setattr(
        devices.torch, "get_device_module", lambda _: types.SimpleNamespace(get_device_name=lambda: "TPU v6e")
    )
    tpu = resolve("tpu")
    assert resolve("auto") == tpu
    assert (tpu.torch, tpu.draws, tpu.lazy, tpu.describe()) == ("tpu", "tpu", False, "TPU v6e")
    tpu.flush()
    assert waited == []
    tpu.synchronize()
    assert waited == [True]


def test_a_gpu_tells_its_memory_and_what_drives_it(gpus, monkeypatch) -> None:
    found = types.SimpleNamespace(total_memory=80 * 2**30, major=8, minor=0)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: found)
    monkeypatch.setattr(torch.version, "cuda", "12.8")
    monkeypatch.setattr(devices, "nvidia_driver", lambda: "570.1")
    assert Device("cuda", 0).facts() == ["80.0 GiB", "compute capability 8.0", "CUDA 12.8", "driver 570.1"]


def test_what_is_absent_has_its_reason(machine, monkeypatch) -> None:
    machine()
    monkeypatch.setattr(torch.version, "cuda", "12.8")
    monkeypatch.setattr(devices.importlib.util, "find_spec", lambda name: None)
    assert absent() == {
        "cuda": "this torch is built for CUDA 12.8, and no driver answers",
        "mps": "",
        "tpu": "torch_xla is not installed",
        "xla": "torch_xla is not installed",
    }
    machine(mps=True)
    assert "mps" not in absent()


def test_a_gpu_without_bf16_is_no_fault_of_the_trial(gpus, monkeypatch) -> None:
    def refuse(*given: object, **named: object) -> None:
        raise RuntimeError("Current CUDA Device does not support bfloat16. Please switch dtype to float16.")

    monkeypatch.setattr(devices.torch, "autocast", refuse)
    with pytest.raises(Unsupported, match="NVIDIA T4 has no bf16"):
        Device("cuda", 1).autocast("bf16")


@pytest.mark.gpu
def test_cuda() -> None:
    device = resolve("cuda")
    x = torch.ones(1000, 1000, device=device.torch)
    device.synchronize()
    before = device.reset_memory_peak()
    y = x + x
    assert device.memory_peak() - before == y.untyped_storage().nbytes()
    assert device.describe() == torch.cuda.get_device_name(0)
