"""Asks a freshly built network for logits, so that a misfit shows before training starts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cnnbench.errors import Unsupported
from cnnbench.lazy import torch

if TYPE_CHECKING:
    from cnnbench.lazy import nn


def check_logits(model: nn.Module, image_shape: tuple[int, int, int], num_classes: int, name: str) -> None:
    """Run two blank images through ``model`` (in eval mode; its mode and torch's generator stay as they were).

    Raises:
        Unsupported: it can't take images of this shape, or returns something else than logits [N, K].
    """
    channels, height, width = image_shape
    what = f"{channels} x {height} x {width} images"
    training = model.training
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            logits = model.eval()(torch.zeros(2, *image_shape))
    except (RuntimeError, ValueError, TypeError, AssertionError, IndexError, AttributeError) as error:
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise Unsupported(f"{name} can't take {what}: {reason}") from error
    finally:
        model.train(training)
    if not isinstance(logits, torch.Tensor):
        raise Unsupported(f"{name} should return logits [N, {num_classes}] as one tensor, not {type(logits).__name__}")
    if tuple(logits.shape) != (2, num_classes):
        raise Unsupported(f"{name} should return logits [2, {num_classes}] for 2 {what}, not {list(logits.shape)}")
