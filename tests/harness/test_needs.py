"""What a suite needs of the machine is told as its mistakes, before anything runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch

from cnnbench.cli import main
from cnnbench.errors import SuiteError
from cnnbench.needs import check_machine
from cnnbench.plugins import PluginHost
from cnnbench.suite import load

if TYPE_CHECKING:
    from cnnbench.registry import Registry
    from cnnbench.suite import Suite

HEAD = 'question = "Why?"\ndataset = "digits"\nmodel = "lenet"\n'
HOLDS_OUT = "expected a share that holds out an image, or 0 for no validation split"
ABSENT = '{ name = "import", target = "nosuch.mod:f" }'
TOLD = "nosuch.mod:f: no module 'nosuch': install it, or put its folder on PYTHONPATH"


@pytest.fixture(scope="module")
def registry() -> Registry:
    return PluginHost.discover().registry


def read(text: str, registry: Registry, folder: Path) -> Suite:
    (folder / "s.toml").write_text(text)
    return load(folder / "s.toml", registry, data=True)


def mistakes(text: str, registry: Registry, folder: Path) -> list[str]:
    with pytest.raises(SuiteError) as caught:
        read(text, registry, folder)
    return [f"{p.line}: {p.place}: {p.message}" for p in caught.value.problems]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("train_size = 5000", ["2: dataset.train_size: expected at most 1442, the number of train images, got 5000"]),
        ("train_size = 1443", ["2: dataset.train_size: expected at most 1442, the number of train images, got 1443"]),
        ("test_size = 356", ["2: dataset.test_size: expected at most 355, the number of test images, got 356"]),
        (
            "validation = 0.0003",
            [f"2: dataset.validation: {HOLDS_OUT}, got 0.0003 of 1442 training images"],
        ),
        (
            "train_size = 4, test_size = 400",  # of 4 images the default share holds out none
            [
                "2: dataset.test_size: expected at most 355, the number of test images, got 400",
                f"2: dataset.validation: {HOLDS_OUT}, got 0.1 of 4 training images",
            ],
        ),
    ],
)
def test_sizes_that_the_data_does_not_have(
    registry: Registry, tmp_path: Path, options: str, expected: list[str]
) -> None:
    text = HEAD.replace('"digits"', f'{{ name = "digits", {options} }}')
    assert mistakes(text, registry, tmp_path) == expected


@pytest.mark.parametrize("options", ["train_size = 1442, test_size = 355", "train_size = 4, validation = 0"])
def test_sizes_that_the_data_has(registry: Registry, tmp_path: Path, options: str) -> None:
    assert read(HEAD.replace('"digits"', f'{{ name = "digits", {options} }}'), registry, tmp_path)


def test_a_dataset_need_not_know_its_sizes(fake_registry: Registry, tmp_path: Path) -> None:
    text = HEAD.replace("lenet", "resnet")
    assert read(text.replace('"digits"', '{ name = "digits", train_size = 5000 }'), fake_registry, tmp_path)
    text = text.replace('"digits"', '{ name = "digits", train_size = 5, validation = 0.01 }')
    [found] = mistakes(text, fake_registry, tmp_path)
    assert found.startswith("2: dataset.validation: ")
    assert found.endswith("got 0.01 of 5 training images")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (HEAD.replace('"lenet"', ABSENT), [f"3: model: {TOLD}"]),
        (HEAD + f'[arms]\n"my net" = {{ model = {ABSENT} }}', [f'5: arms."my net".model: {TOLD}']),
        (
            HEAD + '[baseline]\nnorm = "bach"\n[arms]\n'
            f'a = {{ model = {ABSENT} }}\nb = {{ norm = "none", model = {ABSENT} }}',
            ["5: baseline.norm: unknown norm 'bach': did you mean 'batch'?", f"7: arms.a.model: {TOLD}"],
        ),
        (
            HEAD.replace('"lenet"', '{ name = "torchvision", arch = "resnet18", weights = "/nowhere/w.pt" }'),
            ["3: model: weights /nowhere/w.pt: no such file"],
        ),
        (
            HEAD + f'[arms]\na = {{ compressor = {{ name = "distill", student = {ABSENT} }} }}',
            [f"5: arms.a.compressor: {TOLD}"],
        ),
        (
            HEAD.replace('model = "lenet"\n', '[design]\nkind = "one-at-a-time"\nnorm = ["batch", "group"]\n')
            + f'model = [\n"lenet",\n{ABSENT}]',
            [f"8: design.model[1]: {TOLD}"],
        ),
        (
            HEAD.replace('"lenet"', ABSENT) + '[design]\nkind = "one-at-a-time"\nnorm = ["batch", "group"]\n',
            [f"3: model: {TOLD}"],
        ),
        (
            HEAD.replace('"lenet"', '{ name = "torchvision", arch = "resnet18" }')
            + '[design]\nkind = "one-at-a-time"\n"model.weights" = ["/nowhere/v.pt", "/nowhere/w.pt"]\n',
            [
                '6: design."model.weights": weights /nowhere/v.pt: no such file',
                '6: design."model.weights": weights /nowhere/w.pt: no such file',
            ],
        ),
    ],
)
def test_code_and_files_that_are_not_there(registry: Registry, tmp_path: Path, text: str, expected: list[str]) -> None:
    assert mistakes(text, registry, tmp_path) == expected


def test_code_and_files_are_looked_for_only_where_asked(registry: Registry, tmp_path: Path) -> None:
    (tmp_path / "s.toml").write_text(HEAD.replace('"lenet"', ABSENT))
    assert load(tmp_path / "s.toml", registry).baseline.model.name == "import"


def test_an_empty_arm_is_told_whatever_else_is_wrong(registry: Registry, tmp_path: Path) -> None:
    text = HEAD.replace("lenet", "lennet") + "[arms]\na = {}\n"
    assert mistakes(text, registry, tmp_path) == [
        "3: model: unknown model 'lennet': did you mean 'lenet'?",
        "5: arms.a: arm 'a' comes to the same settings as the baseline",
    ]


@pytest.mark.parametrize("command", ["run", "plan"])
def test_a_device_that_is_not_here_is_a_mistake_of_the_suite(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    Path("s.toml").write_text(HEAD + 'device = "cuda"\n')
    assert main([command, "s.toml"]) == 2
    first, last = capsys.readouterr().err.splitlines()
    assert first.startswith("s.toml:4: device: 'cuda': not on this machine, which has cpu")
    assert last == "cnnbench: 1 mistake; nothing has run"
    assert main(["plan", "s.toml", "--device", "cpu", "--cache", "cache"]) == 0


@pytest.mark.parametrize("command", ["run", "plan"])
def test_threads_are_no_more_than_the_cores_here(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("cnnbench.environment.usable_cores", lambda: 4)
    Path("s.toml").write_text(HEAD + "[measure]\nlatency = { threads = 5 }\n")
    told = "s.toml:5: measure.latency.threads: expected at most 4, the physical cores that can be used here, got 5"
    for named in ([], ["--device", "cpu"]):
        assert main([command, "s.toml", *named]) == 2
        assert capsys.readouterr().err.splitlines() == [told, "cnnbench: 1 mistake; nothing has run"]
    Path("s.toml").write_text(HEAD + "[measure]\nlatency = { threads = 4 }\n")
    assert main(["plan", "s.toml", "--cache", "cache"]) == 0


def test_all_that_a_machine_lacks_is_told_at_once(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr("cnnbench.environment.usable_cores", lambda: 2)
    suite = read(HEAD + 'device = "cuda"\n[measure.latency]\nthreads = 64\n', registry, tmp_path)
    with pytest.raises(SuiteError) as caught:
        check_machine(suite)
    assert [(p.line, p.place) for p in caught.value.problems] == [(4, "device"), (6, "measure.latency.threads")]


def test_a_size_that_is_too_large_ends_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("s.toml").write_text(HEAD.replace('"digits"', '{ name = "digits", train_size = 5000 }'))
    assert main(["run", "s.toml"]) == 2
    assert capsys.readouterr().err == (
        "s.toml:2: dataset.train_size: expected at most 1442, the number of train images, got 5000\n"
        "cnnbench: 1 mistake; nothing has run\n"
    )
    assert [path.name for path in Path().iterdir()] == ["s.toml"]
