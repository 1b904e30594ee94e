"""Rules for techniques that put modules in place of others."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from torch import nn

from cnnbench.errors import NoEffect, Unsupported, words_of
from cnnbench.seeds import Streams
from cnnbench.surgery import TARGETS, apply_surgery
from cnnbench.testing.compare import difference
from cnnbench.testing.modules import SURGERY
from cnnbench.testing.networks import NETWORKS, network
from cnnbench.testing.rule import Broken, Rule
from cnnbench.testing.use import PLAIN

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from cnnbench.testing.subject import Subject

_KINDS: Mapping[str, Callable[[], Sequence[nn.Module]]] = {
    "norm": lambda: (
        *(nn.BatchNorm2d(8), nn.BatchNorm2d(8, affine=False), nn.BatchNorm2d(8, track_running_stats=False)),
        *(nn.SyncBatchNorm(8), nn.InstanceNorm2d(8), nn.GroupNorm(2, 8), nn.LayerNorm(8), nn.LayerNorm([8, 4, 4])),
    ),
    "activation": lambda: (
        *(nn.ReLU(inplace=True), nn.LeakyReLU(), nn.PReLU(8), nn.GELU("tanh"), nn.Threshold(0.1, 0.0)),
        *(nn.Hardtanh(), nn.Softplus(2.0), nn.RReLU(), nn.Sigmoid()),
    ),
    "pooling": lambda: (
        *(nn.MaxPool2d(3, 2, padding=1, ceil_mode=True), nn.MaxPool2d(2, dilation=2), nn.MaxPool2d((2, 1))),
        *(nn.MaxPool2d(2, return_indices=True), nn.AvgPool2d(2), nn.LPPool2d(2, 2)),
        nn.FractionalMaxPool2d(2, output_ratio=0.5),
        *(nn.AdaptiveAvgPool2d(1), nn.AdaptiveAvgPool2d((2, None)), nn.AdaptiveMaxPool2d(2)),
    ),
    "convolution": lambda: (
        *(
            nn.Conv2d(3, 8, 3),
            nn.Conv2d(8, 8, 1),
            nn.Conv2d(8, 8, 2, stride=2),
            nn.Conv2d(8, 8, (1, 7), padding=(0, 3)),
        ),
        *(nn.Conv2d(8, 8, 3, groups=8, bias=False), nn.Conv2d(6, 9, 3, groups=3), nn.Conv2d(8, 8, 5, padding="same")),
        *(nn.Conv2d(8, 8, 3, dilation=2), nn.Conv2d(8, 8, 3, padding=1, padding_mode="reflect"), _Own(8, 8, 3)),
    ),
}
"""Modules of each slot's kinds that a technique may not have thought of."""


_NETWORKS = tuple(replace(PLAIN, layers=layers) for layers in NETWORKS)


class _Own(nn.Conv2d):
    """A model's own kind of convolution."""


def _every_kind(subject: Subject) -> None:
    technique = subject.technique()
    for module in _drawn(_KINDS[subject.slot]):
        try:
            with Streams(0, "conformance").default_generator("init"):
                made: Any = technique(module)
        except Unsupported as error:
            if not str(error).strip():
                raise Broken(f"given {module} it raises Unsupported and does not say why") from error
            continue
        except Exception as error:
            raise Broken(
                f"given {module} it raises {words_of(error)}; expected a module, the same module to leave it alone, "
                "or Unsupported"
            ) from error
        if not isinstance(made, nn.Module):
            raise Broken(f"given {module} it returns {type(made).__name__}, expected a module")


def _drawn(make: Callable[[], Sequence[nn.Module]]) -> Sequence[nn.Module]:
    with Streams(0, "conformance").default_generator("kinds"):
        return make()


def _others(subject: Subject) -> None:
    for situation in _NETWORKS:
        with Streams(0, "conformance").default_generator("init"):
            plain = network(situation)
            changed = copy.deepcopy(plain)
            try:
                apply_surgery(subject.slot, subject.technique(), changed)
            except (NoEffect, Unsupported):
                continue
        parts = dict(changed.named_modules())
        for path, part in plain.named_modules():
            leaf = next(part.children(), None) is None
            if not leaf or isinstance(part, TARGETS[subject.slot]):
                continue
            now = parts.get(path)
            if type(now) is not type(part) or difference(part, now):
                raise Broken(f"with {situation} it changed {path!r}, {part}, which is no {subject.slot} module")


def _left_alone(subject: Subject) -> None:
    technique = subject.technique()
    for situation in _NETWORKS:
        with Streams(0, "conformance").default_generator("init"):
            for path, old in network(situation).named_modules():
                if not isinstance(old, TARGETS[subject.slot]) or not list(old.parameters()):
                    continue
                try:
                    new = technique(old)
                except Unsupported:
                    continue
                if new is not old and type(new) is type(old) and difference(old, new) is None:
                    raise Broken(f"with {situation} it gives back an equal copy of {path!r}, {old}")


RULES: tuple[Rule, ...] = (
    Rule(
        "every-kind",
        "given a module of any kind that its slot replaces, it returns a module, or raises Unsupported with a reason",
        "return the module itself where there is nothing to change; read sizes with getattr only where they exist",
        _every_kind,
        SURGERY,
    ),
    Rule(
        "others-untouched",
        "modules of other kinds stay as they were",
        "change nothing but what you return; where finish(model) has to, waive this rule with what it changes",
        _others,
        SURGERY,
    ),
    Rule(
        "left-alone",
        "a module that it leaves alone comes back as the same object: the record counts those that were replaced",
        "return the very module, not a copy of it",
        _left_alone,
        SURGERY,
    ),
)
