"""The plugin host: discovery, provenance, and plugins that misbehave."""

from __future__ import annotations

import importlib

import pytest

from cnnbench import technique
from cnnbench.errors import PluginError, UsageError
from cnnbench.plugins import PluginHost
from cnnbench.registry import Entry, Owner, Registry

GOOD = '''
from cnnbench import hookimpl, technique

@technique("activation", "{name}")
class Good:
    """Does what it says."""
    def __call__(self, module):
        return module

@hookimpl
def cnnbench_register_techniques():
    return [Good]
'''


def test_a_third_party_plugin_comes_in_by_the_door_of_the_built_ins(install_plugin):
    install_plugin("thirdparty", GOOD.format(name="swoosh"))
    host = PluginHost.discover()
    assert host.problems == []
    entry = host.registry.get("activation", "swoosh")
    assert str(entry.owner) == "thirdparty 1.0"
    assert host.registry.get("norm", "group").owner.distribution == "cnnbench"


@pytest.mark.parametrize(
    ("source", "cause"),
    [
        ("import no_such_module_at_all", "No module named 'no_such_module_at_all'"),
        ("raise SystemExit(3)", "SystemExit"),
        ("def broken(:\n", "SyntaxError"),
        (
            "from cnnbench import hookimpl\n@hookimpl\ndef cnnbench_register_tecniques():\n    return []\n",
            "cnnbench_register_tecniques",
        ),
        (
            "from cnnbench import hookimpl\n@hookimpl\ndef cnnbench_register_techniques():\n    return 1 / 0\n",
            "ZeroDivisionError",
        ),
        (
            "from cnnbench import hookimpl\n@hookimpl\ndef cnnbench_register_techniques():\n    return [int]\n",
            "is not a technique",
        ),
        (
            GOOD.format(name="x").replace("cnnbench_register_techniques", "cnnbench_register_models"),
            "return it from cnnbench_register_techniques",
        ),
        ('from cnnbench import technique\n@technique("norms", "x")\nclass X:\n    """X."""\n', "unknown slot 'norms'"),
    ],
)
def test_a_broken_plugin_is_reported_and_the_rest_works_on(install_plugin, source, cause):
    install_plugin("broken", source)
    install_plugin("healthy", GOOD.format(name="healthy"))
    host = PluginHost.discover()
    assert len(host.problems) == 1
    assert "broken 1.0" in str(host.problems[0])
    assert cause in str(host.problems[0])
    assert host.registry.get("activation", "healthy")
    assert host.registry.get("norm", "batch")


def test_a_clash_names_both_owners_and_the_first_stays(install_plugin):
    install_plugin("clash", GOOD.format(name="relu"))
    host = PluginHost.discover()
    (problem,) = host.problems
    assert "activation 'relu' is registered twice: by cnnbench" in str(problem)
    assert "by clash 1.0" in str(problem)
    assert host.registry.get("activation", "relu").owner.distribution == "cnnbench"


def test_an_observer_that_raises_costs_nothing_but_its_own_report(install_plugin):
    install_plugin(
        "watcher",
        "from cnnbench import hookimpl\n"
        "@hookimpl\ndef cnnbench_run_finished(summary):\n    raise RuntimeError('no disk')\n"
        "@hookimpl\ndef cnnbench_check_trial(trial):\n    return 'never on ' + trial['device']\n"
        "@hookimpl\ndef cnnbench_describe_environment():\n    return {'watcher': 7}\n",
    )
    host = PluginHost.discover()
    host.run_finished({"suite": "s"})
    assert "cnnbench_run_finished failed: RuntimeError: no disk" in str(host.problems[0])
    assert host.check_trial(lambda: {"device": "cpu"}) == "never on cpu (watcher)"
    assert host.describe_environment() == {"watcher": "7"}


def test_unknown_names_come_with_the_nearest_right_one():
    registry = PluginHost.discover().registry
    with pytest.raises(UsageError, match="unknown norm 'gruop': did you mean 'group'"):
        registry.get("norm", "gruop")
    with pytest.raises(UsageError, match="unknown slot 'norms': did you mean 'norm'"):
        registry.get("norms", "group")
    with pytest.raises(UsageError, match="'mixup' belongs to slot 'augmentation'"):
        registry.get("regularizer", "mixup")


def test_a_technique_needs_a_docstring_and_a_plain_name():
    with pytest.raises(PluginError, match="no docstring"):

        @technique("norm", "bare")
        class Bare:
            pass

    with pytest.raises(PluginError, match="lower-case"):

        @technique("norm", "Loud Name")
        class Loud:
            """Doc."""


def test_the_source_digest_follows_the_code(install_plugin, tmp_path):
    install_plugin("changing", GOOD.format(name="changing"))
    before = PluginHost.discover().registry.get("activation", "changing").source_digest
    same = PluginHost.discover().registry.get("activation", "changing").source_digest
    file = tmp_path / "site-packages" / "changing.py"
    file.write_text(file.read_text() + "\n# changed\n")
    after = PluginHost.discover().registry.get("activation", "changing").source_digest
    assert before == same != after


def test_the_source_digest_follows_what_the_code_imports_of_its_own_package(tmp_path, monkeypatch):
    files = {
        "digested/__init__.py": "",
        "digested/_helper.py": "from digested import deeper\n",
        "digested/deeper.py": "VALUE = 1\n",
        "digested/unrelated.py": "VALUE = 1\n",
        "digested/sub/__init__.py": "",
        "digested/sub/beside.py": "from ..relative import VALUE\n",
        "digested/relative.py": "VALUE = 1\n",
        "digested/sub/mine.py": (
            "import os\nfrom cnnbench import technique\n"
            '@technique("activation", "mine")\nclass Mine:\n    """Mine."""\n'
            "    def __call__(self, module):\n        from digested._helper import deeper\n"
        ),
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    cls = importlib.import_module("digested.sub.mine").Mine

    def digest() -> str:
        return Entry(cls, Owner("test", "test", "0")).source_digest

    before = digest()
    for name, text in files.items():
        if not name.endswith("__init__.py"):
            (tmp_path / name).write_text(text + "# changed\n")
            assert (digest() != before) == (name != "digested/unrelated.py"), name
            (tmp_path / name).write_text(text)
    assert digest() == before


def test_registering_what_is_no_technique_is_refused():
    with pytest.raises(PluginError, match="decorate the class"):
        Registry().add(int, Owner("p", "d", "1"))
