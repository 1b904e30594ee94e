"""Plugins that are not installed: a file or a module that a suite names, from finding it to publishing what it made."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import pickle
import shutil
import subprocess
import sys
import textwrap
from functools import partial
from pathlib import Path

import pytest

from cnnbench.cli import main
from cnnbench.errors import StoreError, SuiteError, UsageError
from cnnbench.execute.ray_needs import needs_of, packages_here
from cnnbench.local_plugins import locate_plugin
from cnnbench.opening import open_suite
from cnnbench.parcel import unpack
from cnnbench.paths import content_within
from cnnbench.plugins import PluginHost
from cnnbench.publication import code_files
from cnnbench.schema import json_schema
from cnnbench.store import Store

_spec = importlib.util.spec_from_file_location("synthetic_records", Path(__file__).with_name("synthetic_records.py"))
synthetic_records = importlib.util.module_from_spec(_spec)
sys.modules["synthetic_records"] = synthetic_records
_spec.loader.exec_module(synthetic_records)
ACT = '''
from cnnbench import hookimpl, technique

{top}
@technique("activation", "{name}")
class Mine:
    """Clips the activations."""

    most: float = 3.0

    def __call__(self, module):
        {body}


@hookimpl
def cnnbench_register_techniques():
    return [Mine]
'''
TALLY = '''
from cnnbench import hookimpl, technique


@technique("reporter", "tally")
class Tally:
    """Counts."""

    def __call__(self, records):
        return f"{len(records)} of {records[0]['arm']}"


@hookimpl
def cnnbench_register_reporters():
    return [Tally]
'''
INLINE = """
from torch import nn


class Clip(nn.Module):
    def __init__(self, most):
        super().__init__()
        self.most = most

    def forward(self, x):
        return x.clamp(0, self.most)

"""


def source(name: str = "clip", top: str = "", body: str = "return module") -> str:
    """A plugin with one activation."""
    return ACT.format(name=name, top=top, body=body)


@pytest.fixture
def lab(tmp_path, monkeypatch, tiny_suite):
    """A folder to work in, with ``write(name, text)`` and ``suite(name, plugins, arms)``."""

    class Lab:
        folder = tmp_path / "lab"

        def write(self, name: str, text: str) -> Path:
            path = self.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(textwrap.dedent(text))
            return path

        def suite(self, name: str, plugins: list[str], *techniques: str) -> Path:
            arms = {technique: f'{{ activation = "{technique}" }}' for technique in techniques}
            return self.write(name, tiny_suite(arms, plugins=plugins))

        def mistakes(self, *plugins: str, imports: bool = True) -> list[str]:
            with pytest.raises(SuiteError) as caught:
                open_suite(self.suite("s.toml", list(plugins), "clip"), PluginHost.discover(), imports=imports)
            return [str(problem).replace(f"{self.folder}/", "") for problem in caught.value.problems]

    made = Lab()
    made.folder.mkdir()
    monkeypatch.chdir(made.folder)
    return made


def keys(folder: Path) -> dict[str, str]:
    """Key of the last record of each arm."""
    return {record["arm"]: record["key"] for record in Store(folder).read().records}


# As a newcomer would do it.


def test_all_three_ways_in_one_command_train_in_worker_processes(lab, install_plugin, capsys):
    lab.write("my_act.py", source("of_file", INLINE, "return Clip(self.most)"))
    lab.write("my_lab/__init__.py", "")
    lab.write("my_lab/layers.py", INLINE)
    lab.write("my_lab/acts.py", source("of_module", "", "from .layers import Clip\n        return Clip(self.most)"))
    install_plugin("clipping", source("of_package", INLINE, "return Clip(self.most)"))
    lab.suite("file.toml", ["my_act.py"], "of_file")
    lab.suite("module.toml", ["my_lab.acts"], "of_module")
    lab.suite("package.toml", [], "of_package")
    code = main(["run", "file.toml", "module.toml", "package.toml", "--cache", "cache", "--workers", "1", "--quiet"])
    assert code == 0
    shown = capsys.readouterr().out
    accuracies = []
    for name in ("file", "module", "package"):
        records = Store(lab.folder / "results" / name).read().records
        assert [(record["arm"], record["status"]) for record in records] == [("baseline", "ok"), (f"of_{name}", "ok")]
        assert f"of_{name}" in shown
        accuracies.append({record["arm"]: record["metrics"]["accuracy"] for record in records}[f"of_{name}"])
    assert len(set(accuracies)) == 1, "one network, whichever way it comes in"
    kept = lab.folder / "results"
    assert sorted(path.name for path in (kept / "file" / "plugins").iterdir()) == ["my_act.py"]
    assert (kept / "module" / "plugins" / "my_lab" / "layers.py").read_text() == INLINE
    assert not (kept / "package" / "plugins").exists()
    assert main(["report", "results/file"]) == 0, "a report needs no plugin"


def test_a_suite_names_its_own_plugins_alone(lab):
    lab.write("one.py", source("clip"))
    lab.write("two.py", source("clip2"))
    host = PluginHost.discover()
    first = open_suite(lab.suite("a.toml", ["one.py"], "clip"), host)
    second = open_suite(lab.suite("b.toml", ["two.py"], "clip2"), host)
    assert "clip2" not in first.host.registry.names("activation")
    assert "clip" not in second.host.registry.names("activation")
    assert host.local == ()
    assert "clip" not in host.registry.names("activation")
    assert [plugin.name for plugin in first.host.local] == ["one.py"]
    assert first.suite.plugins == ("one.py",)
    assert set(first.suite.code) == {"one.py"}


def test_list_show_and_schema_take_a_plugin(lab, capsys):
    lab.write("my_act.py", source())
    assert main(["list", "activation", "--plugin", "my_act.py"]) == 0
    assert "Clips the activations" in capsys.readouterr().out
    assert main(["show", "clip", "--plugin", "my_act.py"]) == 0
    assert "my_act.py (local file), my_act" in capsys.readouterr().out
    assert main(["schema", "--plugin", "my_act"]) == 0
    schema = json.loads(capsys.readouterr().out)
    assert "activation.clip" in schema["$defs"]
    assert schema["properties"]["plugins"]["items"]["type"] == "string"
    assert main(["list", "--plugin", "my_akt.py", "--plugin", "my_act.py"]) == 2
    assert "--plugin: no such file 'my_akt.py': did you mean 'my_act.py'?" in capsys.readouterr().err


def test_report_takes_a_format_from_a_file(lab, capsys):
    synthetic_records.Run({"baseline": {"accuracy": 0.9}}, seeds=2).write(lab.folder / "results")
    lab.write("my_tally.py", TALLY)
    assert main(["report", "results", "--format", "tally", "--plugin", "my_tally.py"]) == 0
    assert capsys.readouterr().out == "2 of baseline\n"
    assert main(["report", "results", "--format", "tally"]) == 2
    assert "--format: unknown format 'tally'" in capsys.readouterr().err


def test_the_schema_without_plugins_knows_the_key():
    assert "plugins" in json_schema(PluginHost.discover().registry)["properties"]


# Where it lies.


def test_a_plugin_is_found_relative_to_its_suite(lab):
    lab.write("deep/plugins_here/my_act.py", source())
    lab.write("deep/my_lab/acts.py", source())
    plugin = locate_plugin("plugins_here/my_act.py", Path("deep"))
    assert (plugin.module, plugin.folder, plugin.owner.distribution) == (
        "my_act",
        lab.folder / "deep" / "plugins_here",
        "my_act.py",
    )
    module = locate_plugin("my_lab.acts", Path("deep"))
    assert (module.module, module.folder) == ("my_lab.acts", lab.folder / "deep")
    assert str(module.owner) == "my_lab.acts (local module)"
    assert locate_plugin(str(plugin.file), Path()).file == plugin.file


def test_a_module_on_the_import_path_is_found(lab, tmp_path, monkeypatch):
    lab.write("../elsewhere/far_lab/__init__.py", source())
    monkeypatch.syspath_prepend(str(tmp_path / "elsewhere"))
    plugin = locate_plugin("far_lab", lab.folder)
    assert plugin.folder == tmp_path / "elsewhere"
    host = PluginHost.discover(local=[plugin])
    assert host.problems == []
    assert host.registry.get("activation", "clip").owner == plugin.owner


@pytest.mark.parametrize(
    ("written", "text"),
    [
        ("my_akt.py", "no such file 'my_akt.py': did you mean 'my_act.py'?"),
        ("no/my_act.py", "no such file 'no/my_act.py': there is no folder 'no'"),
        ("my-act.py", "my-act.py: Python can't import a file of this name: rename it, say to my_act.py"),
        ("notes.txt/x", "no such file 'notes.txt/x'"),
        ("./notes.txt", "./notes.txt: expected a Python file, whose name ends with .py"),
        ("pack/__init__.py", "pack/__init__.py: name the package itself as a module, such as 'pack'"),
        ("./pack", "./pack is a folder: expected a Python file, or a package named as a module, such as 'pack'"),
        ("my_akt", "no module 'my_akt' beside the suite nor on the import path: did you mean 'my_act.py'?"),
        ("json", "json is a module of Python's own library, not a plugin"),
        ("my act", "expected a Python file such as my_norm.py, or a module such as my_lab.norms, got 'my act'"),
    ],
)
def test_what_is_no_plugin_is_told_with_what_there_is(lab, written, text):
    for name in ("my_act.py", "my-act.py", "notes.txt", "pack/__init__.py"):
        lab.write(name, "")
    if written == "my-act.py":
        assert (lab.folder / written).exists()
    with pytest.raises(UsageError) as caught:
        locate_plugin(written, lab.folder)
    assert text in str(caught.value)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("json.py", "json.py has the name of a module of Python's own library, 'json': rename it"),
        ("pluggy.py", "pluggy.py can't be the module 'pluggy', for another is imported already, "),
        ("tabulate.py", "tabulate.py can't be the module 'tabulate', for another is "),
    ],
)
def test_a_file_that_python_would_not_find_is_to_be_renamed(lab, name, text):
    lab.write(name, source())
    (line, _) = lab.mistakes(name)
    assert line.startswith(f"s.toml:4: plugins[0]: {text}")


def test_a_neighbour_that_python_would_not_find_is_to_be_renamed(lab):
    lab.write("pluggy.py", "VALUE = 1\n")
    lab.write("my_act.py", source(top="import pluggy"))
    (line, _) = lab.mistakes("my_act.py")
    assert "pluggy.py can't be the module 'pluggy', for another is imported already" in line


def test_two_files_of_one_name_can_not_be_told_apart_unless_they_are_the_same(lab):
    lab.write("a/my_act.py", source())
    lab.write("b/my_act.py", source("clip2"))
    lab.write("c/my_act.py", source())
    host = PluginHost.discover(local=[locate_plugin("my_act.py", Path("a"))])
    assert host.problems == []
    (problem,) = host.with_local([locate_plugin("my_act.py", Path("b"))]).problems
    assert "another is imported already, " in problem.cause
    assert PluginHost.discover(local=[locate_plugin("my_act.py", Path("c"))]).problems == []
    for gone in ("a", "c"):  # nobody can mean these any more
        shutil.rmtree(lab.folder / gone)
    assert PluginHost.discover(local=[locate_plugin("my_act.py", Path("b"))]).problems == []


# Mistakes.


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("import os\n\nprint(missing)\n", "my_act.py, line 3: NameError: name 'missing' is not defined"),
        ("def broken(:\n", "my_act.py, line 1: SyntaxError: invalid syntax"),
        ("import no_such_module\n", "my_act.py, line 1: ModuleNotFoundError: No module named 'no_such_module'"),
        ("raise SystemExit(3)\n", "my_act.py, line 1: SystemExit: 3"),
        ("from . import layers\n", "name it as a module, with its package, in place of my_act.py"),
        ("import helper\n", "helper.py, line 2: ZeroDivisionError: division by zero"),
        (
            source().partition("@hookimpl")[0],
            "my_act.py: has techniques and registers none: add 'from cnnbench import hookimpl' and the function",
        ),
        (source().partition("@hookimpl")[0], "'@hookimpl def cnnbench_register_techniques(): return [Mine]'"),
        ("VALUE = 1\n", "my_act.py: has no function with @hookimpl, so that it adds nothing"),
        (source("relu"), "my_act.py: activation 'relu' is registered twice: by cnnbench"),
        (source().replace("_techniques()", "_tecniques()"), "cnnbench_register_tecniques"),
        (source().replace('"activation"', '"activations"'), "unknown slot 'activations'"),
        ('CNNBENCH_CONTRACT = "7.0"\nimport gone\n', "my_act.py: it was built for version 7.0 of the plugin contract"),
    ],
)
def test_a_file_that_does_not_load_is_a_mistake_of_the_suite(lab, text, line):
    lab.write("helper.py", "\n1 / 0\n")
    lab.write("my_act.py", text)
    first, second = lab.mistakes("my_act.py")
    assert first.startswith("s.toml:4: plugins[0]: ")
    assert line in first
    assert second.endswith("unknown activation 'clip': it may be in my_act.py, which is not loaded")


def test_mistakes_of_plugins_are_told_among_all_others(lab):
    lab.write("my_act.py", source())
    lab.write("broken.py", "1 / 0\n")
    lines = lab.mistakes("my_act.py", "broken.py", "my_akt.py", "my_act.py")
    assert [line.partition(": ")[2] for line in lines] == [
        "plugins[1]: broken.py, line 1: ZeroDivisionError: division by zero",
        "plugins[2]: no such file 'my_akt.py': did you mean 'my_act.py'?",
        "plugins[3]: my_act.py is listed twice",
    ]


@pytest.mark.parametrize("value", ['"my_act.py"', "[1]", "[[]]", '[""]', "{}"])
def test_what_is_no_list_of_names_is_a_mistake(lab, value):
    path = lab.suite("s.toml", [], "relu")
    path.write_text(path.read_text().replace("plugins = []", f"plugins = {value}"))
    with pytest.raises(SuiteError, match=r"s\.toml:4: plugins"):
        open_suite(path, PluginHost.discover())


def test_nothing_runs_where_a_plugin_is_broken(lab, capsys):
    lab.write("my_act.py", "1 / 0\n")
    lab.suite("s.toml", ["my_act.py"])
    assert main(["run", "s.toml"]) == 2
    assert capsys.readouterr().err.splitlines() == [
        "s.toml:4: plugins[0]: my_act.py, line 1: ZeroDivisionError: division by zero",
        "cnnbench: 1 mistake; nothing has run",
    ]
    assert not (lab.folder / "results").exists()


# Suites of strangers.


@pytest.mark.parametrize("command", ["run", "plan"])
def test_no_import_refuses_a_suite_before_any_of_its_code_runs(lab, command, capsys):
    lab.write("my_act.py", f"from pathlib import Path\nPath('{lab.folder}/ran').touch()\n{source()}")
    lab.suite("s.toml", ["my_act.py"], "clip")
    assert main([command, "s.toml", "--no-import"]) == 2
    assert "s.toml:4: plugins: names code that is imported, which is forbidden here" in capsys.readouterr().err
    assert not (lab.folder / "ran").exists()
    assert "my_act" not in sys.modules
    assert str(lab.folder) not in sys.path


# Results and the code behind them.


def test_a_change_of_the_file_or_of_what_it_imports_makes_its_own_results_stale(lab):
    lab.write("my_act.py", source(body="import near\n        return near.f(module)"))
    lab.write("near.py", "import pack.inner\n\ndef f(module):\n    return module\n")
    lab.write("pack/__init__.py", "")
    lab.write("pack/inner.py", "")
    lab.write("unrelated.py", "")
    lab.write("other.py", source("other"))

    def digests() -> tuple[str, ...]:
        host = PluginHost.discover(local=[locate_plugin(name, lab.folder) for name in ("my_act.py", "other.py")])
        assert host.problems == []
        return tuple(host.registry.get("activation", name).source_digest for name in ("clip", "other", "relu"))

    before = digests()
    lab.write("unrelated.py", "VALUE = 2\n")
    assert digests() == before
    for name in ("my_act.py", "near.py", "pack/__init__.py", "pack/inner.py"):
        with (lab.folder / name).open("a") as file:
            file.write("# changed\n")
        after = digests()
        assert (after[0] == before[0], after[1:] == before[1:]) == (False, True), name
        before = after


def test_the_code_that_runs_is_the_code_of_the_digest_in_the_same_process_too(lab):
    lab.write("near.py", "VALUE = 1\n")
    lab.write("my_act.py", source(body="import near\n        return near.VALUE"))
    plugin = locate_plugin("my_act.py", lab.folder)

    def value() -> object:
        return PluginHost.discover(local=[plugin]).registry.get("activation", "clip").cls()(None)

    assert value() == 1
    lab.write("my_act.py", source(body="import near\n        return near.VALUE+1"))
    assert value() == 2
    lab.write("near.py", "VALUE = 10\n")
    assert value() == 11


def test_where_the_folder_lies_is_no_part_of_keys(lab):
    for folder in ("a", "b/c"):
        lab.write(f"{folder}/my_act.py", source(top="import near"))
        lab.write(f"{folder}/near.py", "")
    entries = [
        PluginHost.discover(local=[locate_plugin(name, Path())]).registry.get("activation", "clip")
        for name in ("a/my_act.py", "b/c/my_act.py")
    ]
    assert len({(entry.owner.distribution, entry.owner.version, entry.source_digest) for entry in entries}) == 1


def test_a_worker_refuses_code_that_is_not_what_the_run_began_with(lab):
    lab.write("my_act.py", source())
    (plugin,) = PluginHost.discover(local=[locate_plugin("my_act.py", lab.folder)]).local
    lab.write("my_act.py", source("clip", body="return None"))
    host = PluginHost.discover(local=[plugin])
    assert [problem.cause for problem in host.problems] == ["my_act.py has changed since the run began: run again"]
    with pytest.raises(
        UsageError, match=r"my_act\.py, which is not loaded: my_act\.py has changed since the run began"
    ):
        host.registry.get("activation", "clip")


def test_a_plugin_that_is_left_out_in_a_worker_says_why(lab):
    lab.write("my_act.py", source())
    host = PluginHost.discover({"my_act.py": "it hung"}, local=[locate_plugin("my_act.py", lab.folder)])
    assert host.local == ()
    with pytest.raises(UsageError, match=r"my_act\.py, which is not loaded: it hung"):
        host.registry.get("activation", "clip")


def test_a_module_of_an_installed_plugin_comes_in_once(lab, install_plugin):
    install_plugin("clipping", source())
    host = PluginHost.discover(local=[locate_plugin("clipping", lab.folder)])
    assert host.problems == []
    assert str(host.registry.get("activation", "clip").owner) == "clipping 1.0"


def test_a_plugin_that_only_watches_is_fine(lab):
    lab.write("watch.py", "from cnnbench import hookimpl\n\n@hookimpl\ndef cnnbench_plan_ready(plan):\n    pass\n")
    assert PluginHost.discover(local=[locate_plugin("watch.py", lab.folder)]).problems == []


# Clusters.


def test_a_node_loads_what_is_sent_to_it_from_where_it_lies_there(lab, tmp_path, install_plugin):
    lab.write("near/my_act.py", source(top="import _layers"))
    lab.write("near/_layers.py", "VALUE = 1\n")
    lab.write("near/watch.py", "from cnnbench import hookimpl\n\n@hookimpl\ndef cnnbench_plan_ready(plan):\n    pass\n")
    install_plugin("clipping", source("elsewhere"))
    plugins = ["near/my_act.py", "near/watch.py", "clipping"]
    suite, host = open_suite(lab.suite("s.toml", plugins, "clip"), PluginHost.discover())
    needs = needs_of(suite, host.registry, host.local)
    assert {"my_act.py", "_layers.py", "watch.py"} <= set(needs.code)
    node = tmp_path / "node"
    unpack(needs.code, node)
    (mine, watch, _) = needs.local_in(node)
    assert (mine.folder, watch.folder) == (node, node)
    here = packages_here(needs, host.registry)
    assert here["plugins of my_act.py"].startswith("(local file) (sources ")
    (tmp_path / "needs").write_bytes(pickle.dumps(needs))
    done = subprocess.run(
        [sys.executable, "-c", NODE, str(node), str(tmp_path / "needs")],
        capture_output=True,
        text=True,
        check=True,
        timeout=100,
        cwd=tmp_path,
    )
    assert json.loads(done.stdout) == [[], here["plugins of my_act.py"]]


NODE = """
import json, pickle, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from cnnbench.execute.ray_needs import packages_here
from cnnbench.plugins import PluginHost
needs = pickle.loads(Path(sys.argv[2]).read_bytes())
host = PluginHost.discover(local=needs.local_in(Path(sys.argv[1])))
print(json.dumps([[str(one) for one in host.problems], packages_here(needs, host.registry)["plugins of my_act.py"]]))
"""

# Publishing.


def test_what_is_published_is_the_code_that_ran(lab):
    lab.write("results/plugins/my_act.py", "VALUE = 1\n")
    said = hashlib.sha256(b"VALUE = 1\n").hexdigest()
    heading = {"suite": {"name": "s", "code": {"my_act.py": said}}}
    read = partial(content_within, lab.folder / "results")
    assert code_files(heading, read) == {"plugins/my_act.py": b"VALUE = 1\n"}
    lab.write("results/plugins/my_act.py", "VALUE = 2\n")
    with pytest.raises(UsageError, match=rf"another version of plugins/my_act\.py: their sha256 is {said[:12]}"):
        code_files(heading, read)
    lab.write("secret.py", "")
    with pytest.raises(StoreError, match="leads out of the folder"):
        code_files({"suite": {"code": {"../../secret.py": said}}}, read)
    with pytest.raises(UsageError, match=r"no plugins/gone\.py beside the records"):
        code_files({"suite": {"code": {"gone.py": said}}}, read)


def test_the_copies_stand_for_files_that_are_not_found_by_their_path(lab):
    lab.write("lab/my_act.py", source())
    lab.write("public/plugins/my_act.py", source())
    lab.write("public/plugins/my_lab/acts.py", source("other"))
    found = [locate_plugin(name, Path("public")).file for name in ("../nowhere/my_act.py", "my_lab.acts")]
    assert found == [lab.folder / "public/plugins/my_act.py", lab.folder / "public/plugins/my_lab/acts.py"]
    assert locate_plugin("../lab/my_act.py", Path("public")).file == lab.folder / "lab/my_act.py"
    assert locate_plugin("../lab/my_act.py", Path("public"), copies=True).file == found[0]


@pytest.mark.slow  # publishing draws figures
def test_a_published_folder_runs_again_elsewhere(lab, tmp_path, capsys, monkeypatch):
    lab.write("near/my_act.py", source(body="from _layers import Clip\n        return Clip(self.most)"))
    lab.write("near/_layers.py", INLINE)
    lab.suite("s.toml", ["near/my_act.py"], "clip")
    inline = ["--executor", "inline", "--quiet", "--cache", str(tmp_path / "cache")]
    assert main(["run", "s.toml", *inline]) == 0
    assert main(["export", "results/s", "--arm", "clip", "--cache", str(tmp_path / "cache")]) == 2
    assert "activation 'clip' is of near/my_act.py, code that the run's suite names: with --allow-import" in (
        capsys.readouterr().err
    )
    exported = ["--format", "state_dict", "--output", "exported", "--cache", str(tmp_path / "cache")]
    assert main(["export", "results/s", "--arm", "clip", "--allow-import", *exported]) == 0
    assert main(["publish", "results/s", "--to", str(tmp_path / "public")]) == 0
    shutil.rmtree(lab.folder)  # the publication stands for itself
    public = tmp_path / "public" / "s"
    monkeypatch.chdir(public)
    capsys.readouterr()
    assert main(["verify", "."]) == 0
    assert "plugins/_layers.py: matches" in capsys.readouterr().out
    assert main(["verify", ".", "--rerun", "clip"]) == 2
    assert "forbidden here" in capsys.readouterr().err
    assert main(["verify", ".", "--rerun", "clip", "--allow-import"]) == 0
    assert "agree exactly" in capsys.readouterr().out
    before = keys(public)
    assert main(["run", "s.toml", "--results", "again", *inline]) == 0
    assert keys(public / "again") == before
    with (public / "plugins" / "_layers.py").open("a") as file:
        file.write("# touched\n")
    assert main(["verify", "."]) == 1
    assert "the records came from another version of plugins/_layers.py" in capsys.readouterr().out


@pytest.mark.slow
def test_pytest_collects_and_runs_a_suite_with_plugins(lab):
    lab.write("suites/my_act.py", source("clip", INLINE, "return Clip(self.most)"))
    lab.suite("suites/s.toml", ["my_act.py"], "clip")

    def run(*more: str) -> subprocess.CompletedProcess[str]:
        command = [
            sys.executable,
            "-m",
            "pytest",
            "suites",
            "-q",
            "-p",
            "no:cacheprovider",
            "--cnnbench-cache",
            "cache",
        ]
        return subprocess.run([*command, *more], capture_output=True, text=True, check=False, timeout=200)

    done = run()
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 passed" in done.stdout
    refused = run("--cnnbench-no-import")
    assert "plugins: names code that is imported, which is forbidden here" in refused.stdout
