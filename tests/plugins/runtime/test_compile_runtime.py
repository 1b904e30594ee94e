"""torch.compile as a runtime: outputs, frozen weights, no limit on the number of models, a cold cache."""

from __future__ import annotations

import os

import pytest
import torch
from torch import nn

from cnnbench.errors import Unsupported
from cnnbench_plugins.compressor._int8 import cpp_compiler
from cnnbench_plugins.runtime.compile import Compile

needs_compiler = pytest.mark.skipif(cpp_compiler() is None, reason="no C++ compiler")


class Small(nn.Module):
    """Quick to compile."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.LazyLinear(3))

    def forward(self, x):
        return self.body(x)


def small(example: torch.Tensor, seed: int = 0) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = Small()
        model(example.expand(4, -1, -1, -1))
    return model.eval()


@pytest.mark.slow
@needs_compiler
@pytest.mark.parametrize("channels", [1, 3])
def test_outputs_are_the_models(channels, network, context, assert_serves_alike):
    assert_serves_alike(Compile(), network(channels).to(memory_format=torch.channels_last), context(channels))


@needs_compiler
def test_weights_are_frozen_and_the_cache_is_its_own(context, monkeypatch, tmp_path):
    cache = tmp_path / "cache"
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(cache))
    here = context(1, batch_sizes=(2,))
    model = small(here.images[:1])
    with torch.inference_mode():
        expected = model(here.example)
    call = Compile()(model, here)
    with torch.no_grad():
        model.body[0].weight.zero_()
    torch.testing.assert_close(call(here.example), expected, rtol=1e-4, atol=1e-5)
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == str(cache)
    assert not list(cache.glob("*")), "nothing is left behind that would make the next compilation shorter"
    assert not list(here.folder.glob("tmp*")), "nor where it was compiled"


@pytest.mark.slow
@needs_compiler
def test_many_models_of_one_class_stay_compiled(context):
    from torch._dynamo import config
    from torch._dynamo.utils import counters

    here = context(1, batch_sizes=(1,))
    models = [small(here.images[:1], seed) for seed in range(3)]
    with config.patch(recompile_limit=1):  # what torch compiles one code for, in place of 8
        calls = [Compile()(model, here) for model in models]
    compiled = counters["stats"]["unique_graphs"]
    for model, call in zip(models, calls, strict=True):
        with torch.inference_mode():
            torch.testing.assert_close(call(here.example), model(here.example), rtol=1e-4, atol=1e-5)
    assert counters["stats"]["unique_graphs"] == compiled, "later models push no earlier one out"


def test_without_a_compiler_it_is_skipped_with_the_reason(context, monkeypatch):
    monkeypatch.setattr("cnnbench_plugins.runtime._compiled.cpp_compiler", lambda: None)
    here = context(1)
    with pytest.raises(Unsupported, match=r"needs a C\+\+ compiler"):
        Compile()(small(here.images[:1]), here)


@needs_compiler
def test_what_can_not_be_one_graph_is_skipped_with_the_reason(context):
    class Branches(nn.Module):
        def forward(self, x):
            return x.flatten(1)[:, :3] if x.sum() > 0 else x.flatten(1)[:, 3:6]

    with pytest.raises(Unsupported, match=r"^torch\.compile: .*Data-dependent"):
        Compile()(Branches(), context(1))


@needs_compiler
def test_a_mode_for_gpus_is_refused_on_a_cpu(context):
    with pytest.raises(Unsupported, match="reduce-overhead"):
        Compile(mode="reduce-overhead")(nn.Flatten(), context(1))


@pytest.mark.slow
@needs_compiler
def test_an_int8_network_gets_its_int8_kernels(network, context):
    pytest.importorskip("torchao")
    from cnnbench_plugins.compressor.quantize_ptq import quantize

    here = context(1, batch_sizes=(2, 3))
    model = quantize(network(1), here.images)
    with torch.inference_mode():
        expected = model(here.images)
    call = Compile()(model, here)
    assert model.kernels == "int8"
    for size in here.batch_sizes:
        assert float((call(here.images[:size]) - expected[:size]).abs().max()) < 0.05 * float(expected.abs().max())
