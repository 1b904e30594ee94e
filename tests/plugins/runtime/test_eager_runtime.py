"""The eager runtime is the model itself."""

from __future__ import annotations

import torch
from torch import nn

from cnnbench_plugins.runtime.eager import Eager


def test_eager_gives_the_models_outputs_without_a_graph():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.Flatten(), nn.Linear(64, 3))
    inputs = torch.rand(5, 1, 6, 6, generator=torch.Generator().manual_seed(0))
    call = Eager()(model.train(), inputs[:1])
    outputs = call(inputs)
    assert not model.training
    assert outputs.is_inference()
    assert not outputs.requires_grad
    torch.testing.assert_close(outputs, model(inputs).detach())
