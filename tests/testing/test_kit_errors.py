"""What the kit says of techniques that raise: the culprit first, an error once, a fix that fits, the right place."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING

import pytest
import torch
from torch import nn

from cnnbench import technique
from cnnbench.errors import NoEffect

if TYPE_CHECKING:
    from cnnbench.testing import Finding

WAIVES = {"onnx": "it takes seconds"}


@technique("norm", "error_default_dtype", waives=WAIVES)
class DefaultDtype:
    """Batch norm again.

    For a reason.
    """

    def __call__(self, module):
        torch.set_default_dtype(torch.float64)
        return nn.BatchNorm2d(getattr(module, "num_features", 8))


@technique("norm", "error_attribute", waives=WAIVES)
class Attribute:
    """Group norm.

    For a reason.
    """

    def __call__(self, module):
        return nn.GroupNorm(2, module.num_features)


@technique("augmentation", "error_idle")
class Idle:
    """Nothing.

    For a reason.
    """

    def __call__(self, images, targets, generator):
        return images, targets


@technique("regularizer", "error_none")
class Nowhere:
    """Acts on nothing.

    For a reason.
    """

    def prepare(self, model, generator):
        raise NoEffect("it has no layer of 99 channels")


@technique("loss", "error_late")
class Late:
    """Cross-entropy that fails where weights have moved.

    For a reason.
    """

    def __call__(self, logits, targets):
        calls = [frame.function for frame in inspect.stack()]
        if "train" in calls:
            raise KeyError("late")
        return -(targets * logits.log_softmax(1)).sum(1).mean() * 1.5


@pytest.fixture
def faults(findings):
    def of(cls) -> dict[str, Finding]:
        return {one.rule.name: one for one in findings(cls) if one.status == "broken"}

    return of


def test_what_a_use_changed_is_told_even_where_it_raises_after_it(faults):
    found = faults(DefaultDtype)
    assert next(iter(found)) == "state-as-found"
    assert "it changed torch's default dtype (torch.float32 to torch.float64)" in found["state-as-found"].text
    assert torch.get_default_dtype() is torch.float32


def test_an_error_of_the_techniques_own_is_told_once(findings):
    found = {one.rule.name: one for one in findings(Attribute)}
    assert [name for name, one in found.items() if one.status == "broken"] == ["shapes-kept"]
    assert found["shapes-kept"].fix.startswith("mend the error")
    for name in ("every-kind", "others-untouched", "left-alone"):
        assert found[name].status == "not checked"
        assert found[name].text == "it ends with the error that the rule 'shapes-kept' tells of"


def test_the_place_is_the_line_that_raised_else_the_methods(faults):
    lines, first = inspect.getsourcelines(Attribute)
    raised = first + next(i for i, line in enumerate(lines) if "module.num_features" in line)
    assert faults(Attribute)["shapes-kept"].place.endswith(f"test_kit_errors.py:{raised}")
    method = inspect.getsourcelines(Idle.__call__)[1]
    assert faults(Idle)["effect"].place.endswith(f"test_kit_errors.py:{method}")


def test_the_fix_of_effect_is_of_what_happened(faults):
    assert "let what it computes reach the training" in faults(Idle)["effect"].fix
    late = faults(Late)["effect"]
    assert late.fix.startswith("mend the error")
    assert "KeyError" in late.text
    assert faults(Nowhere).keys() == {"usable"}
