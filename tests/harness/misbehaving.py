"""A third party's plugin whose techniques do everything that a technique must not do. Installed by its text.

``MISBEHAVING_CURED`` in the environment makes all of them behave, as if someone had mended what they ran on.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from typing import Literal

from torch.hub import tqdm

from cnnbench import hookimpl, technique

Fault = Literal["raise", "nan", "exit", "kill", "segv", "sleep", "sys_exit", "interrupt", "returns_none", "unprintable"]


class Unprintable(Exception):  # noqa: N818
    def __str__(self) -> str:
        raise RuntimeError("no text either")


def misbehave(how: str) -> None:
    if how == "raise":
        raise RuntimeError("boom\nin the step")
    if how == "exit":
        os._exit(7)
    if how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "segv":
        os.kill(os.getpid(), signal.SIGSEGV)
    if how == "sleep":
        time.sleep(10**6)
    if how == "sys_exit":
        sys.exit(3)
    if how == "interrupt":
        raise KeyboardInterrupt
    if how == "unprintable":
        raise Unprintable


@technique("augmentation", "bad_step")
class BadStep:
    """Misbehaves in a training step."""

    how: Fault

    def __call__(self, images, targets, generator):
        print("A technique speaks.", flush=True)
        list(tqdm([], disable=True))
        if "MISBEHAVING_CURED" in os.environ:
            return images, targets
        misbehave(self.how)
        if self.how == "nan":
            return images * float("nan"), targets
        return None if self.how == "returns_none" else (images, targets)


@technique("initializer", "bad_build")
class BadBuild:
    """Misbehaves when the model is built."""

    def __call__(self, model, generator):
        if "MISBEHAVING_CURED" not in os.environ:
            raise ValueError("no such weights")


@technique("activation", "changes_nothing")
class ChangesNothing:
    """Leaves every module as it is."""

    def __call__(self, module):
        from torch import nn

        return nn.SiLU() if "MISBEHAVING_CURED" in os.environ else module


@technique("activation", "no_module")
class NoModule:
    """Returns what is no module."""

    def __call__(self, module):
        from torch import nn

        return nn.SELU() if "MISBEHAVING_CURED" in os.environ else 42


@hookimpl
def cnnbench_register_techniques():
    return [BadStep, BadBuild, ChangesNothing, NoModule]
