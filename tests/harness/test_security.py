"""What strangers' files can not do: lead out of folders, import, call, steer a terminal, become markup or formulas."""

from __future__ import annotations

import csv
import functools
import importlib.util
import io
import json
import os
import re
import socket
import subprocess
import sys
import zipfile
from html.parser import HTMLParser
from pathlib import Path, PurePosixPath, PureWindowsPath
from types import SimpleNamespace
from xml.etree import ElementTree as ET

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import fx, nn

from cnnbench.artifact import load_model, save_model
from cnnbench.cli import main
from cnnbench.errors import StoreError, SuiteError, UsageError
from cnnbench.figures.svg import finished
from cnnbench.importing import defines, located
from cnnbench.paths import check_readable, name_fault, within
from cnnbench.plugins import PluginHost
from cnnbench.publication import digest
from cnnbench.publish import publish
from cnnbench.report_page import html_page
from cnnbench.rerun import rerun
from cnnbench.store import FILE, Store
from cnnbench.suite import parse
from cnnbench.tables import make_report, render
from cnnbench.text import csv_cell, unsteered
from cnnbench_plugins.model.imported import Imported

_spec = importlib.util.spec_from_file_location("mutations", Path(__file__).with_name("mutations.py"))
assert _spec is not None
assert _spec.loader is not None
mutations = importlib.util.module_from_spec(_spec)
sys.modules["mutations"] = mutations
_spec.loader.exec_module(mutations)

SUITE = b'question = "Which?"\ndataset = "digits"\nmodel = "resnet"\nseeds = 3\n'


@pytest.fixture(scope="module")
def registry():
    return PluginHost.discover().registry


def results(folder, **suite):
    """A results folder of a run that names its suite so."""
    folder.mkdir(parents=True)
    told = {"name": "tiny", "question": "Which?", "sha256": digest(SUITE), "file": "tiny.toml", **suite}
    lines = [json.dumps({**record, "suite": told}) for record in mutations.records(1)]
    (folder / FILE).write_text("\n".join(lines) + "\n")
    (folder.parent / "given.toml").write_bytes(SUITE)
    return folder


class TestNames:
    @pytest.mark.parametrize(
        "name",
        [
            "",
            " ",
            ".",
            "..",
            "a/b",
            "a\\b",
            "C:",
            "a\0b",
            "a\nb",
            "a\x1b[0m",
            "\u202egnp",
            "con",
            "NUL.txt",
            "lpt1",
            "a.",
            "a ",
        ],
    )
    def test_what_is_no_name_of_a_file_is_refused(self, name):
        assert name_fault(name)

    @pytest.mark.parametrize("name", ["tiny", "a b", "größe", "结果", ".hidden", "a..b", "console", "a|b", "x" * 200])
    def test_what_is_one_is_not(self, name):
        assert name_fault(name) == ""

    @given(st.text(alphabet=st.sampled_from("./\\: \0\nacon~1\u202e"), max_size=8) | st.text(max_size=8))
    def test_a_sound_name_is_one_part_of_a_path_on_every_system(self, name):
        if name_fault(name) == "":
            for kind in (PurePosixPath, PureWindowsPath):
                assert kind("/top", name).parent == kind("/top")
                assert kind("/top", name).name == name

    def test_links_lead_nowhere(self, tmp_path):
        folder, other = tmp_path / "in", tmp_path / "out"
        folder.mkdir()
        other.mkdir()
        (folder / "figures").symlink_to(other)
        (folder / "table.md").symlink_to(other / "gone")
        assert within(folder, "report.html") == folder / "report.html"
        assert within(folder, "new/one.svg") == folder / "new" / "one.svg"
        for name in ("figures/forest.svg", "table.md", "../out/x", str(other / "x"), "a/../../out/x", "\0"):
            with pytest.raises(StoreError, match="leads out of the folder"):
                within(folder, name)


class TestPublishing:
    @pytest.mark.parametrize("file", ["../evil.toml", "/tmp/evil.toml", "..", "a\0b", "records.jsonl", "Table.md", ""])
    def test_a_suite_file_of_another_place_is_not_written(self, tmp_path, file):
        folder = results(tmp_path / "run", file=file)
        with pytest.raises(UsageError, match="suite file"):
            publish(folder, tmp_path / "a" / "results", suite=tmp_path / "given.toml")
        assert sorted(path.name for path in tmp_path.iterdir() if path.name != "a") == ["given.toml", "run"]

    @pytest.mark.parametrize("name", ["..", "../up", "con", "a/b"])
    def test_nor_is_a_folder(self, tmp_path, monkeypatch, name):
        monkeypatch.setattr("cnnbench.publication.make_figures", lambda report, records: ())
        folder = results(tmp_path / "run", name=name)
        with pytest.raises(UsageError, match=r"the suite '.*' (is|has)"):
            publish(folder, tmp_path / "results", suite=tmp_path / "given.toml")
        assert not (tmp_path / "results").exists()

    def test_a_link_in_a_published_folder_is_not_written_through(self, tmp_path, monkeypatch):
        picture = SimpleNamespace(key="x", svg="<svg/>", png=lambda: b"", alt="", title="", caption="")
        monkeypatch.setattr("cnnbench.publication.make_figures", lambda report, records: (picture,))
        monkeypatch.setattr("cnnbench.publication.html_page", lambda *given, **more: "")
        folder = results(tmp_path / "results" / "tiny")
        (tmp_path / "out").mkdir()
        (folder / "figures").symlink_to(tmp_path / "out")
        with pytest.raises(StoreError, match="leads out of the folder"):
            publish(folder, tmp_path / "results", suite=tmp_path / "results" / "given.toml")
        assert list((tmp_path / "out").iterdir()) == []

    def test_verify_reads_no_other_file(self, tmp_path, capsys):
        folder = results(tmp_path / "run", file="../given.toml")
        (folder / "published.json").write_text('{"files": {}}')
        assert main(["verify", str(folder)]) == 1
        assert "'../given.toml' has the character '/'" in capsys.readouterr().out

    @pytest.mark.parametrize("suite", [b"\xff", b"x = ", b"a = " + b"[" * 5000])
    def test_a_suite_file_that_is_no_toml_is_one_line(self, tmp_path, suite):
        folder = results(tmp_path / "run", sha256=digest(suite))
        (tmp_path / "given.toml").write_bytes(suite)
        with pytest.raises(UsageError, match=r"tiny\.toml"):
            publish(folder, tmp_path / "results", suite=tmp_path / "given.toml")

    def test_the_key_of_a_model_leads_to_no_other_cache(self, tmp_path, capsys):
        folder = results(tmp_path / "run")
        path = folder / FILE
        path.write_text(path.read_text().replace("0" * 32, "../../other"))
        assert main(["export", str(folder), "--arm", "baseline", "--cache", str(tmp_path / "cache")]) == 2
        assert "the key of its model has the character '/'" in capsys.readouterr().err

    def test_a_device_is_not_read(self, tmp_path, capsys):
        if not Path("/dev/zero").exists():
            pytest.skip("needs /dev/zero")
        (tmp_path / "run").mkdir()
        (tmp_path / "run" / FILE).symlink_to("/dev/zero")
        assert main(["report", str(tmp_path / "run")]) == 2
        (tmp_path / "s.toml").symlink_to("/dev/zero")
        assert main(["plan", str(tmp_path / "s.toml")]) == 2
        assert capsys.readouterr().err.count("is a device, expected a") == 2

    @pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
    def test_nor_is_a_pipe_that_nobody_writes_to(self, tmp_path, capsys):
        (tmp_path / "run").mkdir()
        os.mkfifo(tmp_path / "run" / FILE)
        os.mkfifo(tmp_path / "p.toml")
        (tmp_path / "link").symlink_to(tmp_path / "run" / FILE)
        for path in (tmp_path / "run", tmp_path / "link"):
            assert main(["report", str(path)]) == 2
        assert main(["plan", str(tmp_path / "p.toml")]) == 2
        told = capsys.readouterr().err
        assert told.count(f"{FILE}: is a pipe, expected a file") == 1
        assert told.count("link: is a pipe, expected a file") == 1
        assert "this is a pipe, expected a suite file" in told
        store = Store(tmp_path / "run")
        with pytest.raises(StoreError, match="is a pipe, expected a file"), store.exclusive():
            pass

    def test_a_socket_is_none_either(self, tmp_path):
        if not hasattr(socket, "AF_UNIX"):
            pytest.skip("needs sockets with names")
        with socket.socket(socket.AF_UNIX) as one:
            try:
                one.bind(str(tmp_path / "s"))
            except OSError as error:  # the path is too long for one
                pytest.skip(str(error))
            with pytest.raises(StoreError, match="is a socket, expected a file"):
                check_readable(tmp_path / "s")


class TestImports:
    @pytest.mark.parametrize("name", ["...toml", "..toml", "nul.toml", "a\x1b[0m.toml"])
    def test_a_suites_name_is_that_of_a_folder(self, registry, name):
        with pytest.raises(SuiteError, match="rename the file"):
            parse(SUITE, name, registry)

    def test_no_import_forbids_code_that_a_suite_names_wherever_it_does(self, registry):
        text = SUITE.replace(b'"resnet"', b'{ name = "import", target = "own.nets:Net" }')
        arms = b"[design]\nkind = 'factorial'\nmodel = ['resnet', { name = 'import', target = 'own.nets:Net' }]\n"
        for content, line in ((text, 3), (SUITE.replace(b'model = "resnet"\n', b"") + arms, 6)):
            with pytest.raises(SuiteError) as caught:
                parse(content, "s.toml", registry, imports=False)
            told = [str(problem) for problem in caught.value.problems]
            assert any(f"s.toml:{line}: " in one and "imports code that the suite names" in one for one in told), told
        assert parse(text, "s.toml", registry).baseline.model.name == "import"

    @pytest.mark.parametrize("command", ["run", "plan"])
    def test_commands_forbid_it_on_request(self, tmp_path, monkeypatch, capsys, command):
        (tmp_path / "own_nets.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\ndef Net(): ...\n")
        (tmp_path / "s.toml").write_bytes(SUITE.replace(b'"resnet"', b'{ name = "import", target = "own_nets:Net" }'))
        monkeypatch.syspath_prepend(tmp_path)
        assert main([command, str(tmp_path / "s.toml"), "--no-import"]) == 2
        assert "imports code that the suite names" in capsys.readouterr().err
        assert not (tmp_path / "ran").exists()

    def test_a_published_suite_imports_nothing_unless_told_to(self, tmp_path):
        folder = results(tmp_path / "run")
        suite = SUITE.replace(b'"resnet"', b'{ name = "import", target = "own_gone:Net" }')
        (folder / "tiny.toml").write_bytes(suite)
        record = json.loads((folder / FILE).read_text().splitlines()[0])
        with pytest.raises(SuiteError, match="imports code that the suite names"):
            rerun(folder, record, PluginHost.discover())
        with pytest.raises(SuiteError, match="no module 'own_gone'"):
            rerun(folder, record, PluginHost.discover(), imports=True)

    @pytest.mark.parametrize("target", ["os:system", "subprocess:run", "builtins:eval", "shutil:rmtree", "__main__:x"])
    def test_pythons_own_library_holds_no_networks(self, target):
        with pytest.raises(ValueError, match="target must"):
            Imported(target)

    @pytest.mark.parametrize("target", ["a:b.__class__", "a.__init__:b", "a:__import__"])
    def test_names_of_the_language_are_refused(self, target):
        with pytest.raises(ValueError, match="not by '__"):
            Imported(target)

    @pytest.mark.parametrize(
        ("name", "message"),
        [("os.system", "'os' is a module"), ("system", "Python's own library"), ("run", "Python's own")],
    )
    def test_what_a_module_has_from_pythons_library_is_refused(self, tmp_path, monkeypatch, name, message):
        (tmp_path / "own_reexports.py").write_text("import os\nfrom os import system\nfrom subprocess import run\n")
        monkeypatch.syspath_prepend(tmp_path)
        with pytest.raises(UsageError, match=message):
            Imported(f"own_reexports:{name}")((1, 8, 8), 2)

    def test_a_module_is_found_without_running_it_or_its_package(self, tmp_path, monkeypatch):
        (tmp_path / "own_pack").mkdir()
        (tmp_path / "own_pack" / "__init__.py").write_text("raise SystemExit")
        (tmp_path / "own_pack" / "nets.py").write_text("raise SystemExit\nclass Net: ...\n")
        monkeypatch.syspath_prepend(tmp_path)
        spec = located("own_pack.nets")
        assert spec is not None
        assert spec.origin == str(tmp_path / "own_pack" / "nets.py")
        assert defines("own_pack.nets", "Net") is True
        assert defines("own_pack.nets", "Other") is False
        assert defines("own_pack.gone", "Net") is None
        assert defines("antigravity", "Net") is False
        assert "own_pack" not in sys.modules

    def test_the_module_as_a_command_has_the_same_places_to_import_from(self, tmp_path):
        (tmp_path / "own_nets.py").write_text("raise SystemExit('imported')")
        (tmp_path / "s.toml").write_bytes(SUITE.replace(b'"resnet"', b'{ name = "import", target = "own_nets:Net" }'))
        command = [sys.executable, "-m", "cnnbench", "plan", "s.toml"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 2
        assert "no module 'own_nets': install it" in done.stderr


class Calls:
    """Pickled as a call."""

    def __init__(self, function, *arguments):
        self.given = function, arguments

    def __reduce__(self):
        return self.given


class Noted(nn.Module):
    made: list[object] = []  # noqa: RUF012 - what was constructed

    def __init__(self, *arguments):
        super().__init__()
        self.made.append(arguments)


class TestModels:
    def refused(self, path, content):
        torch.save({"model": content, "input": nn.Identity(), "notes": "{}"}, path)
        with pytest.raises(StoreError) as caught:
            load_model(path)
        assert "\n" not in str(caught.value)
        return str(caught.value).removeprefix(f"{path}: ")

    def test_a_module_comes_back_without_being_constructed(self, tmp_path):
        save_model(tmp_path / "m.pt", Noted("once"), nn.Identity())
        Noted.made.clear()
        assert isinstance(load_model(tmp_path / "m.pt").model, Noted)
        assert Noted.made == []

    @pytest.mark.parametrize("how", ["directly", "by a rebuild function", "by a partial"])
    def test_a_file_can_not_have_a_module_constructed(self, tmp_path, how):
        Noted.made.clear()
        content = Calls(Noted, "evil")
        if how == "by a rebuild function":
            content = Calls(torch._tensor._rebuild_from_type_v2, Noted, nn.Module, ("evil",), {})
        elif how == "by a partial":
            content = Calls(functools.partial(Noted, "evil"))
        assert self.refused(tmp_path / "m.pt", content).startswith("calls ")
        assert Noted.made == []

    @pytest.mark.parametrize("function", [nn.functional.relu, bytearray, torch.Tensor, torch.nn.Linear])
    def test_nor_anything_else_called(self, tmp_path, function):
        assert self.refused(tmp_path / "m.pt", Calls(function, 8)).startswith("calls ")

    def test_modules_that_run_code_given_as_data_are_refused(self, tmp_path):
        class Root(nn.Module):
            pass

        Root.__module__, Root.__qualname__ = "torch.fx.graph_module", "GraphModule"
        path = tmp_path / "m.pt"
        with zipfile.ZipFile(_saved(path, fx.GraphModule)) as archive:
            assert any(entry.endswith("data.pkl") for entry in archive.namelist())
        with pytest.raises(StoreError, match=r"names torch\.fx\.\S+GraphModule, which can run code"):
            load_model(path)

    def test_a_module_that_does_not_define_the_name_is_not_imported(self, tmp_path, monkeypatch):
        (tmp_path / "own_effects.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
        monkeypatch.syspath_prepend(tmp_path)
        path = tmp_path / "m.pt"
        _renamed(path, b"own_effects")
        with pytest.raises(StoreError, match=r"names own_effects\.ReLU, which is no nn\.Module class"):
            load_model(path)
        assert not (tmp_path / "ran").exists()

    def test_a_file_that_grows_when_it_is_read_is_refused(self, tmp_path):
        path, other = tmp_path / "m.pt", tmp_path / "n.pt"
        save_model(path, nn.Linear(64, 64), nn.Identity())
        with zipfile.ZipFile(path) as old, zipfile.ZipFile(other, "w", zipfile.ZIP_DEFLATED) as new:
            for entry in old.infolist():
                new.writestr(entry.filename, old.read(entry))
        with pytest.raises(StoreError, match="its entries are compressed"):
            load_model(other)


def _saved(path, held):
    torch.save({"model": nn.Identity(), "input": nn.Identity(), "notes": "{}", "more": held}, path)
    return path


def _renamed(path, module):
    """A model file in which a class of torch has another module's name."""
    saved = path.with_name("first.pt")
    save_model(saved, nn.ReLU(), nn.Identity())
    with zipfile.ZipFile(saved) as old, zipfile.ZipFile(path, "w") as new:
        for entry in old.infolist():
            data = old.read(entry)
            new.writestr(entry.filename, data.replace(b"torch.nn.modules.activation", module))


HOSTILE = '<img src=x onerror="alert(1)">\'&amp;</script>javascript:alert(1)\\input{x}$`|*_[a](b)\x1b]0;x\x07\u202e'


def everywhere(value, text):
    """Plain data with a text added to every text but those that readers go by."""
    if isinstance(value, str):
        return value + text
    if isinstance(value, dict):
        keep = {"role", "status", "device", "primary", "metrics", "statistics", "kind", "stopped", "methods", "sha256"}
        return {name: item if name in keep else everywhere(item, text) for name, item in value.items()}
    return [everywhere(item, text) for item in value] if isinstance(value, list) else value


def hostile(text):
    """A run whose every name, reason, note, version and setting ends so."""
    made = []
    for record in mutations.records(2):
        one = everywhere(record, text)
        cells = {name + text: cell for name, cell in record["design"]["cells"].items()}
        one["design"] = {**one["design"], "kind": "factorial", "cells": cells}
        one["metrics"] = {**record["metrics"], f"own{text}": 1.0}
        one["measure"] = {**record["measure"], "metrics": [*record["measure"]["metrics"], f"own{text}"]}
        made.append(one)
    made[-1].update(status="failed", reason="why" + text, trace="Traceback\n" + text)
    return made


class Tags(HTMLParser):
    def __init__(self, page):
        super().__init__()
        self.found: set[tuple[str, tuple[str, ...]]] = set()
        self.links: set[str] = set()
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.found.add((tag, tuple(sorted(name for name, _ in attrs))))
        self.links |= {value or "" for name, value in attrs if name in {"href", "src", "xlink:href"}}


class TestEscapes:
    def test_nothing_in_records_becomes_markup_of_the_page(self):
        pages = [
            html_page(make_report(records), records, (), suite_text=f'a = "{text}"')
            for text in ("x", HOSTILE)
            for records in [hostile(text)]
        ]
        harmless, made = map(Tags, pages)
        assert made.found == harmless.found
        assert made.links == harmless.links
        assert all(link.startswith("#") for link in made.links)
        assert not {"\x1b", "\x07", "\u202e"} & set(pages[1])

    def test_nor_of_a_figure(self):
        raw = '<svg viewBox="0 0 1 1"><g id="a"></g></svg>'
        root = ET.fromstring(finished(raw, "k", HOSTILE, HOSTILE))
        assert {element.tag.rpartition("}")[2] for element in root.iter()} == {"svg", "title", "desc", "style", "g"}

    def test_nor_a_command_in_latex(self):
        source = render(hostile(HOSTILE), "latex")
        assert source.isascii()
        body = source.partition(r"\begin{document}")[2]
        assert r"\input{" not in body
        known = set(re.findall(r"\\[a-zA-Z]+", render(hostile("x"), "latex")))
        added = set(re.findall(r"\\[a-zA-Z]+", source)) - known
        assert added <= {r"\textbackslash", r"\texttt", r"\char", r"\allowbreak"}, added

    def test_nor_markup_of_markdown(self):
        lines = render(hostile(HOSTILE), "markdown").splitlines()
        for sign in ("<img", "](", "`|", "|*"):
            assert not any(re.search(r"(?<!\\)" + re.escape(sign), line) for line in lines if "---" not in line), sign

    def test_nor_steers_a_terminal(self):
        text = render(hostile(HOSTILE), "terminal")
        assert not {"\x1b", "\x07", "\u202e"} & set(text)

    @pytest.mark.parametrize("sign", ["=1+1", "+1", "-1", "@x", "\t=1", "\r=1", " =1"])
    def test_no_text_in_csv_is_a_formula(self, sign):
        records = mutations.records(1)
        for record in records:
            record["planned"]["arms"][-1] = sign
            record["arm"] = sign if record["arm"] == "placebo" else record["arm"]
        rows = list(csv.DictReader(io.StringIO(render(records, "csv"))))
        assert "'" + re.sub(r"\s", " ", sign) in {row["arm"] for row in rows}
        assert csv_cell(-0.5) == -0.5

    @given(st.text(max_size=30))
    def test_messages_keep_their_lines_and_nothing_that_steers(self, text):
        told = unsteered(text)
        assert told.count("\n") == text.count("\n")
        assert all(character.isprintable() or character in "\n\t\u200d" or ord(character) > 127 for character in told)
