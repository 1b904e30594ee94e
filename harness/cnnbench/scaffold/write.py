"""From templates to the files of a plugin."""

from __future__ import annotations

import ast
import re
import textwrap
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import cnnbench
from cnnbench import hookspecs
from cnnbench.contract_version import CONTRACT
from cnnbench.scaffold.imports import WIDTH, Import, Module, names_used, take_apart
from cnnbench.scaffold.sentences import kept, tried

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cnnbench.scaffold.names import Names

_FOLDER = Path(__file__).with_name("templates")
_TEMPLATES = "cnnbench.scaffold.templates"
_REAL = {
    "F": Import("torch.nn.functional", None, "F"),
    "nn": Import("torch", "nn"),
    "torch": Import("torch"),
}
"""What takes the place of torch's lazy stand-ins in a file that needs torch as soon as it is imported."""
_RUN = "cnnbench run suites/template-project.toml"


def package_files(names: Names, slot: str) -> Mapping[str, str]:
    """The files of a plugin's package, by their path in its folder.

    Args:
        names: those that it is to have.
        slot: of its technique.
    """
    sources = _sources(slot)
    summary = _summary(sources["technique"])

    def filled(text: str) -> str:
        return _filled(text, names, slot, summary)

    def code(text: str) -> str:
        return take_apart(filled(text)).text(names.module)

    module = names.module
    made = {
        "README.md": _wrapped(filled(_readme(slot))),
        "pyproject.toml": filled(_template("project.toml")),
        ".gitignore": filled(_template("gitignore")),
        ".github/workflows/tests.yml": filled(_template("tests.yml")),
        f"{module}/__init__.py": code(_template("plugin.py")),
        f"tests/test_{module}.py": code(_template(f"{slot}/tests.py")),
        f"suites/{names.project}.toml": filled(_template(f"{slot}/suite.toml")),
    }
    return made | {f"{module}/{name}.py": code(text) for name, text in sources.items()}


def single_files(names: Names, slot: str) -> Mapping[str, str]:
    """The same technique as a plugin in one file, and beside it the suite that names the file.

    Args:
        names: those that it is to have.
        slot: of its technique.
    """
    sources = _sources(slot)
    summary = _summary(sources["technique"])
    helpers = [take_apart(text) for name, text in sources.items() if name != "technique"]
    technique, plugin = take_apart(sources["technique"]), take_apart(_template("plugin.py"))
    own = re.compile(rf"^ *from {re.escape(_TEMPLATES)}\.\S+ import .*\n\n?", re.MULTILINE)
    parts = [*helpers, replace(technique, body=own.sub("", technique.body)), plugin]
    constant, _, hook = plugin.body.partition("\n\n\n")
    merged = _merged(technique, parts, real=bool(helpers))
    merged = replace(merged, body="\n\n\n".join([constant, *(part.body.strip("\n") for part in parts[:-1]), hook]))
    suite = _template(f"{slot}/suite.toml")
    question, _, rest = suite.partition("\n")
    return {
        f"{names.module}.py": _filled(merged.text(names.module), names, slot, summary),
        f"{names.module}.toml": _filled(f'{question}\nplugins = ["template_name.py"]\n{rest}', names, slot, summary),
    }


def uses(slot: str, technique: str, suite: str, results: str, plugin: str = "") -> list[str]:
    """The commands that run a plugin's suite and use the plugin.

    Args:
        slot: of the technique.
        technique: its name.
        suite: path of the suite.
        results: name of the suite.
        plugin: the file, where it is not installed.
    """
    if slot == "reporter":
        report = f"cnnbench report results/{results} --format {technique}"
        return [f"cnnbench run {suite}", report + (f" --plugin {plugin}" if plugin else "")]
    return [f"cnnbench run {suite}" + (f" --{slot} {technique}" if slot in ("executor", "tracker") else "")]


def names_in(slot: str) -> set[str]:
    """Names that the code of a slot's plugin uses, its class's own aside."""
    texts = [*_sources(slot).values(), _template("plugin.py"), _template(f"{slot}/tests.py")]
    return {name for text in texts for name in names_used(text)} - {"Template"}


def _merged(head: Module, parts: list[Module], *, real: bool) -> Module:
    """A module with one's docstring and the imports of all that are not of each other."""

    def kept(found: set[Import]) -> set[Import]:
        outside = {one for one in found if not one.module.startswith(_TEMPLATES)}
        if not real:
            return outside
        return {_REAL[one.bound] if one.module == "cnnbench.lazy" else one for one in outside}

    imports = kept({one for part in parts for one in part.imports})
    bound = {one.bound for one in imports}
    typing = {one for one in kept({one for part in parts for one in part.typing}) if one.bound not in bound}
    return Module(head.docstring, frozenset(imports), frozenset(typing), "")


def _filled(text: str, names: Names, slot: str, summary: str) -> str:
    """A template's text with the names of a plugin in place of its own."""
    hook = f"cnnbench_register_{slot}s"
    hook = hook if hasattr(hookspecs, hook) else "cnnbench_register_techniques"
    text = re.sub(rf"{re.escape(_TEMPLATES)}\.\w+", names.module, text)
    text = re.sub(r"\b(Test)?Template\b", rf"\g<1>{names.cls}", text)
    for placeholder, value in {
        "cnnbench_register_techniques": hook,
        "template-project": names.project,
        "template_name": names.module,
        "template_slot": slot,
        "template_summary": summary,
        "template_version": cnnbench.__version__.partition("+")[0],
        "template_contract": ".".join(map(str, CONTRACT)),
    }.items():
        text = text.replace(placeholder, value)
    return text


def _readme(slot: str) -> str:
    """The text of a package's README, with what is true of its slot."""
    text = _template("README.md")
    for placeholder, value in {
        "template_use": _use(slot),
        "template_tried": tried(slot),
        "template_kept": kept(slot),
    }.items():
        text = text.replace(placeholder, value)
    return text


def _wrapped(text: str) -> str:
    """Markdown without lists, its paragraphs in lines of one length."""
    parts = text.rstrip("\n").split("\n\n")
    whole = [part if "```" in part else _paragraph(part) for part in parts]
    return "\n\n".join(whole) + "\n"


def _paragraph(text: str) -> str:
    return textwrap.fill(text, WIDTH, break_long_words=False, break_on_hyphens=False)


def _use(slot: str) -> str:
    """How one uses it: the line of its suite that names it, under its table's header, or a command."""
    if slot in ("reporter", "executor", "tracker"):  # which no suite names
        commands = "\n".join(uses(slot, "template_name", "suites/template-project.toml", "template-project"))
        return f"```sh\n{commands}\n```"
    header = ""
    for line in _template(f"{slot}/suite.toml").splitlines():
        header = f"{line}\n" if line.startswith("[") else header
        if "template_name" in line and not line.startswith("question"):
            break
    shown = f"```toml\n{header}{line}\n```"
    return f"A suite names it:\n\n{shown}\n\nThis one compares it:\n\n```sh\n{_RUN}\n```"


def _summary(source: str) -> str:
    """First line of the docstring of the technique, without its stop."""
    classes = [node for node in ast.parse(source).body if isinstance(node, ast.ClassDef)]
    (doc,) = [ast.get_docstring(node) or "" for node in classes if node.name == "Template"]
    return doc.partition("\n")[0].removesuffix(".")


def _sources(slot: str) -> dict[str, str]:
    """Source of each module of a slot's template, helpers of the technique first."""
    modules = sorted(path.stem for path in (_FOLDER / slot).glob("*.py") if path.stem not in ("tests", "technique"))
    return {module: _template(f"{slot}/{module}.py") for module in [*modules, "technique"]}


def _template(path: str) -> str:
    return (_FOLDER / path).read_text("utf-8")
