"""Rules about shapes, dtypes and devices."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

from cnnbench.errors import NoEffect, Unsupported, words_of
from cnnbench.testing.compare import difference
from cnnbench.testing.modules import BUILT, MODULES, during, own, plainest
from cnnbench.testing.networks import outputs
from cnnbench.testing.rule import Broken, Inapplicable, NotChecked, Rule

if TYPE_CHECKING:
    from torch import nn

    from cnnbench.testing.subject import Subject

IN_TRAINING = frozenset({"augmentation", "regularizer", "loss"})
"""Slots that are given numbers of a training step and hand others back."""


def _shapes(subject: Subject) -> None:
    for situation in subject.how.situations:
        try:
            use = subject.use(situation)
        except (Unsupported, NoEffect):
            continue
        except Exception as error:
            if situation.layers:
                raise Broken(
                    f"with {situation} it raises {words_of(error)}",
                    "mend the error, or raise Unsupported with a reason for a module that it can't act on",
                ) from error
            continue  # other rules tell of gray images, odd sizes and small batches
        assert use.example is not None
        (found,) = use.result.values()
        wanted = list(use.example.shape) if subject.slot == "input" else [situation.batch, situation.classes]
        if not isinstance(found, torch.Tensor) or list(found.shape) != wanted:
            came = list(found.shape) if isinstance(found, torch.Tensor) else type(found).__name__
            raise Broken(f"with {situation} the module gives {came}, expected a tensor {wanted}")
        if not bool(torch.isfinite(found).all()):
            raise Broken(f"with {situation} what the module gives is not finite")


def _dtypes(subject: Subject) -> None:
    if subject.slot in IN_TRAINING:
        _as_single(subject)
    else:
        _as_moved(subject)


def _as_single(subject: Subject) -> None:
    for situation in subject.situations():
        result = subject.use(situation).result
        for name in ("images", "targets", "penalty", "loss"):  # a loss is with its penalty
            found = result.get(name)
            if isinstance(found, torch.Tensor) and found.dtype is not torch.float32:
                raise Broken(f"with {situation}, all in torch.float32, {name} came out as {found.dtype}")


def _as_moved(subject: Subject) -> None:
    module, x = own(subject)
    odd = [(name, tensor.dtype) for name, tensor in module.named_parameters() if tensor.dtype is not torch.float32]
    if odd:
        raise Broken(f"parameter {odd[0][0]!r} is {odd[0][1]}, expected torch.float32")
    single = outputs(module, x)
    for dtype, within in ((torch.float64, 1e-3), (torch.bfloat16, 0.1)):
        if dtype is torch.bfloat16 and subject.slot == "input":
            continue  # the harness normalizes in float32
        what = f"moved to {dtype} and called with {dtype}"
        with during(what):
            found = outputs(own(subject)[0].to(dtype), x.to(dtype))
        if found.dtype is not dtype:
            raise Broken(f"{what} it gives {found.dtype}")
        if differs := difference(found.double(), single.double(), within=within, at="the output"):
            raise Broken(f"{what} it gives other values than in torch.float32: {differs}")
    if single.dtype is not torch.float32:
        raise Broken(f"called with torch.float32 it gives {single.dtype}")


def _devices(subject: Subject) -> None:
    module, x = own(subject)
    if torch.cuda.is_available():
        with during("on a CUDA device"):
            found = outputs(module.to("cuda"), x.to("cuda"))
    else:
        found = _as_on_gpu(module, x)
    if found.device.type != "cuda":
        raise Broken(f"called with an input on a CUDA device it gives one on {found.device}")


def _as_on_gpu(module: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """A forward pass on a GPU that is not there: torch's fake tensors have devices and shapes, and no numbers.

    Raises:
        Broken: tensors of several devices meet.
        NotChecked: the forward pass looks at numbers, or does what fake tensors can't.
    """
    mode = FakeTensorMode(allow_non_fake_inputs=True)

    def moved(tensor: torch.Tensor) -> torch.Tensor:
        return FakeTensor(mode, tensor.detach().to("meta"), torch.device("cuda:0"))

    try:
        state = {name: moved(t) for name, t in [*module.named_parameters(), *module.named_buffers()]}
        with mode, torch.no_grad():
            found: Any = torch.func.functional_call(module, state, (moved(x),))
    except Exception as error:
        text = words_of(error)
        if "device" in text:
            raise Broken(f"with the module and its input on a CUDA device: {text}") from error
        raise NotChecked(f"without a GPU this can't be told of it ({text:.120})") from error
    if not isinstance(found, torch.Tensor):
        raise Inapplicable("it gives no tensor")
    return found


def _apart(subject: Subject) -> None:
    module, x = plainest(subject)
    whole = outputs(module, x)
    for index in (0, len(x) - 1):
        with during("with a batch of one image in eval mode"):
            alone = outputs(module, x[index : index + 1])
        if found := difference(alone, whole[index : index + 1], within=1e-3, at="the output"):
            raise Broken(f"of one image by itself and of the same in a batch of {len(x)}, {found}")


RULES: tuple[Rule, ...] = (
    Rule(
        "shapes-kept",
        "a network gives finite logits [N, K] and an input its images' shape, on each of the tiny reference networks",
        "take shapes from the module that is replaced and from x.shape; raise Unsupported where that can't be",
        _shapes,
        MODULES,
        waivable=False,
    ),
    Rule(
        "dtypes-kept",
        "parameters are float32; moved to float64 or bfloat16, the module gives that type, and about the same values; "
        "images, targets, penalties and losses stay float32",
        "make tensors with x.new_zeros(...) or dtype=x.dtype; end with .to(x.dtype) where it computes in another type",
        _dtypes,
        BUILT | IN_TRAINING | {"input"},
    ),
    Rule(
        "devices-kept",
        "moved to another device, all of it computes there",
        "register constants with self.register_buffer; make tensors in forward with device=x.device",
        _devices,
        MODULES,
    ),
    Rule(
        "images-apart",
        "in eval mode what the module makes of an image does not depend on the other images of its batch",
        "use running statistics in eval mode, or statistics of each image by itself",
        _apart,
        MODULES,
    ),
)
