"""The eager runtimes are the model itself, in one memory layout or the other."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from cnnbench_plugins.runtime.eager import ChannelsLast, Eager


@pytest.mark.parametrize("runtime", [Eager(), ChannelsLast()])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("trained_in", [torch.contiguous_format, torch.channels_last])
def test_outputs_are_the_models(runtime, channels, trained_in, network, context, assert_serves_alike):
    assert_serves_alike(runtime, network(channels).to(memory_format=trained_in), context(channels))


def test_calls_are_in_eval_mode_and_keep_no_graph(network, context):
    model = network(1)
    here = context(1)
    call = Eager()(model.train(), here)
    outputs = call(here.example)
    assert not model.training
    assert outputs.is_inference()
    assert not outputs.requires_grad


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("trained_in", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(
    ("runtime", "layout"), [(Eager(), torch.contiguous_format), (ChannelsLast(), torch.channels_last)]
)
def test_each_keeps_to_its_layout_whatever_the_training_left(runtime, layout, channels, trained_in, network, context):
    model = network(channels).to(memory_format=trained_in)
    here = context(channels)
    seen = {}
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(lambda module, args, output, name=name: seen.update({name: output}))
    runtime(model, here)(here.images[:3])
    large = [output for output in seen.values() if min(output.shape[1:]) > 1]  # else one memory is both layouts
    assert len(large) >= 3
    assert all(output.is_contiguous(memory_format=layout) for output in large)
