from __future__ import annotations

import contextlib
import subprocess
import sys
import types

import pytest
import torch

from cnnbench import devices
from cnnbench.devices import NAMES, Device, available, resolve
from cnnbench.errors import UsageError


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


@pytest.mark.gpu
def test_cuda() -> None:
    device = resolve("cuda")
    x = torch.ones(1000, 1000, device=device.torch)
    device.synchronize()
    before = device.reset_memory_peak()
    y = x + x
    assert device.memory_peak() - before == y.untyped_storage().nbytes()
    assert device.describe() == torch.cuda.get_device_name(0)
