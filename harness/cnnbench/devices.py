"""cpu, cuda, mps, xla and tpu behind one small adapter.

A TPU is driven by torch_tpu where that is installed, else by torch_xla.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cnnbench import xla
from cnnbench.environment import cpu_model, nvidia_driver, usable_cores
from cnnbench.errors import Unsupported, UsageError
from cnnbench.lazy import torch
from cnnbench.registry import nearest

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

NAMES = ("auto", "cpu", "cuda", "mps", "tpu", "xla")
"""What a suite may name; ``cuda:1`` names one of several."""


@dataclass(frozen=True)
class Device:
    """Where a stage computes.

    Attributes:
        kind: ``cpu``, ``cuda``, ``mps``, ``xla`` or ``tpu``.
        index: which of several, on ``cuda``.
    """

    kind: str
    index: int | None = None

    def __str__(self) -> str:
        return self.kind if self.index is None else f"{self.kind}:{self.index}"

    @property
    def torch(self) -> torch.device:
        """What tensors and modules are moved to."""
        return torch.device("xla" if self._by_xla else str(self))

    @property
    def _by_xla(self) -> bool:
        return self.kind == "xla" or (self.kind == "tpu" and not _tpu_of_torch())

    @property
    def draws(self) -> str:
        """Device of the generators that draws on this device are made with."""
        return "cpu" if self._by_xla else str(self.torch)

    def synchronize(self) -> None:
        """Wait until the work queued on the device is done; at once on the CPU.

        On xla work counts only while its outputs are held: what nobody holds is not computed.
        """
        if self.kind == "cuda":
            torch.cuda.synchronize(self.torch)
        elif self.kind == "mps":
            torch.mps.synchronize()
        elif self._by_xla:
            xla.finish()
        elif self.kind == "tpu":
            torch.accelerator.synchronize()

    def flush(self) -> None:
        """Give the device what has been asked for so far, and wait for nothing: at the end of each step of a loop.

        A lazy device, xla, would else gather all steps into one graph. It compiles each new graph, and to take a part
        of a tensor from place 64 is not the graph that takes it from place 0: parts that a loop goes through are made
        and flushed before it.
        """
        if self._by_xla:
            xla.run_graph()

    def autocast(self, precision: str) -> AbstractContextManager[object]:
        """The context to compute the forward pass in.

        Args:
            precision: ``fp32`` (no autocast) or ``bf16``.

        Raises:
            UsageError: any other precision.
            Unsupported: the device has no such numbers.
        """
        if precision == "fp32":
            return contextlib.nullcontext()
        if precision == "bf16":
            try:
                return torch.autocast(self.torch.type, dtype=torch.bfloat16)
            except RuntimeError as error:
                raise Unsupported(f"recipe.precision: {self.describe()} has no bf16") from error
        raise UsageError(f"recipe.precision: expected 'fp32' or 'bf16', found {precision!r}")

    @property
    def lazy(self) -> bool:
        """Whether a first call is compiled, and nothing is computed before somebody waits for it."""
        return self._by_xla

    def inference(self) -> AbstractContextManager[object]:
        """The context to compute in where no gradients are wanted."""
        # torch_xla fails on tensors made in inference mode: "Cannot set version_counter for inference tensor".
        return torch.no_grad() if self._by_xla else torch.inference_mode()

    def describe(self) -> str:
        """Model of the processor, for people."""
        if self.kind == "cuda":
            return torch.cuda.get_device_name(self.torch)
        if self._by_xla:
            return f"{xla.hardware()} through torch_xla"
        if self.kind == "tpu":
            return str(torch.get_device_module("tpu").get_device_name())
        return f"{cpu_model()} GPU" if self.kind == "mps" else cpu_model()

    @property
    def channels_last_helps(self) -> bool:
        """Whether small fp32 convolutions train faster in channels-last memory format here.

        A rule, not a timing: a layout that depended on how busy the machine is would change the weights' last bits from
        one run to the next. oneDNN on x86 with AVX-512 trains small CNNs (also grouped ones) 1.1 to 1.5 times as fast
        in channels-last; with instance norm it is slower, which a recipe can say. Elsewhere the rule claims nothing.
        """
        return (
            self.kind == "cpu"
            and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
            and torch.backends.cpu.get_cpu_capability() == "AVX512"
        )

    @property
    def in_host_memory(self) -> bool:
        """Whether tensors lie in this process's own memory, where the system counts them."""
        return self.kind == "cpu" or (self.kind == "xla" and xla.hardware() == "CPU")

    def memory_allocated(self) -> int | None:
        """Bytes that tensors take on the device now; None where it doesn't tell."""
        if self.kind == "cuda":
            return torch.cuda.memory_allocated(self.torch)
        return torch.mps.current_allocated_memory() if self.kind == "mps" else None

    def memory_free(self) -> int | None:
        """Bytes that tensors may still take; None where it is not known."""
        if self.kind == "cuda":
            held = torch.cuda.memory_reserved(self.torch) - torch.cuda.memory_allocated(self.torch)
            return int(torch.cuda.mem_get_info(self.torch)[0]) + held
        if self.kind == "mps":
            return max(0, torch.mps.recommended_max_memory() - torch.mps.current_allocated_memory())
        if not self.in_host_memory:
            return None
        from cnnbench.host_memory import free_bytes

        return free_bytes()

    def reset_memory_peak(self) -> int | None:
        """Start a new peak; the bytes allocated now, or None where the device keeps no peak."""
        if self.kind != "cuda":
            return None
        torch.cuda.synchronize(self.torch)
        torch.cuda.reset_peak_memory_stats(self.torch)
        return torch.cuda.memory_allocated(self.torch)

    def memory_peak(self) -> int | None:
        """Most bytes allocated at once since ``reset_memory_peak``, or None where the device keeps no peak."""
        return torch.cuda.max_memory_allocated(self.torch) if self.kind == "cuda" else None

    def facts(self) -> list[str]:
        """What else there is to say of the device, for people: memory, what it can do, the software that drives it."""
        if self.kind == "cuda":
            found = torch.cuda.get_device_properties(self.torch)
            facts = [_gib(found.total_memory), f"compute capability {found.major}.{found.minor}"]
            driver = nvidia_driver()
            return [*facts, f"CUDA {torch.version.cuda}", *([f"driver {driver}"] if driver else [])]
        if self.kind == "mps":
            return [f"{_gib(torch.mps.recommended_max_memory())} at most, shared with the CPU"]
        if self._by_xla:
            return [f"torch_xla {xla.version()}"]
        if self.kind == "tpu":
            return ["through torch_tpu"]
        return [f"{usable_cores()} cores", f"{torch.backends.cpu.get_cpu_capability()} kernels"]


def resolve(name: str) -> Device:
    """The device that a suite or command line names.

    Args:
        name: one of ``NAMES``, or ``cuda:N``. ``auto`` takes the first of cuda, tpu, mps and cpu that is there.

    Raises:
        UsageError: no such name, or no such device on this machine.
    """
    kind, colon, number = name.strip().lower().partition(":")
    if kind not in NAMES or (colon and (kind != "cuda" or not number.isdecimal())):
        hint = "did you mean 'cuda'?" if kind in {"gpu", "nvidia"} else nearest(kind, NAMES)
        raise UsageError(f"device: expected {', '.join(NAMES)} or cuda:N, found {name!r}: {hint}")
    if kind == "cpu":
        return Device("cpu")
    there = available()
    if kind == "auto":
        return next(device for wanted in ("cuda", "tpu", "mps", "cpu") for device in there if device.kind == wanted)
    for device in there:
        if device.kind == kind and (not number or device.index == int(number)):
            return device
    raise UsageError(f"device {name!r}: not on this machine, which has {', '.join(map(str, there))}{_missing(kind)}")


def available() -> list[Device]:
    """Every device that torch can reach on this machine."""
    there = [Device("cpu")]
    there += [Device("cuda", index) for index in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        there.append(Device("mps"))
    hardware = xla.hardware()
    if hardware:
        there.append(Device("xla"))
    if hardware == "TPU" or (_tpu_of_torch() and torch.accelerator.is_available()):
        there.append(Device("tpu"))
    return there


def side_by_side(name: str) -> tuple[list[Device], list[Device]]:
    """GPUs that trials may run on side by side, one a GPU, and those that are left out.

    Results of one table come from one model of GPU: others than the first one's are left out.

    Args:
        name: as the suite names the device: ``cuda``, or ``auto`` where that is CUDA, means all; ``cuda:N`` that alone.
    """
    first = resolve(name)
    if first.kind != "cuda" or ":" in name:
        return [first], []
    there = [device for device in available() if device.kind == "cuda"]
    alike = [device for device in there if device.describe() == first.describe()]
    return alike, [device for device in there if device not in alike]


def visible_as(device: Device) -> str:
    """How ``CUDA_VISIBLE_DEVICES`` names a GPU for a process that shall see it alone, and call it ``cuda:0``."""
    index = device.index or 0
    seen = [entry.strip() for entry in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if entry.strip()]
    return seen[index] if index < len(seen) else str(index)


def absent() -> dict[str, str]:
    """Kinds of devices that are not here, with the reason as far as it is known."""
    there = {device.kind for device in available()}
    kinds = [name for name in NAMES if name != "auto" and name not in there]
    return {kind: _missing(kind).strip(" ()") for kind in kinds}


def _missing(kind: str) -> str:
    """Why a kind may be absent, in brackets, where a package or a driver is the likely reason."""
    if kind in {"xla", "tpu"} and importlib.util.find_spec("torch_xla") is None:
        return " (torch_xla is not installed)"
    if kind == "cuda" and torch.version.cuda is None and torch.version.hip is None:
        return " (this torch is built without CUDA)"
    if kind == "cuda":
        return f" (this torch is built for CUDA {torch.version.cuda or torch.version.hip}, and no driver answers)"
    return ""


def _tpu_of_torch() -> bool:
    """Whether torch_tpu is installed and has found a TPU: it then is a device of torch's own, without torch_xla."""
    found = torch.accelerator.current_accelerator()
    return found is not None and found.type == "tpu"


def _gib(count: int) -> str:
    return f"{count / 2**30:.1f} GiB"
