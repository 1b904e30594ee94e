"""Rules for what comes before and after training: initializers, inputs, compressors and runtimes."""

from __future__ import annotations

import threading
import warnings
from typing import TYPE_CHECKING

import torch

from cnnbench.seeds import Streams
from cnnbench.stages.profile import profile
from cnnbench.stages.serve import ROUNDING
from cnnbench.testing.compare import copied, difference
from cnnbench.testing.modules import during, plainest
from cnnbench.testing.networks import images, inputs, outputs
from cnnbench.testing.rule import Broken, Rule
from cnnbench.testing.uses.compressor import builder_for, trained
from cnnbench.testing.uses.initializer import fill, fresh_network
from cnnbench.testing.uses.runtime import served

if TYPE_CHECKING:
    from cnnbench.testing.subject import Subject


def _in_place(subject: Subject) -> None:
    situation = subject.how.situations[0]
    model = fresh_network(situation)
    before = {name: (p, p.requires_grad) for name, p in model.named_parameters()}
    buffers = copied(dict(model.named_buffers()))
    modes = {path: module.training for path, module in model.named_modules()}
    fill(subject.technique(), model, inputs(situation), draw=0)
    after = dict(model.named_parameters())
    if before.keys() != after.keys():
        raise Broken(f"parameter {sorted(before.keys() ^ after.keys())[0]!r} is there before or afterwards, not both")
    for name, (parameter, wanted) in before.items():
        now = after[name]
        if now is not parameter:
            raise Broken(f"parameter {name!r} is another object afterwards: who holds the old one trains that")
        if now.requires_grad is not wanted or now.grad is not None:
            raise Broken(f"parameter {name!r} has another requires_grad afterwards, or a gradient")
        if not bool(torch.isfinite(now).all()):
            raise Broken(f"parameter {name!r} is not finite afterwards")
    if found := difference(buffers, dict(model.named_buffers()), at="the buffers"):
        raise Broken(f"running statistics and other buffers are changed: {found}")
    changed = [path for path, module in model.named_modules() if module.training is not modes.get(path)]
    if changed:
        raise Broken(f"the mode of {changed[0] or 'the model itself'!r} is changed")
    if any(module._forward_hooks or module._forward_pre_hooks for module in model.modules()):  # noqa: SLF001
        raise Broken("it leaves a hook on the model")


def _fixed(subject: Subject) -> None:
    module, _ = plainest(subject)
    wanting = [name for name, p in module.named_parameters() if p.requires_grad]
    if wanting:
        raise Broken(f"parameter {wanting[0]!r} of the fitted module wants gradients, and no optimizer is given it")


def _constant(subject: Subject) -> None:
    situation = subject.how.situations[0]
    varied = images(situation)
    for what, fitted in (
        ("images of one value", torch.full_like(varied, 128)),
        ("black images", torch.zeros_like(varied)),
        ("images with a constant channel", torch.cat([torch.full_like(varied[:, :1], 7), varied[:, 1:]], 1)),
    ):
        with during(f"fitted to {what}"):
            module = subject.technique()(fitted).eval()
            for seen in (fitted, varied):
                if not bool(torch.isfinite(outputs(module, seen.float() / 255)).all()):
                    raise Broken(f"fitted to {what} it gives values that are not finite")


def _cheaper(subject: Subject) -> None:
    situation = subject.how.situations[0]
    module, x = plainest(subject)
    before = profile(trained(builder_for(subject.registry, situation), Streams(0, "conformance")), x).metrics
    after = profile(module, x).metrics
    if not any(after.get(name, before[name]) < before[name] for name in before):
        raise Broken(
            "neither parameters, multiply-adds nor sizes become less: "
            + ", ".join(f"{name} {before[name]:g} to {after[name]:g}" for name in before if name in after)
        )


def _agrees(subject: Subject) -> None:
    exact = bool(getattr(subject.entry.cls, "exact", True))
    for situation in subject.how.situations:
        use = subject.use(situation)
        for size, expected in use.plain.items():
            found = use.result[size]
            if not isinstance(found, torch.Tensor) or found.shape != expected.shape:
                came = list(found.shape) if isinstance(found, torch.Tensor) else type(found).__name__
                raise Broken(f"for a batch of {size} it gives {came}, expected logits {list(expected.shape)}")
            found = found.float().cpu()
            if not bool(torch.isfinite(found).all()):
                raise Broken(f"for a batch of {size} its logits are not finite")
            if exact and (differs := difference(found, expected.cpu(), within=ROUNDING, at="the output")):
                raise Broken(
                    f"for a batch of {size}, {differs}; a runtime that rounds says exact: ClassVar[bool] = False"
                )


def _closes(subject: Subject) -> None:
    before = set(threading.enumerate())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the libraries that runtimes lean on
        with served(subject, subject.technique(), subject.how.situations[0], 0) as ready:
            with torch.no_grad():
                ready.call(ready.inputs[:1])
            for when in ("", " a second time"):
                with during(f"closed{when}"):
                    getattr(ready.call, "close", lambda: None)()
            left = [thread for thread in set(threading.enumerate()) - before if thread.is_alive()]
    if left:
        raise Broken(f"closed, it leaves the thread {left[0].name!r} running")


RULES: tuple[Rule, ...] = (
    Rule(
        "weights-in-place",
        "it sets the values of the model's parameters, finite ones, and leaves all else of the model as it is",
        "use p.copy_(...), p.normal_(generator=generator) and so on under torch.no_grad(); remove hooks in a finally",
        _in_place,
        frozenset({"initializer"}),
    ),
    Rule(
        "input-fixed",
        "the fitted module has no parameter that wants gradients",
        "keep what was fitted with self.register_buffer(...)",
        _fixed,
        frozenset({"input"}),
    ),
    Rule(
        "constant-images",
        "fitted to images without any variation, it still gives finite values",
        "keep quotients away from 0: std.clamp(min=...)",
        _constant,
        frozenset({"input"}),
    ),
    Rule(
        "cheaper",
        "the compressed network has fewer parameters, non-zero parameters, multiply-adds or bytes than before",
        "let it carry deployed_bytes where its format has no packed storage here; give an example that compresses more",
        _cheaper,
        frozenset({"compressor"}),
    ),
    Rule(
        "agrees",
        "for every batch size that it was prepared for it gives the model's logits, as exactly as it says",
        "set the model to eval mode; where it rounds, exact: ClassVar[bool] = False",
        _agrees,
        frozenset({"runtime"}),
    ),
    Rule(
        "closes",
        "close() may be called twice and leaves no thread running",
        "end pools and sessions in close(), and let a second call do nothing",
        _closes,
        frozenset({"runtime"}),
    ),
)
