"""ExecuTorch: outputs, threads, silence."""

from __future__ import annotations

import sys

import pytest
import torch
from torch import nn

pytest.importorskip("executorch")

from cnnbench_plugins.runtime.executorch import ExecuTorch

pytestmark = pytest.mark.slow  # importing its compiler alone takes seconds


@pytest.mark.parametrize("channels", [1, 3])
def test_outputs_are_the_models(channels, network, context, assert_serves_alike, capfd):
    model = network(channels).to(memory_format=torch.channels_last)
    assert_serves_alike(ExecuTorch(), model, context(channels, threads=2, batch_sizes=(1, 3, 32)))
    portable_lib = sys.modules["executorch.extension.pybindings.portable_lib"]
    assert portable_lib._threadpool_get_thread_count() == 2
    assert capfd.readouterr() == ("", "")
    assert model.stem[0].weight.is_contiguous(memory_format=torch.channels_last), "the model given is not changed"


def test_operators_that_xnnpack_lacks_are_named(context):
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Softsign(), nn.Flatten())
    here = context(1)
    call = ExecuTorch()(model, here)
    assert call.remarks == ()
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Softplus(), nn.Flatten(), nn.CELU())
    (remark,) = ExecuTorch()(model, here).remarks
    assert remark.startswith("not by XNNPACK but by portable kernels: ")
