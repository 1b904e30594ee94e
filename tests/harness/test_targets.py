"""What a word of the command line means to ``check`` and ``try``."""

from __future__ import annotations

import sys

import pytest

from cnnbench.errors import UsageError
from cnnbench.targets import find

LEVEL = '''
from cnnbench import hookimpl, technique


@technique("{slot}", "{name}")
class Level:
    """Leaves all as it is."""


@hookimpl
def cnnbench_register_techniques():
    return [Level]
'''


@pytest.fixture
def folder(tmp_path, monkeypatch):
    known = set(sys.modules)
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "level.py").write_text(LEVEL.format(slot="norm", name="level"), "utf-8")
    (tmp_path / "lab").mkdir()
    (tmp_path / "lab" / "__init__.py").write_text("", "utf-8")
    (tmp_path / "lab" / "plain.py").write_text(LEVEL.format(slot="pooling", name="lab_level"), "utf-8")
    (tmp_path / "norms.toml").write_text('question = "?"', "utf-8")
    yield tmp_path
    for name in set(sys.modules) - known:
        if name.partition(".")[0] in {"level", "lab", "broken"}:
            del sys.modules[name]


def names(target):
    return [(entry.card.slot, entry.card.name) for entry in target.entries]


def refusal(word, folder):
    with pytest.raises(UsageError) as caught:
        find(word, folder)
    text = str(caught.value)
    assert "\n" not in text
    return text


@pytest.mark.parametrize("word", ["level.py", "./level.py", "level"])
def test_a_file_beside(folder, word):
    target = find(word, folder)
    assert names(target) == [("norm", "level")]
    assert [plugin.file for plugin in target.plugins] == [folder / "level.py"]
    assert target.name == word


def test_a_file_elsewhere_by_its_whole_path(folder, tmp_path_factory):
    assert names(find(str(folder / "level.py"), tmp_path_factory.mktemp("elsewhere"))) == [("norm", "level")]


def test_a_dotted_module_beside(folder):
    assert names(find("lab.plain", folder)) == [("pooling", "lab_level")]


def test_techniques_by_name(folder):
    assert names(find("norm/group", folder)) == names(find("group", folder)) == [("norm", "group")]
    assert find("group", folder).plugins == ()


def test_a_name_in_several_slots_asks_which(folder):
    assert refusal("none", folder) == "2 techniques are called 'none': say input/none or norm/none"
    assert names(find("input/none", folder)) == [("input", "none")]


def test_distributions_modules_and_entry_points(folder):
    every = names(find("cnnbench", folder))
    assert len(every) > 150
    assert every == names(find("builtin", folder)) == names(find("cnnbench_plugins", folder))
    norms = find("cnnbench_plugins.norm", folder)
    assert {entry.card.slot for entry in norms.entries} == {"norm"}


def test_the_file_of_an_installed_plugin_is_not_loaded_anew(folder):
    import cnnbench_plugins.loss.cross_entropy as module

    target = find(module.__file__, folder)
    assert names(target) == [("loss", "cross_entropy")]
    assert target.plugins == ()


def test_an_installed_package_by_any_of_its_names(folder, install_plugin):
    install_plugin("other_lab", LEVEL.format(slot="norm", name="level_of_lab"))
    for word in ("other_lab", "other-lab", "Other.Lab", "level_of_lab", "norm/level_of_lab"):
        assert names(find(word, folder)) == [("norm", "level_of_lab")]


def test_a_package_named_as_its_own_technique_is_the_package(folder, install_plugin):
    source = LEVEL.format(slot="norm", name="both").replace("return [Level]", "return [Level, Other]")
    other = '\n@technique("pooling", "beside")\nclass Other:\n    """Leaves all as it is."""\n'
    install_plugin("both", source + other)
    assert names(find("both", folder)) == [("pooling", "beside"), ("norm", "both")]


def test_a_package_named_as_another_ones_technique_asks_which(folder, install_plugin):
    install_plugin("mixup", LEVEL.format(slot="norm", name="level_of_mixup"))
    text = refusal("mixup", folder)
    assert text == "'mixup' is the name of a package and of a technique: say augmentation/mixup, or its module"


@pytest.mark.parametrize(
    ("word", "told"),
    [
        ("norms.toml", "norms.toml is a suite, expected a plugin: cnnbench run norms.toml runs it"),
        ("./lab", "./lab is a folder: expected a .py file (such as ./lab/plain.py), a module or an installed dist"),
        ("lab/", "lab/ is a folder: expected a .py file (such as lab/plain.py), a module or an installed dist"),
        ("", "the target is an empty text: expected a .py file, "),
        ("norm", "'norm' is a slot: name one of its techniques, as norm/batch, norm/batch_renorm, "),
        ("nrom/group", "unknown target 'nrom/group': 'nrom' is neither a slot nor a folder here: did you mean norm/gr"),
        ("nrom/x", "unknown target 'nrom/x': 'nrom' is neither a slot nor a folder here: did you mean 'norm'?"),
        ("levle.py", "no such file 'levle.py': did you mean 'level.py'?"),
        ("gruop", "unknown target 'gruop': did you mean 'group'?"),
        ("norm/gruop", "unknown norm 'gruop': did you mean 'group'?"),
        ("quite-another-thing", "unknown target 'quite-another-thing': expected a .py file, a module, an installed"),
        ("rich", "rich is installed, but names no plugin: expected an entry point in group 'cnnbench'"),
    ],
)
def test_what_means_nothing_is_told_with_the_nearest(folder, word, told):
    assert refusal(word, folder).startswith(told)


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("import torch\n\ndef f():\n    return missing\n\nf()\n", "broken.py, line 4: NameError: name 'missing' is"),
        ("x = (\n", "broken.py, line 1: SyntaxError: '(' was never closed"),
        ("x = 1\n", "broken.py: has no function with @hookimpl"),
        (LEVEL.format(slot="norm", name="broken").partition("@hookimpl")[0], "broken.py: has techniques and registers"),
        (LEVEL.format(slot="nrom", name="broken"), "broken.py, line 5: PluginError: "),
        (
            "from cnnbench import hookimpl\n\n@hookimpl\ndef cnnbench_run_finished(summary):\n    pass\n",
            "broken.py has hooks, and no technique to look at",
        ),
    ],
    ids=["raises", "syntax", "nothing", "no hook", "no slot", "watches"],
)
def test_a_file_without_a_technique_says_why_and_where(folder, source, told):
    (folder / "broken.py").write_text(source, "utf-8")
    assert refusal("broken.py", folder).startswith(told)


def test_an_installed_plugin_that_does_not_load_says_why(folder, install_plugin):
    install_plugin("falling", "raise ValueError('no luck')")
    assert refusal("falling", folder) == "falling: failed to import falling: ValueError: no luck"
