"""Rules about training and inference: modes, copies of a module, and what moves between processes."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import torch

from cnnbench.artifact import save_model
from cnnbench.elsewhere import outputs_elsewhere
from cnnbench.errors import TrialError
from cnnbench.testing.compare import copied, difference
from cnnbench.testing.modules import BUILT, MODULES, during, fresh, nothing_drawn, own, plainest, trained_on
from cnnbench.testing.networks import outputs
from cnnbench.testing.rule import Broken, Rule

if TYPE_CHECKING:
    from torch import nn

    from cnnbench.testing.subject import Subject


def _modes(subject: Subject) -> None:
    module, x = own(subject)
    for training, call in ((True, "train()"), (False, "eval()")):
        module.train(training)
        other = [path for path, part in module.named_modules() if part.training is not training]
        if other:
            raise Broken(f"{call} does not reach {other[0] or 'the module itself'!r}: its training flag stays")
    before = copied(module.state_dict())
    with nothing_drawn("in eval mode"):
        first = outputs(module, x)
    if found := difference(outputs(module, x), first, at="the output"):
        raise Broken(f"two forward passes in eval mode differ: {found}")
    if found := difference(before, module.state_dict(), at="the state"):
        raise Broken(f"a forward pass in eval mode changes it: {found}")
    for training in (False, True):
        module.train(training)
        with during(f"in {'training' if training else 'eval'} mode"), torch.no_grad():
            module(x)
        changed = [path for path, part in module.named_modules() if part.training is not training]
        if changed:
            raise Broken(f"a forward pass changes the mode of {changed[0] or 'the module itself'!r}")


def _state_dict(subject: Subject) -> None:
    module, x = plainest(subject)
    # A compressed network's structure hangs on the weights: there another of the same draw, with other numbers.
    other, _ = fresh(subject, draw=0 if subject.slot == "compressor" else 1)
    if subject.slot == "compressor":
        _disturb(other)
    with during("loading its state_dict into a fresh one"):
        other.load_state_dict(copied(module.state_dict()), strict=True)
    if found := difference(outputs(other, x), outputs(module, x), within=1e-5, at="the output"):
        raise Broken(f"a fresh one with its state_dict computes something else: {found}")


def _disturb(module: nn.Module) -> None:
    with torch.no_grad():
        for tensor in (*module.parameters(), *module.buffers()):
            if type(tensor) in (torch.Tensor, torch.nn.Parameter) and tensor.is_floating_point():
                tensor.add_(1)


def _deepcopy(subject: Subject) -> None:
    module, x = _used(subject)
    with during("copied after a forward pass,"):
        twin = copy.deepcopy(module)
    expected = outputs(module, x)
    if found := difference(outputs(twin, x), expected, at="the output"):
        raise Broken(f"its copy computes something else: {found}")
    shared = set(map(id, _tensors(module))) & set(map(id, _tensors(twin)))
    if shared or (set(twin.modules()) & set(module.modules())):
        raise Broken("its copy shares parameters, buffers or modules with it: to train one would change the other")
    _disturb(twin)
    if found := difference(outputs(module, x), expected, at="the output"):
        raise Broken(f"its copy shares memory with it: to change the copy changes the original, {found}")


def _transfer(subject: Subject) -> None:
    module, x = _used(subject)
    expected = outputs(module, x)
    path = subject.folder / "conformance.pt"
    try:
        save_model(path, module, torch.nn.Identity())
    except TrialError as error:
        raise Broken(str(error)) from error
    with during("read in another process,"):
        found = outputs_elsewhere(path, x, subject.folder)
    if differs := difference(found, expected, within=1e-5, at="the output"):
        raise Broken(f"read in another process it computes something else: {differs}")


def _used(subject: Subject) -> tuple[nn.Module, torch.Tensor]:
    """A new one that has seen a training step, in eval mode again: what it remembers of that moves with it."""
    module, x = fresh(subject)
    if subject.slot in BUILT:
        trained_on(module, x)
    else:
        outputs(module, x)
    module.zero_grad(set_to_none=True)
    return module.eval(), x


def _tensors(module: nn.Module) -> list[torch.Tensor]:
    return [*module.parameters(), *module.buffers()]


RULES: tuple[Rule, ...] = (
    Rule(
        "train-and-eval",
        "train() and eval() reach every part; in eval mode the module draws and changes nothing, and repeats itself",
        "ask self.training in forward and never set it; keep submodules as attributes or in nn.ModuleList",
        _modes,
        MODULES,
    ),
    Rule(
        "state-dict",
        "a fresh module that loads the state_dict, strictly, computes the same",
        "keep every tensor that matters as nn.Parameter or register_buffer(...) with persistent=True",
        _state_dict,
        MODULES,
    ),
    Rule(
        "deepcopy",
        "copy.deepcopy gives a module of its own that computes the same, after a forward pass too",
        "keep no intermediate tensors as attributes (detach them, or use local names), no locks, files or generators",
        _deepcopy,
        MODULES,
    ),
    Rule(
        "process-transfer",
        "saved as between two stages and read in a freshly started process, the module computes the same",
        "define classes at the top level of an importable module; keep no lambda, local function, hook or open file",
        _transfer,
        MODULES,
    ),
)
