"""Where weights come from, which of them train, and what is left frozen."""

from __future__ import annotations

import copy
import dataclasses
import json
import struct

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from cnnbench.errors import NoEffect, Unsupported, UsageError
from cnnbench.slots import Observer
from cnnbench.stages.train import train
from cnnbench.types import Choice, DataOptions
from cnnbench_plugins._state_file import read_state
from cnnbench_plugins.optimizer.adaptive import Adam
from cnnbench_plugins.optimizer.sgd import Sgd
from cnnbench_plugins.strategy._layers import classifier, layers
from cnnbench_plugins.strategy.early_stopping import EarlyStopping
from cnnbench_plugins.strategy.ensembles import DeepEnsemble
from cnnbench_plugins.strategy.transfer import Transfer

SOURCE = Choice("dataset", "elsewhere", {})


class Spy(Observer):
    """The state after every step, and the parameters that trained in it."""

    def __init__(self) -> None:
        self.trainable: list[list[str]] = []
        self.states: list[dict[str, torch.Tensor]] = []

    def after_step(self, model, step):
        self.states.append(copy.deepcopy(model.state_dict()))
        self.trainable.append([name for name, p in model.named_parameters() if p.requires_grad])


@pytest.fixture
def pretrained(make_run) -> nn.Module:
    return make_run(epochs=2, count=32).fit(member=7).model


@pytest.fixture
def file(pretrained, tmp_path):
    torch.save(pretrained.state_dict(), tmp_path / "weights.pt")
    return tmp_path / "weights.pt"


def spied(run, strategy):
    """A strategy's run with an observer from further out."""
    spy = Spy()

    class Bound(type(run)):
        def fit(self, *observers, member=0, schedule=None):
            return super().fit(spy, *observers, member=member, schedule=schedule)

    return strategy(Bound(run.build, run.how, run.streams, run.elsewhere)), spy


def test_fine_tuning_starts_from_the_file_with_a_fresh_classifier(make_run, pretrained, file):
    run = make_run()
    trained = Transfer(weights=file)(run)

    class Load(Observer):
        """By hand: everything but the classifier."""

        def before_epoch(self, model, epoch, epochs):
            if epoch == 0:
                state = {k: v for k, v in pretrained.state_dict().items() if not k.startswith("8.")}
                missing = model.load_state_dict(state, strict=False).missing_keys
                assert missing == ["8.weight", "8.bias"]

    expected = run.fit(Load())
    for name, value in expected.model.state_dict().items():
        assert torch.equal(trained.model.state_dict()[name], value), name
    assert trained.notes["loaded_tensors"] == 12
    (remark,) = trained.remarks
    assert remark == "transfer: 12 of 12 tensors came from weights.pt; the classifier started fresh"
    assert not torch.equal(trained.model[0].weight, run.fit().model[0].weight)


def test_a_source_of_other_classes_is_trained_on_first(make_run):
    asked = []
    there = make_run(epochs=2, count=32)

    def elsewhere(dataset, data, epochs, streams):
        asked.append((dataset, data, epochs))
        return there

    run = make_run(elsewhere=elsewhere)
    trained = Transfer(source=SOURCE, pretrain_epochs=4, pretrain_size=50)(run)
    Transfer(source=SOURCE)(run)
    assert asked == [
        (SOURCE, DataOptions(train_size=50, validation=0.0), 4),
        (SOURCE, DataOptions(validation=0.0), run.epochs),
    ]
    _, spy = spied(run, Transfer(source=SOURCE, mode="linear_probe"))
    source = there.fit().model.state_dict()
    for name, value in spy.states[-1].items():
        assert torch.equal(value, source[name]) is not name.startswith("8."), name
    assert "tensors came from elsewhere" in trained.remarks[0]


def test_a_linear_probe_changes_the_classifier_and_nothing_else(make_run, pretrained, file):
    trained, spy = spied(make_run(), Transfer(weights=file, mode="linear_probe"))
    for name, value in trained.model.state_dict().items():
        assert torch.equal(value, pretrained.state_dict()[name]) is not name.startswith("8."), name
    assert spy.trainable == [["8.weight", "8.bias"]] * 9
    assert trained.notes["trained_parameters"] == 8 * 3 + 3
    assert all(parameter.requires_grad for parameter in trained.model.parameters())  # again, afterwards


def test_a_linear_probe_is_the_classifier_trained_on_features_of_eval_mode(make_run, pretrained, file):
    """Frozen batch norms neither take nor update the batch's statistics: the same as a linear model on the features."""
    run = make_run()
    trained = Transfer(weights=file, mode="linear_probe")(run)
    start = run.build(run.streams)[8]
    optimizer = torch.optim.SGD(start.parameters(), lr=0.1, momentum=0.9)
    order, step = run.streams.generator("order"), 0
    images, labels = run.how.splits.train_images, run.how.splits.train_labels
    for _ in range(3):
        for batch in torch.randperm(48, generator=order).split(16):
            optimizer.param_groups[0]["lr"] = 0.1 * run.how.schedule(step, 9)
            with torch.no_grad():
                features = pretrained.eval()[:8](images[batch].float() / 255)
            optimizer.zero_grad()
            F.cross_entropy(start(features), labels[batch]).backward()
            optimizer.step()
            step += 1
    torch.testing.assert_close(trained.model[8].weight, start.weight)


@pytest.mark.parametrize(
    ("frozen", "kept"), [(0.34, ["0", "1"]), (0.67, ["0", "1", "3", "4"]), (0.99, ["0", "1", "3", "4"])]
)
def test_freezing_keeps_the_first_layers_with_their_norms(make_run, pretrained, file, frozen, kept):
    trained, spy = spied(make_run(), Transfer(weights=file, mode="freeze", frozen=frozen))
    for name, value in trained.model.state_dict().items():
        assert torch.equal(value, pretrained.state_dict()[name]) is (name[0] in kept), name
    assert {name[0] for name in spy.trainable[-1]} == set("01348") - set(kept)


def test_gradual_unfreezing_frees_one_layer_an_epoch_from_the_last(make_run, file):
    # Three layers: as in ULMFiT the classifier first, then one more each epoch where there are as many epochs.
    _, spy = spied(make_run(epochs=4), Transfer(weights=file, gradual=0.5))
    freed = [sorted({name[0] for name in names}) for names in spy.trainable[::3]]
    assert freed == [["8"], ["3", "4", "8"], ["0", "1", "3", "4", "8"], ["0", "1", "3", "4", "8"]]
    assert not torch.equal(spy.states[-1]["1.running_mean"], spy.states[0]["1.running_mean"])
    assert torch.equal(spy.states[5]["1.running_mean"], spy.states[0]["1.running_mean"])


@pytest.mark.parametrize(
    ("count", "epochs", "gradual", "expected"),
    [
        (10, 4, 0.5, [1, 6, 10, 10]),
        (3, 10, 0.5, [1, 2, 2, 3, 3, 3, 3, 3, 3, 3]),
        (5, 5, 1.0, [1, 2, 3, 4, 5]),
        (5, 3, 0.0, [5, 5, 5]),
        (1, 2, 0.5, [1, 1]),
    ],
)
def test_how_many_layers_train_by_epoch(count, epochs, gradual, expected, tmp_path):
    technique = Transfer(weights=tmp_path / "w.pt", gradual=gradual)
    assert [technique.trainable(count, epoch, epochs) for epoch in range(epochs)] == expected


@pytest.mark.parametrize("optimizer", [Sgd(), Adam(lr=0.01)], ids=lambda o: type(o).__name__)
def test_layers_may_join_under_the_optimizers_that_suites_name(make_run, file, optimizer):
    trained = Transfer(weights=file, gradual=0.5)(make_run(epochs=4, optimizer=optimizer))
    assert len(trained.history) == 4


def test_frozen_layers_keep_still_under_momentum_and_weight_decay(make_run, pretrained, file):
    optimizer = lambda model: torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=0.5)  # noqa: E731
    trained = Transfer(weights=file, mode="linear_probe")(make_run(optimizer=optimizer))
    assert torch.equal(trained.model[0].weight, pretrained[0].weight)


def test_few_tensors_that_fit_are_refused_and_none_has_no_effect(make_run, pretrained, tmp_path):
    state = pretrained.state_dict()
    few = {name: value for name, value in state.items() if name.startswith("0.")}
    torch.save({**few, "3.weight": torch.zeros(9, 9)}, tmp_path / "few.pt")
    with pytest.raises(Unsupported, match=r"only 1 of the model's 12 tensors fit few\.pt: 1\.weight \[6\] is missing"):
        Transfer(weights=tmp_path / "few.pt")(make_run())
    torch.save({f"other.{name}": value for name, value in state.items()}, tmp_path / "none.pt")
    with pytest.raises(NoEffect, match=r"no tensor of none\.pt"):
        Transfer(weights=tmp_path / "none.pt")(make_run())
    # Only the classifier would fit: that one starts fresh, so nothing is left.
    torch.save({name: value for name, value in state.items() if name.startswith("8.")}, tmp_path / "head.pt")
    with pytest.raises(NoEffect):
        Transfer(weights=tmp_path / "head.pt")(make_run())


def test_a_file_that_lacks_some_tensors_says_how_many_fitted(make_run, pretrained, tmp_path):
    state = pretrained.state_dict()
    del state["0.weight"]
    state["3.weight"] = state["3.weight"][:, :3]
    torch.save(state, tmp_path / "most.pt")
    trained = Transfer(weights=tmp_path / "most.pt")(make_run())
    assert "10 of 12 tensors came from most.pt" in trained.remarks[0]


def test_early_stopping_and_ensembles_around_a_transfer(make_run, file):
    trained = train(make_run(epochs=4), [DeepEnsemble(k=2), EarlyStopping(patience=1), Transfer(weights=file)])
    assert all({"best_epoch", "loaded_tensors"} <= notes.keys() for notes in trained.notes["members"])
    assert trained.remarks.count("transfer: 12 of 12 tensors came from weights.pt; the classifier started fresh") == 1


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({}, "set one of source"),
        ({"source": SOURCE, "weights": "file"}, "set one of source"),
        ({"weights": "file", "pretrain_epochs": 3}, "go with source"),
        ({"source": SOURCE, "mode": "freeze", "gradual": 0.5}, "gradual goes with mode = 'finetune'"),
    ],
)
def test_options_that_contradict_each_other_are_refused(options, reason):
    with pytest.raises(ValueError, match=reason):
        Transfer(**options)


def test_the_fingerprint_is_that_of_the_file(file):
    first = Transfer(weights=file).fingerprint()
    file.write_bytes(b"other")
    assert Transfer(weights=file).fingerprint() != first
    assert Transfer(source=SOURCE).fingerprint() == ""
    file.unlink()
    with pytest.raises(UsageError, match=r"weights\.pt: no such file"):
        Transfer(weights=file).fingerprint()


# Layers.


def test_layers_come_with_what_follows_them(make_run):
    run = make_run()
    model = run.build(run.streams)
    names = {module: name for name, module in model.named_modules()}
    assert [[names[m] for m in group if names[m]] for group in layers(model)] == [
        ["0", "1", "2"],
        ["3", "4", "5", "6", "7"],
        ["8"],
    ]
    assert classifier(model) == "8"


def test_every_parameter_of_a_torchvision_network_belongs_to_one_layer():
    import torchvision

    for name in ("resnet18", "squeezenet1_1", "convnext_tiny"):
        model = torchvision.models.get_model(name, weights=None, num_classes=5)
        own = [p for group in layers(model) for module in group for p in module.parameters(recurse=False)]
        assert len(own) == len(set(own)) == len(list(model.parameters()))
        assert sum(p.numel() for module in layers(model)[-1] for p in module.parameters(recurse=False)) > 0


# Files.


def test_safetensors_are_read_as_their_format_says(tmp_path):
    """8 bytes of the header's length, the header, the data: written by hand."""
    numbers = struct.pack("<6f", *range(6)) + struct.pack("<2q", 7, -8)
    header = json.dumps(
        {
            "__metadata__": {"format": "pt"},
            "a": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]},
            "b": {"dtype": "I64", "shape": [2], "data_offsets": [24, 40]},
            "c": {"dtype": "BF16", "shape": [0, 4], "data_offsets": [40, 40]},
        }
    ).encode()
    path = tmp_path / "x.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header + numbers)
    state = read_state(path)
    assert state.keys() == {"a", "b", "c"}
    assert torch.equal(state["a"], torch.arange(6.0).view(2, 3))
    assert state["b"].tolist() == [7, -8]
    assert (state["c"].shape, state["c"].dtype) == ((0, 4), torch.bfloat16)


def test_safetensors_of_its_own_library_are_read(tmp_path):
    library = pytest.importorskip("safetensors.torch")
    kinds = (torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.uint8, torch.bool)
    tensors = {str(kind): torch.arange(6).view(2, 3).to(kind) for kind in kinds} | {"one": torch.tensor(3.5)}
    library.save_file(tensors, tmp_path / "x.safetensors")
    state = read_state(tmp_path / "x.safetensors")
    assert state.keys() == tensors.keys()
    assert all(torch.equal(state[name], value) and state[name].dtype == value.dtype for name, value in tensors.items())


@dataclasses.dataclass
class Foreign:
    """Not a tensor."""


@pytest.mark.parametrize("content", [Foreign(), [torch.zeros(1)], {"a": 1}], ids=["object", "list", "number"])
def test_a_file_of_something_else_is_refused(tmp_path, content):
    torch.save(content, tmp_path / "x.pt")
    with pytest.raises(Unsupported, match=r"x\.pt: not a state dict of plain tensors"):
        read_state(tmp_path / "x.pt")


@pytest.mark.parametrize("name", ["x.pt", "x.safetensors"])
@pytest.mark.parametrize("content", [b"", b"nothing of the kind", b"\xff" * 64])
def test_a_damaged_file_is_refused(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(Unsupported, match="not a state dict"):
        read_state(tmp_path / name)
