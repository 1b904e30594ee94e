"""Our own techniques that yield modules keep the very rules that others' have to keep.

By default small and quick ones are held to all rules but ``onnx``, which takes seconds and is looked at for a few.
``-m slow`` holds every one to every rule.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import pytest

from cnnbench.plugins import PluginHost
from cnnbench.testing import KIT, check, subject_of
from cnnbench.testing.modules import MODULES, SURGERY

if TYPE_CHECKING:
    from cnnbench.registry import Entry

SLOTS = [*sorted(MODULES), "initializer", "runtime"]
LATER = {
    *("convnext", "densenet", "efficientnet", "mobilenet_v1", "mobilenet_v2", "mobilenet_v3", "shufflenet_v2"),
    *("squeezenet", "timm", "torchvision", "vgg"),
    *("attention_transfer", "binary", "cp", "fitnet", "lottery_ticket", "mixed_precision", "prune_filters"),
    *("prune_gradient", "prune_movement", "prune_n_m", "prune_random", "quantize_dynamic", "quantize_ptq"),
    *("quantize_qat", "rkd", "spatial_svd", "ternary", "tucker2", "weight_sharing"),
    *("compile", "executorch", "openvino", "onnxruntime", "onnxruntime_int8"),
}
"""Models of many layers, compressors that train or export, runtimes that compile: left to ``-m slow``."""
EXPORTED = {"prelu", "group", "fold_bn"}
"""Held to ``onnx`` by default."""
OPTIONS = {"import": {"target": "bad_modules:make"}}
REGISTRY = PluginHost.discover().registry
ENTRIES = [REGISTRY.get(slot, name) for slot in SLOTS for name in REGISTRY.names(slot)]
QUICK = [entry for entry in ENTRIES if entry.card.name not in LATER or entry.card.slot in SURGERY]


def hold(entry: Entry, folder, rules) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of libraries that a technique leans on
        found = list(check(subject_of(entry, REGISTRY, folder, OPTIONS.get(entry.card.name)), rules))
    assert [str(finding) for finding in found if finding.status == "broken"] == []
    assert any(finding.status in {"kept", "not checked", "not applicable"} for finding in found)


def _named(entry: Entry) -> str:
    return f"{entry.card.slot}-{entry.card.name}"


@pytest.mark.parametrize(
    "entry", [e for e in ENTRIES if e.card.name not in LATER or e.card.slot in SURGERY], ids=_named
)
def test_each_technique_of_ours_keeps_the_rules(entry, tmp_path):
    hold(entry, tmp_path, [rule for rule in KIT if rule.name != "onnx" or entry.card.name in EXPORTED])


@pytest.mark.slow
@pytest.mark.parametrize("entry", ENTRIES, ids=_named)
def test_each_technique_of_ours_keeps_every_rule(entry, tmp_path):
    hold(entry, tmp_path, KIT)
