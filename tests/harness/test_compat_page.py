"""The compatibility page, and whether the one in the docs is current."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from cnnbench.compat import SLOTS, Verdict, candidates, parse_model, random_splits, try_technique
from cnnbench.compat_page import SIGNS, command_line, page, reason_of, totals
from cnnbench.devices import Device
from cnnbench.plugins import PluginHost
from cnnbench.types import Choice

DOCS = Path(__file__).parents[2] / "docs"
COMMITTED = DOCS / "compatibility.md"


def test_the_page_counts_and_says_every_reason_once():
    group, layer, silu = Choice("norm", "group"), Choice("norm", "layer"), Choice("activation", "silu")
    relu = "activation: could not reach F.relu (1 call)"
    verdicts = [
        Verdict("a", group, "works"),
        Verdict("b", group, "no effect", "norm 'group' replaced no module"),
        Verdict("a", layer, "works"),
        Verdict("b", layer, "no effect", "norm 'layer' replaced no module"),
        Verdict("a", silu, "in part", relu),
        Verdict("b", silu, "in part", relu),
    ]
    text = page(verdicts, command="cnnbench compat a b", image="3x8x8", classes=7)
    assert "```console\ncnnbench compat a b\n```" in text
    assert "3x8x8 images and 7 classes" in text
    assert "In all 6 answers: 2 works, 2 in part, 2 no effect." in text
    norms, _, activations = text.partition("## norm")[2].partition("## activation")
    assert "| technique | a | b |\n| --- | :-: | :-: |\n| `group` | ✓ | – |\n| `layer` | ✓ | – |" in norms
    assert "- `group`, `layer`: no effect on b: replaced no module" in norms
    assert "| `silu` | ◐ | ◐ |" in activations
    assert activations.endswith("- `silu`: in part on all models: could not reach F.relu (1 call)")
    (works,) = (line for line in text.splitlines() if line.startswith("| ✓ |"))
    assert works.endswith("| 2 | 0 |")
    assert totals(verdicts) == "2 works, 2 in part, 2 no effect"


def test_a_reason_goes_without_the_model_and_the_layer_that_was_met_first():
    def reason(text):
        return reason_of(Verdict("a", Choice("norm", "group"), "unsupported", text))

    assert reason("stage2.0.branch1.3: 8 groups do not divide 58 channels") == "8 groups do not divide 58 channels"
    assert reason("model 'torchvision' has no option 'depth'") == "has no option 'depth'"
    assert reason("no layer: 2.5 of 3") == "no layer: 2.5 of 3"


def test_the_command_that_makes_the_page_again(monkeypatch, tmp_path):
    (tmp_path / "sub dir").mkdir()
    (tmp_path / "sub dir" / "net_of_mine.py").write_text("")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path / "sub dir"))
    line = command_line(["resnet18", "net_of_mine:make"], ["norm"], "3x8x8", 5, Path("a.md"))
    assert line == (
        "PYTHONPATH='sub dir' cnnbench compat resnet18 net_of_mine:make --slot norm --image 3x8x8 --classes 5 "
        "--output a.md"
    )
    assert command_line(["json:loads"], [], "3x8x8", 5, None) == (
        "cnnbench compat json:loads --image 3x8x8 --classes 5"
    )


def current(model, slots):
    """What is found today for one model, at the committed page's size of images."""
    registry = PluginHost.discover().registry
    shape, classes = re.search(r"--image (\S+) --classes (\d+)", COMMITTED.read_text("utf-8")).groups()
    channels, height, width = map(int, shape.split("x"))
    splits = random_splits((channels, height, width), int(classes))
    choice = parse_model(model, registry)
    return [try_technique(t, choice, model, splits, registry, Device("cpu")) for t in candidates(registry, slots)]


def committed(model, slots):
    """Signs of one model by slot and technique, and all lines with reasons, in the committed page."""
    text = COMMITTED.read_text("utf-8")
    signs, reasons = {}, {}
    for slot in slots:
        lines = text.partition(f"\n## {slot}\n")[2].partition("\n## ")[0].splitlines()
        (head, _, *rows) = ([cell.strip() for cell in line.strip("|").split("|")] for line in lines if line[:1] == "|")
        column = head.index(model)
        signs |= {(slot, row[0].strip("`")): row[column] for row in rows}
        reasons[slot] = [line for line in lines if line.startswith("- ")]
    return signs, reasons


def assert_current(model, slots):
    """Else make the page anew by the command that it names."""
    verdicts = current(model, slots)
    signs, reasons = committed(model, slots)
    found = {(v.technique.slot, v.technique.name): SIGNS[v.status] for v in verdicts}
    assert found == signs
    for verdict in filter(lambda verdict: verdict.reason, verdicts):
        told = [line for line in reasons[verdict.technique.slot] if line.endswith(f": {reason_of(verdict)}")]
        assert any(f"`{verdict.technique.name}`" in line for line in told), verdict


def test_the_page_in_the_docs_is_current_for_a_model_of_one_s_own(monkeypatch):
    monkeypatch.syspath_prepend(str(DOCS))
    assert_current("own_model:make", [slot for slot in SLOTS if slot not in {"compressor", "strategy"}])


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("slot", SLOTS)
def test_the_page_in_the_docs_is_current_for_a_whole_column(slot):
    assert_current("resnet18", [slot])
