"""Rules about options."""

from __future__ import annotations

import tomllib
from typing import TYPE_CHECKING, Any

from cnnbench.errors import UsageError
from cnnbench.expect import show
from cnnbench.options import make, options_of
from cnnbench.reader import Reader
from cnnbench.testing.rule import Broken, Inapplicable, Rule
from cnnbench.toml_text import as_written, suite_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from cnnbench.options import Option
    from cnnbench.testing.subject import Subject

OF_EVERY_KIND: tuple[Any, ...] = ("no such word", True, 1.5, [[]], {"x": 1})


def _annotations(subject: Subject) -> None:
    options_of(subject.entry.cls)


def _options(subject: Subject) -> None:
    subject.technique()


def _refusals(subject: Subject) -> None:
    options = options_of(subject.entry.cls)
    if not options:
        raise Inapplicable("it has no options")
    for option in options.values():
        if not any(_refuses(option, value) for value in OF_EVERY_KIND):
            raise Broken(f"{option.name!r} takes whatever it is given: its type says nothing")
        for value in _at_the_edge(option.schema):
            try:
                make(subject.choice({option.name: value}), subject.registry)
            except UsageError as error:
                if not str(error).strip().removeprefix(f"{subject.name}:").strip():
                    raise Broken(f"{option.name} = {show(value)} is refused without a word") from error
            except Exception as error:
                raised = f"{type(error).__name__}{f': {error}' if str(error) else ''}"
                raise Broken(f"{option.name} = {show(value)} raises {raised}, expected a ValueError") from error


def _refuses(option: Option, value: Any) -> bool:
    try:
        option.check(value)
    except ValueError:
        return True
    return False


def _at_the_edge(schema: Mapping[str, Any]) -> Iterator[Any]:
    """Values that the type allows and a careless technique may not have thought of."""
    for part in schema.get("anyOf", (schema,)):
        kind = part.get("type")
        if kind in {"integer", "number"} and "enum" not in part:
            yield from (part[bound] for bound in ("minimum", "maximum") if bound in part)
            if not {"minimum", "exclusiveMinimum"} & part.keys():
                yield from (0, -1)
        elif kind == "string" and not {"enum", "minLength", "format", "pattern"} & part.keys():
            yield "no such word"


def _toml(subject: Subject) -> None:
    choice = subject.choice()
    text, problems = suite_text({choice.slot: as_written(choice.plain())})
    if problems:
        place, expected = problems[0]
        raise Broken(f"{'.'.join(map(str, place[1:]))} has no form in TOML: {expected}")
    reader = Reader(subject.registry, subject.folder)
    read = reader.choice(choice.slot, tomllib.loads(text)[choice.slot], (choice.slot,))
    if read is None:
        where, message = reader.problems[0]
        raise Broken(f"`{text.strip():.200}` is refused: {'.'.join(map(str, where))}: {message}")
    for key, value in choice.options.items():
        if read.options[key] != value:
            raise Broken(f"{key} = {show(value)} comes back from TOML as {show(read.options[key])}")


RULES: tuple[Rule, ...] = (
    Rule(
        "annotations",
        "the types of its options can be read at run time",
        "import what the annotations name outside TYPE_CHECKING, and call no option `name`",
        _annotations,
        at="",
        waivable=False,
        gate=True,
    ),
    Rule(
        "options",
        "it can be made with its defaults, or with its example over them",
        "mend the default, or give @technique(..., example={...}) options with which it can be tried",
        _options,
        at="",
        waivable=False,
        gate=True,
    ),
    Rule(
        "refusals",
        "a value that an option must not have is refused with a ValueError that says what was expected",
        "annotate it, e.g. Annotated[int, Ge(1)] or a Literal; raise ValueError in __post_init__, and assert nothing",
        _refusals,
        at="",
    ),
    Rule(
        "toml",
        "its options can be written in a suite and come back from it as they were",
        "use text, numbers, booleans, lists and tables of these, paths or techniques; only a whole option may be None",
        _toml,
        at="",
        waivable=False,
    ),
)
