from __future__ import annotations

import fractions
import functools
import os
import pickle
import subprocess
import sys
from collections import OrderedDict

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torchvision.models import mobilenet_v2, resnet18, squeezenet1_1

from cnnbench.artifact import load_model, save_model
from cnnbench.errors import StoreError, TrialError


def round_trip(tmp_path, model, **options):
    save_model(tmp_path / "model.pt", model, nn.Identity(), **options)
    return load_model(tmp_path / "model.pt")


@pytest.mark.parametrize("make", [resnet18, mobilenet_v2, squeezenet1_1])
def test_torchvision_networks_come_back_as_they_were(tmp_path, make):
    model = make(weights=None, num_classes=10).eval()
    loaded = round_trip(tmp_path, model).model
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(loaded(x), model(x))
    assert not loaded.training
    assert [p.requires_grad for p in loaded.parameters()] == [p.requires_grad for p in model.parameters()]


def test_input_notes_and_helpers_come_back(tmp_path):
    model = nn.Sequential(nn.Linear(2, 2))
    model.make_norm = functools.partial(nn.GroupNorm, 8)
    model.activation, model.gate = F.gelu, F.relu
    model.shape, model.kind = torch.Size([1, 2]), torch.float16
    model.blocks = OrderedDict(a=nn.ReLU)
    normalize = nn.BatchNorm2d(1)
    save_model(tmp_path / "new" / "model.pt", model, normalize, {"stopped_epoch": 7})
    loaded = load_model(tmp_path / "new" / "model.pt")
    assert loaded.notes == {"stopped_epoch": 7}
    assert isinstance(loaded.input, nn.BatchNorm2d)
    assert loaded.model.make_norm(16).num_groups == 8
    assert (loaded.model.activation, loaded.model.gate) == (F.gelu, F.relu)
    assert (loaded.model.shape, loaded.model.kind) == (torch.Size([1, 2]), torch.float16)
    assert loaded.model.blocks == OrderedDict(a=nn.ReLU)


def test_a_pruned_network(tmp_path):
    pytest.importorskip("torch_pruning")
    from cnnbench_plugins.compressor.prune_filters import ranking, remove_channels

    model = resnet18(weights=None, num_classes=10)
    x = torch.randn(2, 3, 32, 32)
    remove_channels(model, x[:1], 0.5, ranking("l2", torch.Generator()))
    with torch.no_grad():
        assert torch.equal(round_trip(tmp_path, model).model(x), model(x))


def test_an_int8_network_in_another_process(tmp_path):
    pytest.importorskip("torchao")
    from cnnbench_plugins.compressor.quantize_ptq import quantize

    x = torch.randn(8, 3, 8, 8)
    model = quantize(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5)), x)
    save_model(tmp_path / "model.pt", model, nn.Identity())
    torch.save(x, tmp_path / "x.pt")
    script = (
        "import sys, pathlib, torch; from cnnbench.artifact import load_model; folder = pathlib.Path(sys.argv[1]);"
        "torch.save(load_model(folder / 'model.pt').model(torch.load(folder / 'x.pt')), folder / 'y.pt')"
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=True)
    torch.testing.assert_close(torch.load(tmp_path / "y.pt"), model(x))


def test_a_users_own_class_is_allowed_where_it_can_be_imported(tmp_path, monkeypatch):
    (tmp_path / "their_models.py").write_text(
        "from torch import nn\nclass Net(nn.Module):\n    def forward(self, x):\n        return x * 2\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    import their_models

    assert round_trip(tmp_path, their_models.Net()).model(torch.ones(1)).item() == 2
    monkeypatch.delitem(sys.modules, "their_models")
    (tmp_path / "their_models.py").unlink()
    with pytest.raises(StoreError, match=r"names their_models\.Net, which can't be imported here"):
        load_model(tmp_path / "model.pt")


def offending(kind):
    model = nn.Sequential(nn.Linear(2, 2))
    if kind == "lambda":
        model.scale = lambda x: x
    elif kind == "local class":

        class Inner(nn.Module):
            pass

        model.append(Inner())
    elif kind == "local hook":
        model.register_forward_hook(lambda *arguments: None)
    elif kind == "function":
        model.check = os.path.join
    elif kind == "method":
        model.forward_again = model[0].forward
    elif kind == "object":
        model.share = fractions.Fraction(1, 2)
    return model


@pytest.mark.parametrize(
    ("kind", "named"),
    [
        ("lambda", "lambda"),
        ("local class", "Inner"),
        ("local hook", "lambda"),
        ("function", r"posixpath\.join"),
        ("method", "getattr"),
        ("object", r"fractions\.Fraction"),
    ],
)
def test_what_cannot_be_read_back_fails_when_it_is_saved(tmp_path, kind, named):
    path = tmp_path / "model.pt"
    path.write_bytes(b"the file before")
    with pytest.raises(TrialError, match=rf"(?s)Sequential can't be .*{named}") as caught:
        save_model(path, offending(kind), nn.Identity())
    assert "\n" not in str(caught.value)
    assert str(tmp_path) not in str(caught.value)
    assert path.read_bytes() == b"the file before"
    assert list(tmp_path.iterdir()) == [path]  # no temporary file stays behind


def test_a_reader_never_sees_half_a_file(tmp_path):
    path = tmp_path / "model.pt"
    save_model(path, nn.Linear(2, 2), nn.Identity())
    before = path.read_bytes()
    with path.open("rb") as reader:
        save_model(path, nn.Linear(9, 9), nn.Identity())
        assert reader.read() == before
    assert load_model(path).model.in_features == 9


def test_notes_must_be_plain(tmp_path):
    with pytest.raises(TrialError, match="notes are not plain data"):
        save_model(tmp_path / "model.pt", nn.Identity(), nn.Identity(), {"history": torch.ones(2)})


class Malicious:
    def __init__(self, function, *arguments):
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


@pytest.mark.parametrize("name", ["os.system", "builtins.exec", "torch.load", "torch.hub.load", "functools.reduce"])
def test_a_malicious_file_is_refused_and_nothing_runs(tmp_path, name):
    module, _, attribute = name.rpartition(".")
    function = getattr(pytest.importorskip(module), attribute)
    argument = f"open({str(tmp_path / 'ran')!r}, 'w')" if name == "builtins.exec" else f"touch {tmp_path / 'ran'}"
    path = tmp_path / "model.pt"
    torch.save({"model": Malicious(function, argument), "input": nn.Identity(), "notes": "{}"}, path)
    with pytest.raises(StoreError, match=rf"{path}: names \S+, which is no nn.Module class and is refused"):
        load_model(path)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("content", [b"", b"not a model", pickle.dumps({"model": 1})])
def test_files_that_are_no_models(tmp_path, content):
    path = tmp_path / "model.pt"
    path.write_bytes(content)
    with pytest.raises(StoreError, match=rf"{path}: is not a model file") as caught:
        load_model(path)
    assert "\n" not in str(caught.value)


def test_a_truncated_or_foreign_archive(tmp_path):
    path = tmp_path / "model.pt"
    save_model(path, nn.Linear(4, 4), nn.Identity())
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(StoreError, match=r"model\.pt: is"):
        load_model(path)
    for content in ([1, 2], {"model": nn.Identity()}, {"model": 1, "input": nn.Identity(), "notes": "{}"}):
        torch.save(content, path)
        with pytest.raises(StoreError, match=r"model\.pt: is damaged"):
            load_model(path)


def test_a_missing_file(tmp_path):
    with pytest.raises(StoreError, match=r"gone\.pt: no such model file"):
        load_model(tmp_path / "gone.pt")
