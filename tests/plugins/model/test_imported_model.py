from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest
import torch
from torch import nn

from cnnbench.errors import Unsupported, UsageError
from cnnbench_plugins.model.imported import Imported

if TYPE_CHECKING:
    from pathlib import Path

SOURCE = """
import torch
from torch import nn

class Net(nn.Sequential):
    def __init__(self, image_shape, num_classes, hidden=3):
        channels, height, width = image_shape
        super().__init__(nn.Flatten(), nn.Linear(channels * height * width, hidden), nn.Linear(hidden, num_classes))

class Holder:
    make = Net

def needs_more(image_shape, num_classes, secret): ...
def faulty(image_shape, num_classes): return None + 1
def number(image_shape, num_classes): return 3
def wrong_count(image_shape, num_classes): return Net(image_shape, num_classes + 1)
def wrong_input(image_shape, num_classes): return nn.Sequential(nn.Flatten(), nn.Linear(5, num_classes))

class Two(Net):
    def forward(self, images):
        return super().forward(images), images

class Draws(Net):
    def forward(self, images):
        return super().forward(images + torch.rand_like(images))

constant = 3
"""


@pytest.fixture(autouse=True)
def _module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "ownpackage"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "networks.py").write_text(SOURCE)
    (package / "broken.py").write_text("1 / 0")
    (package / "hungry.py").write_text("import not_there_at_all")
    (tmp_path / "ownfile.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(tmp_path)
    for name in [name for name in sys.modules if name.split(".")[0] in {"ownpackage", "ownfile"}]:
        monkeypatch.delitem(sys.modules, name)


@pytest.mark.parametrize("name", ["Net", "Holder.make"])
def test_builds_with_options(name: str) -> None:
    model = Imported(f"ownpackage.networks:{name}", {"hidden": 5})((1, 8, 8), 4)
    assert isinstance(model, nn.Module)
    assert model[1].out_features == 5
    assert model(torch.rand(2, 1, 8, 8)).shape == (2, 4)
    assert model.training


@pytest.mark.parametrize(
    ("target", "options", "error", "message"),
    [
        (
            "nopackage.networks:Net",
            {},
            UsageError,
            "no module 'nopackage': install it, or put its folder on PYTHONPATH",
        ),
        ("ownpackage.nets:Net", {}, UsageError, "no module 'ownpackage.nets'"),
        ("ownpackage.networks:Nett", {}, UsageError, r"ownpackage.networks has no 'Nett': did you mean 'Net'\?"),
        ("ownpackage.broken:Net", {}, UsageError, "importing ownpackage.broken failed: ZeroDivisionError"),
        ("ownpackage.hungry:Net", {}, UsageError, "importing ownpackage.hungry failed: No module named 'not_there"),
        ("ownpackage.networks:constant", {}, UsageError, "is a int, not a function or class"),
        ("ownpackage.networks:Net", {"hiden": 1}, UsageError, "must accept .*unexpected keyword argument 'hiden'"),
        ("ownpackage.networks:needs_more", {}, UsageError, "must accept .*'secret'"),
        ("ownpackage.networks:number", {}, UsageError, "must return an nn.Module, not int"),
        (
            "ownpackage.networks:wrong_count",
            {},
            Unsupported,
            r"should return logits \[2, 4\] for 2 1 x 8 x 8 images, not \[2, 5\]",
        ),
        ("ownpackage.networks:wrong_input", {}, Unsupported, r"can't take 1 x 8 x 8 images: .*mat1 and mat2"),
        ("ownpackage.networks:Two", {}, Unsupported, "as one tensor, not tuple"),
    ],
)
def test_faults_are_one_line(target: str, options: dict[str, object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message) as caught:
        Imported(target, options)((1, 8, 8), 4)
    assert "\n" not in str(caught.value)


def test_a_fault_inside_the_users_code_keeps_its_traceback() -> None:
    with pytest.raises(TypeError, match="NoneType"):
        Imported("ownpackage.networks:faulty")((1, 8, 8), 4)


def test_probing_leaves_the_default_generator_alone() -> None:
    with torch.random.fork_rng():
        following = []
        for name in ("Net", "Draws"):
            torch.manual_seed(0)
            Imported(f"ownpackage.networks:{name}")((1, 8, 8), 4)
            following.append(torch.rand(1))
        torch.manual_seed(0)
        sys.modules["ownpackage.networks"].Net((1, 8, 8), 4)
        assert following == [torch.rand(1)] * 2


@pytest.mark.parametrize("target", ["", "Net", "ownpackage.networks", "own package:Net", "a:b:c", ":Net", "a/b.py:Net"])
def test_a_target_has_a_colon(target: str) -> None:
    with pytest.raises(ValueError, match=r"must look like 'package.module:callable'"):
        Imported(target)


def test_fingerprint_follows_the_source_without_importing_it(tmp_path: Path) -> None:
    package, file = Imported("ownpackage.networks:Net"), Imported("ownfile:Net")
    before = package.fingerprint(), file.fingerprint()
    assert "ownpackage" not in sys.modules
    with (tmp_path / "ownpackage" / "broken.py").open("a") as stream:
        stream.write("\n")
    assert package.fingerprint() != before[0]
    assert file.fingerprint() == before[1]
    (tmp_path / "ownfile.py").write_text("Net = 1")
    assert file.fingerprint() != before[1]
    with pytest.raises(UsageError, match="no module 'nopackage'"):
        Imported("nopackage:Net").fingerprint()
