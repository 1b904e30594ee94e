"""A third party's plugin whose techniques take liberties with the process that they run in. Installed by its text.

``misbehaving.py`` has those that raise, hang and die.
"""

from __future__ import annotations

import ctypes
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
import warnings
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Literal

import psutil
import torch
from torch import nn

from cnnbench import hookimpl, technique

Liberty = Literal[
    "c_loop",
    "chdir",
    "children",
    "closes",
    "compiled_fault",
    "covers",
    "dtype",
    "ends_parent",
    "environment",
    "flood",
    "forks",
    "hooks_everywhere",
    "ignores_sigterm",
    "inf",
    "late",
    "loop",
    "limits",
    "meta",
    "opens",
    "patches",
    "patches_python",
    "rng",
    "shape",
    "thread",
    "threads",
    "unpicklable_error",
    "warnings",
    "writes",
]


class Unpicklable(Exception):  # noqa: N818
    def __init__(self, *parts):
        super().__init__("can't travel")
        self.held = lambda: None


def spin() -> None:
    while True:
        time.sleep(0.01)


def take(how: str) -> None:
    if how == "loop":
        while True:
            pass
    if how == "c_loop":  # holds the interpreter's lock and never comes back
        ctypes.PyDLL(None).sleep(10**6)
    if how == "ignores_sigterm":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        time.sleep(10**6)
    if how == "compiled_fault":
        ctypes.string_at(0)
    if how == "children":
        code = "import os, time; os.setsid(); open('/proc/self/comm', 'w').write('leftover'); time.sleep(1000)"
        subprocess.Popen([sys.executable, "-c", code])
    if how == "closes":
        os.closerange(3, 50)
    if how == "covers":
        with Path(os.devnull).open("r+b") as nothing:
            for number in range(3, 21):
                if number != nothing.fileno():
                    os.dup2(nothing.fileno(), number)
    if how == "ends_parent":
        parent = psutil.Process(os.getppid())
        if "forkserver" in " ".join(parent.cmdline()):  # and not whoever has taken over an orphan
            parent.kill()
    if how == "limits":
        import resource  # Windows has none

        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    if how == "opens":
        with suppress(OSError):
            while True:
                os.dup(2)
    if how == "forks":
        os.fork()  # both go on
    if how == "flood":
        for _ in range(300):
            os.write(1, b"flood " * 10_000)
            os.write(2, b"err\n" * 10_000)
    if how == "writes":
        Path("notes.txt").write_text("mine")
        Path("folder/in/it").mkdir(parents=True)
    if how == "rng":
        torch.manual_seed(0)
        random.seed(0)
    if how == "dtype":
        torch.set_default_dtype(torch.float64)
    if how == "threads":
        torch.set_num_threads(2)
    if how == "environment":
        os.environ["LIBERTY"] = "taken"
    if how == "chdir":
        os.chdir("/")
    if how == "warnings":
        warnings.simplefilter("error")
    if how == "patches":
        nn.functional.relu = partial(nn.functional.relu)
    if how == "patches_python":
        json.dumps = lambda *_, **__: "{}"
        raise RuntimeError("boom")
    if how == "thread":
        threading.Thread(target=spin, name="spinner").start()
    if how == "hooks_everywhere":
        nn.modules.module.register_module_forward_hook(lambda *_: None)
    if how == "unpicklable_error":
        raise Unpicklable


@technique("augmentation", "takes")
class Takes:
    """Takes a liberty in a training step."""

    how: Liberty
    step: int = 0

    def __call__(self, images, targets, generator):
        object.__setattr__(self, "_steps", getattr(self, "_steps", -1) + 1)
        if self._steps == self.step:
            take(self.how)
            if self.how == "late":
                raise RuntimeError(f"boom in step {self._steps}")
        if self.how == "shape":
            return images[:, :, 0], targets
        if self.how == "meta":
            return images.to("meta"), targets
        return (images * float("inf") if self.how == "inf" else images), targets


@technique("regularizer", "wrong_penalty")
class WrongPenalty:
    """A penalty that is no scalar."""

    def penalty(self, model, logits):
        return logits


@technique("optimizer", "no_optimizer")
class NoOptimizer:
    """Returns what is no optimizer."""

    lr: float = 0.1

    def __call__(self, model):
        return list(model.parameters())


@technique("loss", "no_loss")
class NoLoss:
    """Returns a number where a tensor is due."""

    def __call__(self, logits, targets):
        return 0.5


@technique("norm", "raising")
class Raising:
    """Raises in surgery."""

    def __call__(self, module):
        raise KeyError("no such norm")


@technique("initializer", "hooking")
class Hooking:
    """Leaves a hook on the model."""

    def __call__(self, model, generator):
        model.register_forward_hook(lambda *_: None)


@technique("initializer", "unpicklable")
class UnpicklableModel:
    """Leaves something on the model that can't be saved."""

    def __call__(self, model, generator):
        model.secret = lambda: None


@technique("input", "mutates")
class Mutates:
    """Writes into the dataset's tensors."""

    past: bool = False

    def __call__(self, images):
        (images.numpy() if self.past else images)[:] = 0
        return nn.Identity()


@technique("compressor", "no_model")
class NoModel:
    """Returns what is no model."""

    def __call__(self, model, context):
        return None


@technique("compressor", "nan_weights")
class NanWeights:
    """Breaks the weights."""

    def __call__(self, model, context):
        with torch.no_grad():
            for weight in model.parameters():
                weight.fill_(float("nan"))
        return model


@technique("metric", "exits")
class Exits:
    """Calls sys.exit."""

    def __call__(self, probabilities, labels):
        sys.exit(0)


@technique("dataset", "broken_data")
class BrokenData:
    """Loads nothing."""

    def fingerprint(self):
        return "0"

    def __call__(self):
        raise OSError("the server is away")


@hookimpl
def cnnbench_register_techniques():
    return [
        Takes, WrongPenalty, NoOptimizer, NoLoss, Raising, Hooking, UnpicklableModel, Mutates, NoModel, NanWeights,
    ]  # fmt: skip


@hookimpl
def cnnbench_register_metrics():
    return [Exits]


@hookimpl
def cnnbench_register_datasets():
    return [BrokenData]


@hookimpl
def cnnbench_trial_finished(record):
    sys.exit(5)


@hookimpl
def cnnbench_describe_environment():
    return 42
