"""Slots ``convolution``, ``pooling``, ``norm`` and ``activation``: surgery on tiny reference networks."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from cnnbench.errors import NoEffect, Unsupported
from cnnbench.seeds import Streams
from cnnbench.surgery import apply_surgery, materialize
from cnnbench.testing.networks import NETWORKS, inputs, network, outputs
from cnnbench.testing.use import EMPTY, GRAY, ODD, ONE, PLAIN, Situation, Use

if TYPE_CHECKING:
    from cnnbench.testing.subject import Subject

situations = (
    *(PLAIN, GRAY, ODD, ONE, EMPTY),
    *(replace(PLAIN, layers=layers) for layers in NETWORKS),
)


def use(subject: Subject, technique: Any, situation: Situation, draw: int) -> Use:
    """Operate on a network, as a trial does before its training; on the first that it changes where none is named."""
    refusal: Exception | None = None
    for layers in [situation.layers] if situation.layers else NETWORKS:
        try:
            return _operated(subject.slot, technique, replace(situation, layers=layers), draw)
        except (NoEffect, Unsupported) as error:
            refusal = refusal or error
    assert refusal is not None
    raise refusal


def _operated(slot: str, technique: Any, situation: Situation, draw: int) -> Use:
    streams = Streams(draw, "conformance")
    with streams.default_generator("init"):
        plain = network(situation)
        changed = copy.deepcopy(plain)
        apply_surgery(slot, technique, changed)
    with streams.default_generator("lazy"):
        materialize(changed, (situation.channels, situation.height, situation.width))
    example = inputs(situation)
    with streams.default_generator("forward"):
        result, before = {"logits": outputs(changed, example)}, {"logits": outputs(plain, example)}
    return Use(given={}, before={}, result=result, module=changed, example=example, plain=before)
