"""The model that a worker keeps: what its file holds, whoever has used it since."""

from __future__ import annotations

import shutil
import sys
from types import ModuleType

import pytest
import torch
from torch import nn

from cnnbench.artifact import load_model, save_model
from cnnbench.errors import StoreError
from cnnbench.stages import kept
from cnnbench.stages.kept import LastModel


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten()).to(memory_format=torch.channels_last)


def reads(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """The files that are read from now on."""
    found: list[object] = []

    def noted(path, device="cpu"):
        found.append(path)
        return load_model(path, device)

    monkeypatch.setattr(kept, "load_model", noted)
    return found


def test_each_stage_gets_what_the_file_holds(tmp_path, monkeypatch):
    model, last = network(), LastModel()
    read = reads(monkeypatch)
    last.put(tmp_path / "model.pt", save_model(tmp_path / "model.pt", model, nn.Identity(), {"k": [1]}))
    first = last.get(tmp_path / "model.pt", "cpu")
    with torch.no_grad():  # a stage that does to its model what it likes
        for parameter in first.model.parameters():
            parameter.zero_()
    first.model.train()
    first.model[0].bias = None
    first.notes["k"].append(2)
    second = last.get(tmp_path / "model.pt", "cpu")
    fresh = load_model(tmp_path / "model.pt")
    assert read == []
    assert second.notes == fresh.notes == {"k": [1]}
    assert second.model.training == fresh.model.training
    found, wanted = second.model.state_dict(), fresh.model.state_dict()
    assert list(found) == list(wanted)
    for name, tensor in wanted.items():
        assert torch.equal(found[name], tensor)
        assert found[name].stride() == tensor.stride()


def test_a_finished_stage_s_folder_is_renamed(tmp_path, monkeypatch):
    read = reads(monkeypatch)
    last = LastModel()
    last.put(tmp_path / "a" / "model.pt", save_model(tmp_path / "a" / "model.pt", network(), nn.Identity()))
    (tmp_path / "a").rename(tmp_path / "b")
    last.get(tmp_path / "b" / "model.pt", "cpu")
    assert read == []
    with pytest.raises(StoreError, match="no such model file"):
        last.get(tmp_path / "a" / "model.pt", "cpu")


def test_another_file_is_read(tmp_path, monkeypatch):
    read = reads(monkeypatch)
    last = LastModel()
    path = tmp_path / "model.pt"
    last.put(path, save_model(path, network(0), nn.Identity()))
    save_model(tmp_path / "other.pt", network(1), nn.Identity())
    shutil.copyfile(tmp_path / "other.pt", tmp_path / "new.pt")
    (tmp_path / "new.pt").replace(path)
    found = last.get(path, "cpu")
    assert read == [path]
    assert torch.equal(found.model[0].weight, network(1)[0].weight)
    last.get(path, "cpu")
    assert read == [path]


class SaysHow(nn.Linear):
    """Copies to something else than its file holds."""

    def __deepcopy__(self, memo: object) -> SaysHow:
        return SaysHow(1, 1)


@pytest.mark.parametrize("why", ["copies itself", "too large"])
def test_what_can_t_or_should_not_be_kept_is_read_each_time(tmp_path, monkeypatch, why):
    module = ModuleType("says_how")  # model files name classes by modules that can be imported
    monkeypatch.setitem(sys.modules, "says_how", module)
    monkeypatch.setattr(SaysHow, "__module__", "says_how")
    module.SaysHow = SaysHow
    if why == "too large":
        monkeypatch.setattr(kept, "MOST_BYTES", 10)
    model = nn.Sequential(SaysHow(3, 2)) if why == "copies itself" else network()
    last, path = LastModel(), tmp_path / "model.pt"
    last.put(path, save_model(path, model, nn.Identity()))
    read = reads(monkeypatch)
    assert last.get(path, "cpu").model[0].weight.shape == model[0].weight.shape
    last.get(path, "cpu")
    assert read == [path, path]
