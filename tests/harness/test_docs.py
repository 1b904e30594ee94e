"""The documents say what the code does: snippets parse and run, and what the code offers is described."""

from __future__ import annotations

import configparser
import dataclasses
import inspect
import json
import re
import shlex
import textwrap
import tomllib
from pathlib import Path
from typing import get_args

import pytest

from cnnbench.cli import _parser
from cnnbench.design import KINDS
from cnnbench.draft import RECIPE_DEFAULTS, TOP
from cnnbench.errors import SuiteError
from cnnbench.execute.interface import Status
from cnnbench.options import options_of
from cnnbench.plugins import PluginHost
from cnnbench.progress import make_progress
from cnnbench.quantities import METRICS, quantities
from cnnbench.registry import Owner
from cnnbench.runner import RunOptions, run_suite
from cnnbench.slots import REGULARIZER_METHODS, SLOTS
from cnnbench.suite import DEVICES, Header, parse
from cnnbench.tables import FORMATS
from cnnbench.types import DataOptions, EnergyOptions, LatencyOptions, Measure, Recipe

ROOT = Path(__file__).parents[2]
DOCS = {path.relative_to(ROOT).as_posix(): path.read_text("utf-8") for path in sorted(ROOT.glob("docs/**/*.md"))}
PAGES = {"README.md": (ROOT / "README.md").read_text("utf-8"), **DOCS}
SUITES = DOCS["docs/suites.md"]
PLUGIN_SLOTS = DOCS["docs/plugin_slots.md"]

_FENCE = re.compile(r"^( *)```(\w+)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)


def _snippets(language):
    """Page and text of every code block in a language."""
    return [
        pytest.param(page, textwrap.dedent(found[3]), id=f"{page}:{text.count(chr(10), 0, found.start()) + 1}")
        for page, text in PAGES.items()
        for found in _FENCE.finditer(text)
        if found[2] == language
    ]


def _code(page, language, containing):
    return [
        snippet for param in _snippets(language) for p, snippet in [param.values] if p == page and containing in snippet
    ]


def _row(text, *names):
    """The cells of the table row whose first cell is the names, each in backquotes."""
    first = ", ".join(f"`{name}`" for name in names)
    rows = [line for line in text.splitlines() if line.startswith(f"| {first} |")]
    assert len(rows) == 1, f"{len(rows)} rows start with {first}"
    return [cell.strip() for cell in rows[0].strip("|").split(" | ")]


def _section(text, heading):
    """What stands under a heading, to the next of its own level."""
    level = heading.partition(" ")[0]
    found = re.search(rf"^{re.escape(heading)}$\n(.*?)(?=^{level} |\Z)", text, re.MULTILINE | re.DOTALL)
    assert found is not None, heading
    return found[1]


@pytest.fixture(scope="module")
def registry(tmp_path_factory):
    """All installed techniques, and those that the documents define."""
    host = PluginHost.discover()
    folder = tmp_path_factory.mktemp("documented")
    for number, (page, source) in enumerate(_plugin_sources()):
        namespace = {"__name__": f"documented_{number}"}
        file = folder / f"{number}.py"
        file.write_text(source, "utf-8")
        module = type("Module", (), {})()
        exec(compile(source, str(file), "exec", dont_inherit=True), namespace)
        for name, value in namespace.items():
            if name.startswith("cnnbench_"):
                setattr(module, name, value)
        host.register(module, Owner(f"documented-{number}", page, "0"))
    assert host.problems == []
    return host.registry


def _plugin_sources():
    """Whole plugins: blocks that hold technique and hook."""
    return [
        (page, snippet)
        for param in _snippets("python")
        for page, snippet in [param.values]
        if "@technique(" in snippet and "@hookimpl" in snippet
    ]


# Suites


def test_there_are_snippets_of_every_kind():
    assert sum("question =" in p.values[1] for p in _snippets("toml")) >= 9
    assert len(_snippets("python")) >= 15
    assert len(_snippets("sh")) >= 8
    assert len(_plugin_sources()) >= len(SLOTS) + 2


@pytest.mark.parametrize(("page", "snippet"), [p for p in _snippets("toml") if "question =" in p.values[1]])
def test_a_whole_suite_parses(page, snippet, registry):
    suite = parse(snippet.encode(), f"{Path(page).stem}.toml", registry)
    assert suite.arms


@pytest.mark.parametrize(
    ("page", "snippet"),
    [p for p in _snippets("toml") if not re.search(r"question =|^\[project", p.values[1], re.MULTILINE)],
)
def test_a_part_of_a_suite_parses_within_one(page, snippet, registry):
    head = {"question": 'question = "?"', "dataset": 'dataset = "digits"', "model": 'model = "resnet"'}
    # Alternatives stand below each other; tables stand as one.
    parts = [snippet] if snippet.startswith("[") else [line for line in snippet.splitlines() if line.strip()]
    for part in parts:
        key = part.partition(" =")[0]
        if key in TOP:
            text = "\n".join({**head, key: part}.values())
        else:
            text = "\n".join([*head.values(), part if part.startswith("[") else f"[baseline]\n{part}"])
        parse(text.encode(), "part.toml", registry)


def test_designs_come_to_the_arms_that_the_text_says(registry):
    found = {}
    for snippet in _code("docs/suites.md", "toml", "[design]"):
        suite = parse(snippet.encode(), "x.toml", registry)
        found.setdefault(suite.design.kind, []).append(len(suite.arms))
    assert found == {"one-at-a-time": [3], "factorial": [5], "cumulative": [4], "leave-one-out": [3, 4]}
    assert set(found) == set(KINDS)


def test_the_tutorials_mistake_reads_as_it_says(registry):
    (snippet,) = _code("docs/tutorial.md", "toml", '"mixup" = {')
    wrong = snippet.replace('augmentation = "mixup"', 'augmentation = "mixpu"')
    with pytest.raises(SuiteError) as error:
        parse(wrong.encode(), "shapes.toml", registry)
    assert str(error.value) in DOCS["docs/tutorial.md"]


def test_the_readme_lists_every_suite_with_its_question():
    for path in sorted(ROOT.glob("suites/*.toml")):
        question = tomllib.loads(path.read_text("utf-8"))["question"]
        assert f"| [{path.stem}](suites/{path.name}) | {question} |" in PAGES["README.md"]


# The format


def _shown(value):
    """A default as the documents write it."""
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{k} = {_shown(v)}" for k, v in value.items()) + " }"
    return json.dumps(list(value) if isinstance(value, tuple) else value)


@pytest.mark.parametrize(
    ("heading", "cls"),
    [
        ("## Top level", Header),
        ("## Data", DataOptions),
        ("## `[recipe]`", Recipe),
        ("## `[measure]`", Measure),
        ("## `[measure]`", LatencyOptions),
        ("## `[measure]`", EnergyOptions),
    ],
)
def test_every_key_is_documented_with_its_default(heading, cls):
    section = _section(SUITES, heading)
    if cls in (LatencyOptions, EnergyOptions):
        section = section.partition("`energy`:\n")[0 if cls is LatencyOptions else 2]
    for field in dataclasses.fields(cls):
        default = _row(section, field.name)[2]
        value = RECIPE_DEFAULTS.get(field.name, field.default) if cls is Recipe else field.default
        if field.name == "question":
            assert default == "required"
        elif value is not None and value is not dataclasses.MISSING:
            assert default == f"`{_shown(value)}`"


def test_every_table_at_the_top_is_documented():
    section = _section(SUITES, "## Top level")
    for key in TOP:
        assert f"| `{key}` |" in section or f"| `[{key}]` |" in section, key
    for device in DEVICES:
        assert f"`{device}`" in section


def test_slots_of_arms_are_documented_with_how_many_they_take():
    section = _section(SUITES, "## Slots")
    for name, slot in SLOTS.items():
        if slot.in_arm:
            assert _row(section, name)[1] == ("one or a list" if slot.many else "one")
            assert slot.summary.partition(",")[0].partition(" (")[0] in _row(section, name)[2]
        else:
            assert f"| `{name}` |" not in section


@pytest.mark.parametrize(("slot", "heading"), [("dataset", "## Data"), ("model", "## Models")])
def test_every_dataset_and_model_is_documented_with_its_options(slot, heading):
    registry = PluginHost.discover().registry
    for name in registry.names(slot):
        cell = _row(_section(SUITES, heading), name)[1]
        options = options_of(registry.get(slot, name).cls)
        assert not options or set(re.findall(r"`(\w+)`", re.sub(r"\([^)]*\)", "", cell))) == set(options)
        for option in options.values():
            note = re.search(rf"`{option.name}` \(([^)]*)\)", cell)
            if option.required:
                assert note is not None
                assert note[1] == "required"
            elif option.default is not None and isinstance(option.default, bool | int | float | str):
                assert note is not None, option.name
                assert note[1].startswith(f"`{_shown(option.default)}`"), option.name


def test_every_metric_is_documented_with_key_unit_and_direction():
    section = _section(SUITES, "## Metrics")
    for name in METRICS:
        (quantity,) = quantities([name], ["{n}"])
        assert _row(section, name)[1:] == [f"`{quantity.key}`", quantity.label, quantity.unit, quantity.better]


# Plugins


@pytest.mark.parametrize("slot", SLOTS)
def test_every_slot_is_documented_with_its_exact_call(slot):
    (row,) = (line for line in PLUGIN_SLOTS.splitlines() if line.startswith(f"| [`{slot}`](#{slot}) |"))
    cells = [cell.strip() for cell in row.strip("|").split(" | ")]
    own = {
        "model": "models",
        "dataset": "datasets",
        "metric": "metrics",
        "reporter": "reporters",
        "executor": "executors",
    }
    assert cells[2] == f"`cnnbench_register_{own.get(slot, 'techniques')}`"
    protocol = SLOTS[slot].protocol
    if slot != "regularizer":
        assert f"`__call__({', '.join(inspect.signature(protocol.__call__).parameters)})`" in cells[1]
        return
    for name in REGULARIZER_METHODS:
        (call,) = re.findall(rf"``{name}\(([^)]*)\)``", protocol.__doc__) or [None]
        if call is None:  # named without arguments in a sentence
            continue
        assert f"| `{name}(self, {call})` |" in PLUGIN_SLOTS


def test_every_field_of_a_record_is_documented(registry, tmp_path):
    text = """
        question = "What is in a record?"
        dataset = { name = "digits", train_size = 60, test_size = 40 }
        model = { name = "resnet", depth = 8, width = 2 }
        seeds = 1
        device = "cpu"
        recipe = { epochs = 1 }
        measure = { metrics = ["accuracy"] }
    """
    suite = parse(textwrap.dedent(text).encode(), str(tmp_path / "tiny.toml"), registry)
    options = RunOptions(results=tmp_path / "results", cache=tmp_path / "cache", executor="inline")
    assert run_suite(suite, PluginHost.discover(), options, make_progress(quiet=True)).statuses == {"ok": 1}
    publishing = _section(DOCS["docs/publishing.md"], "## The records")
    first_cells = " ".join(re.findall(r"^\| (`.*?`) \|", publishing, re.MULTILINE))
    written = json.loads((tmp_path / "results" / "records.jsonl").read_text("utf-8").splitlines()[0])
    assert set(re.findall(r"`(\w+)`", first_cells)) == set(written)


@pytest.mark.parametrize(("page", "snippet"), _snippets("python"))
def test_python_compiles(page, snippet):
    compile(snippet, page, "exec", dont_inherit=True)


def test_the_tutorials_images_make_a_dataset(tmp_path, monkeypatch, registry):
    monkeypatch.chdir(tmp_path)
    (script,) = _code("docs/tutorial.md", "python", "ImageDraw")
    exec(compile(script, "make_images.py", "exec", dont_inherit=True), {})
    for text in _code("docs/tutorial.md", "toml", "question ="):
        suite = parse(text.encode(), str(tmp_path / "shapes.toml"), registry, data=True)
        assert suite.baseline.dataset.options["path"] == str(tmp_path / "shapes")


# The command line


def _command_lines():
    """Every ``cnnbench ...`` in code blocks for the shell and in backquotes."""
    for page, text in PAGES.items():
        lines = [line for found in _FENCE.finditer(text) if found[2] == "sh" for line in found[3].splitlines()]
        parts = [part.strip() for line in lines for part in line.split("&&")]
        inline = re.findall(r"`(cnnbench [^`]+)`", _FENCE.sub("", text))
        for line in dict.fromkeys([*parts, *inline]):
            if line.startswith("cnnbench "):
                yield pytest.param(line, id=f"{page}: {line}")


def _commands():
    (commands,) = (action for action in _parser()._actions if action.choices)
    return commands.choices


@pytest.mark.parametrize("line", list(_command_lines()))
def test_every_command_line_parses(line):
    words = shlex.split(line)[1:]
    if len(words) == 1 and words[0] in _commands():  # the command as such, in a sentence
        return
    given = _parser().parse_args(words)
    for suite in getattr(given, "suites", []):
        assert not str(suite).startswith("suites/") or (ROOT / suite).is_file()


def test_the_readme_lists_every_command_with_its_options():
    section = _section(PAGES["README.md"], "## Commands")
    rows = dict(re.findall(r"^\| `cnnbench (\w+)[^`]*` \| (.*) \|$", section, re.MULTILINE))
    assert set(rows) == set(_commands())
    for name, command in _commands().items():
        options = {flag for action in command._actions for flag in action.option_strings if flag.startswith("--")}
        assert set(re.findall(r"`(--[\w-]+)`", rows[name])) == options - {"--help"}
    for name in FORMATS:
        assert f"`{name}`" in rows["report"]
        assert _row(DOCS["docs/publishing.md"], name)


def test_the_two_lines_are_one_line_each_and_ci_runs_the_second():
    install = 'python3 -m venv .venv && . .venv/bin/activate && pip install ".[compress]"'
    blocks = [p.values[1].strip() for p in _snippets("sh") if p.values[0] == "README.md"]
    assert blocks[:2] == [f"{install} && cnnbench run suites/quickstart.toml", "pip install tox && tox"]
    assert re.search(r"pip install (-q )?tox && tox", (ROOT / ".ci" / "run").read_text("utf-8"))


def test_every_status_is_documented():
    for status in get_args(Status):
        assert _row(DOCS["docs/methodology.md"], status)


# The site


def test_every_page_is_in_the_navigation_once():
    nav = re.search(r"^nav:\n((?: .*\n)+)", (ROOT / "mkdocs.yml").read_text("utf-8"), re.MULTILINE)[1]
    assert sorted(re.findall(r"[\w/]+\.md$", nav, re.MULTILINE)) == sorted(page.removeprefix("docs/") for page in DOCS)


def test_what_builds_the_site_is_the_extra():
    extra = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]["docs"]
    tox = configparser.ConfigParser()
    tox.read(ROOT / "tox.ini", "utf-8")
    assert [line for line in tox["testenv:docs"]["deps"].splitlines() if line] == extra
    assert "docs" in tox["tox"]["env_list"].split(", ")


@pytest.mark.parametrize("page", DOCS)
def test_pages_link_to_pages_so_that_links_work_on_the_site_too(page):
    text = _FENCE.sub("", DOCS[page])
    for target in re.findall(r"\]\(([^)\s#]+)", text):
        if "://" not in target:
            assert ((ROOT / page).parent / target).resolve().is_relative_to(ROOT / "docs"), target


# Links


def _anchors(text):
    """Anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", _FENCE.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES)
def test_every_relative_link_resolves(page):
    text = _FENCE.sub("", PAGES[page])
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        file = (ROOT / page).parent / path if path else ROOT / page
        assert file.is_file(), target
        if anchor:
            assert anchor in _anchors(file.read_text("utf-8")), target


def test_the_place_for_the_quickstarts_table_is_there():
    assert re.search(r"<!-- quickstart table -->\n.*<!-- end -->", PAGES["README.md"], re.DOTALL)
