"""Rules about what comes out: numbers, probabilities, devices."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from cnnbench.seeds import Streams
from cnnbench.testing.reference import batch, builder, procedure
from cnnbench.testing.rule import Broken, Inapplicable, Rule
from cnnbench.testing.use import PLAIN

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cnnbench.testing.subject import Subject

EXTREME = 1e4
"""A logit so large that its exponential is no float."""
CALLED = {
    "augmentation": ("__call__",),
    "loss": ("__call__",),
    "regularizer": ("targets", "penalty", "perturb", "restore", "gradients", "weights"),
}
"""Methods that are called with tensors of the training device, by slot."""


_MOVED = ("Cannot copy out of meta", "cannot be called on meta")
"""What torch says where a tensor was made to be moved or read, which is no mistake."""


def _finite(subject: Subject) -> None:
    for situation in subject.situations():
        for name, tensor in _tensors(subject.use(situation).result):
            if tensor.is_floating_point() and not torch.isfinite(tensor).all():
                raise Broken(f"with {situation} {name} is not finite")


def _tensors(value: Any, name: str = "the result") -> Iterator[tuple[str, torch.Tensor]]:
    """Every tensor in a result, with words for it."""
    if isinstance(value, torch.Tensor | float):
        yield name, torch.as_tensor(value).detach()
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _tensors(item, str(key) if name == "the result" else f"{name}, {key}")
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _tensors(item, name)
    elif is_dataclass(value):
        for field in fields(value):
            yield from _tensors(getattr(value, field.name), field.name)


def _probabilities(subject: Subject) -> None:
    for situation in subject.situations():
        targets = subject.use(situation).result["targets"]
        sums = targets.sum(1)
        if len(sums) and (float(targets.min()) < 0 or float((sums - 1).abs().max()) > 1e-4):
            raise Broken(
                f"with {situation} a target sums to {_furthest(sums):.4g} and the smallest share is "
                f"{float(targets.min()):.4g}"
            )


def _furthest(sums: torch.Tensor) -> float:
    return float(sums[(sums - 1).abs().argmax()])


def _extreme_logits(subject: Subject) -> None:
    signs = torch.eye(PLAIN.classes)[torch.arange(PLAIN.batch) % PLAIN.classes] * 2 - 1
    targets = batch(PLAIN)[1]
    for words, logits in {"right": targets * 2 - 1, "wrong": signs.roll(1, 0)}.items():
        leaf = (logits * EXTREME).requires_grad_()
        value = _lossy(subject)(leaf, targets)
        gradient = torch.autograd.grad(value, leaf, allow_unused=True)[0] if value.requires_grad else None
        for name, found in {"value": value, "gradient": gradient}.items():
            if found is not None and not torch.isfinite(found).all():
                raise Broken(f"its {name} is not finite where logits are +-{EXTREME:g} and {words}")


def _lossy(subject: Subject) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    """The technique as a function of logits and targets."""
    technique = subject.technique()
    if subject.slot == "loss":
        return procedure(subject.registry, PLAIN, loss=technique).loss
    (acts,) = procedure(subject.registry, PLAIN, regularizers=[technique]).regularizers
    if not hasattr(acts, "penalty"):
        raise Inapplicable("it has no penalty")
    model: nn.Module = builder(subject.registry, PLAIN, "plain").model(Streams(0))
    return lambda logits, targets: torch.as_tensor(acts.penalty(model, logits))  # noqa: ARG005


@dataclass(frozen=True)
class _Elsewhere:
    """A technique, some of whose methods make tensors on no device where they do not say which."""

    technique: Any
    methods: tuple[str, ...]

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.technique, name)
        return self._moved(found) if name in self.methods else found

    def __call__(self, *args: Any) -> Any:
        return self._moved(self.technique)(*args)

    def _moved(self, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            with torch.device("meta"):
                return method(*args)

        return call


def _same_device(subject: Subject) -> None:
    elsewhere = _Elsewhere(subject.technique(), CALLED[subject.slot])
    try:
        subject.how.use(subject, elsewhere, subject.how.situations[0], 0)
    except Exception as error:
        if "meta" not in str(error) or any(words in str(error) for words in _MOVED):
            raise Inapplicable("it makes tensors elsewhere first, which only a GPU tells from a mistake") from error
        raise Broken("it makes a tensor on the CPU, whatever device its arguments are on") from error


RULES: tuple[Rule, ...] = (
    Rule(
        "finite",
        "whatever comes out is finite, gradients too",
        "add a small constant where you divide, take roots or logarithms",
        _finite,
        frozenset({"augmentation", "regularizer", "loss", "optimizer", "strategy"}),
    ),
    Rule(
        "probabilities",
        "targets stay class probabilities: no negative share, every row sums to 1",
        "give what one class loses to the others",
        _probabilities,
        frozenset({"augmentation", "regularizer"}),
    ),
    Rule(
        "extreme-logits",
        "value and gradient are finite where logits are very large",
        "use log_softmax and logsumexp, no logarithm of a softmax",
        _extreme_logits,
        frozenset({"loss", "regularizer"}),
    ),
    Rule(
        "same-device",
        "it makes tensors on the device of its arguments",
        "say device=images.device (or that of any argument) wherever a tensor is made",
        _same_device,
        frozenset(CALLED),
    ),
)
