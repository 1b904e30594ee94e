"""Each rule of the kit for modules finds the technique that breaks it, and no other rule does."""

from __future__ import annotations

import bad_modules
import pytest
import torch

from cnnbench.artifact import save_model
from cnnbench.elsewhere import _process, outputs_elsewhere
from cnnbench.errors import TrialError
from cnnbench.plugins import PluginHost
from cnnbench.testing import KIT, Finding, check, subject_of
from cnnbench.testing.rules import accounting, modes, numbers, shapes, surgery, trained
from cnnbench.testing.subject import entry_of

RULES = [rule for part in (shapes, modes, numbers, accounting, surgery, trained) for rule in part.RULES]
each_rule = pytest.mark.parametrize("rule", RULES, ids=[rule.name for rule in RULES])


@pytest.fixture(scope="module")
def registry():
    yield PluginHost.discover().registry.copy()
    bad_modules.STOP.set()


@pytest.fixture
def findings(registry, tmp_path):
    def of(rule, rules, **options) -> dict[str, Finding]:
        """What rules find of the technique that is bad by one of them."""
        entry = entry_of(bad_modules.BAD[rule.name][0], registry)
        return {finding.rule.name: finding for finding in check(subject_of(entry, registry, tmp_path, options), rules)}

    return of


def test_every_rule_for_modules_has_its_bad_technique():
    assert bad_modules.BAD.keys() == {rule.name for rule in RULES}
    assert set(RULES) <= set(KIT)


@each_rule
def test_a_bad_technique_breaks_its_rule_alone(rule, findings):
    if rule.name == "onnx":
        pytest.importorskip("onnxruntime")
    found = findings(rule, KIT)
    assert [str(one) for one in found.values() if one.status == "broken" and one.rule != rule] == []
    assert found["usable"].status == "kept"
    assert found[rule.name].status == "broken"
    assert bad_modules.BAD[rule.name][1] in found[rule.name].text
    assert "bad_modules.py" in found[rule.name].place


@each_rule
def test_mended_it_keeps_the_rule(rule, findings):
    if rule.name == "onnx":
        pytest.importorskip("onnxruntime")
    assert [str(one) for one in findings(rule, [rule], mended=True).values() if one.status != "kept"] == []


def test_work_that_leaves_torch_is_found(registry, tmp_path):
    rule = next(rule for rule in RULES if rule.name == "flops-counted")
    entry = entry_of(bad_modules.activation("numpy", bad_modules.Leaving), registry)
    (found,) = check(subject_of(entry, registry, tmp_path), [rule])
    assert "hands numbers to others than torch (torch.Tensor.numpy)" in found.text


def test_a_process_that_ends_is_told_of_and_replaced(tmp_path):
    path = tmp_path / "model.pt"
    save_model(path, torch.nn.Flatten(), torch.nn.Identity())
    outputs_elsewhere(path, torch.ones(1, 2), tmp_path)
    _process().kill()
    _process().wait()
    with pytest.raises(TrialError, match="the process ended"):
        outputs_elsewhere(path, torch.ones(1, 2), tmp_path)
    assert outputs_elsewhere(path, torch.ones(1, 2), tmp_path).tolist() == [[1, 1]]
