"""Options: from a suite's values to complete choices, and from choices to technique instances.

A technique's typed fields are its options. Types are taken at their word: ``1`` serves where a float is meant, but
``true`` is no integer and ``"1"`` no number. Everything is plain data again once it is checked, so that a choice can be
hashed, stored and sent to a worker, which makes the technique from it.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import types
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Union, cast, get_args, get_origin, get_type_hints

from pydantic import TypeAdapter, ValidationError

from cnnbench.errors import PluginError, UsageError
from cnnbench.expect import expectation, mismatch, show
from cnnbench.registry import nearest
from cnnbench.types import Choice, InSlot

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator

    from cnnbench.registry import Registry


@dataclasses.dataclass(frozen=True)
class Option:
    """One typed field of a technique, or of any dataclass that a suite's table fills.

    Attributes:
        name: the field's name.
        hint: its type with constraints, resolved.
        required: it has no default.
        default: its default (None where it is required).
        slot: the slot that its techniques come from, where it holds any.
        many: it holds a list of techniques.
    """

    name: str
    hint: Any
    required: bool
    default: Any
    slot: str | None
    many: bool

    @functools.cached_property
    def adapter(self) -> TypeAdapter[Any]:
        """The validator behind it."""
        return TypeAdapter(self.hint)

    @functools.cached_property
    def schema(self) -> dict[str, Any]:
        """JSON Schema of its values."""
        return self.adapter.json_schema()

    @property
    def expects(self) -> str:
        """What it takes, in words."""
        if self.slot:
            return f"a list of techniques of slot {self.slot}" if self.many else f"a technique of slot {self.slot}"
        return expectation(self.schema)

    def check(self, value: Any) -> Any:
        """``value`` as the field's type: a list becomes a tuple, text a path, a plain choice a ``Choice``.

        Raises:
            ValueError: not of the type, or outside its constraints; the text says what was expected.
        """
        try:
            checked = self.adapter.validate_json(json.dumps(value), strict=True)
            json.dumps(self.plain(checked), allow_nan=False)
        except ValidationError as error:
            own = [e["msg"] for e in error.errors() if e["type"] in ("value_error", "predicate_failed")]
            raise ValueError("; ".join([mismatch(self.schema, value), *own])) from None
        except (TypeError, ValueError):  # a date, which JSON lacks, or a number that is not finite
            raise ValueError(mismatch(self.schema, value)) from None
        return checked

    def plain(self, value: Any) -> Any:
        """A value of the field's type as JSON-ready data."""
        return self.adapter.dump_python(value, mode="json", warnings="none")


def options_of(cls: type[Any]) -> Mapping[str, Option]:
    """The options of a technique class (or any dataclass) by name, in order.

    Raises:
        PluginError: its annotations can't be read at run time, or an option is called ``name``.
    """
    return _options_of(cast("Hashable", cls))


@functools.cache  # a validator takes far longer to build than to use
def _options_of(cls: type[Any]) -> Mapping[str, Option]:
    where = f"{cls.__module__}.{cls.__qualname__}"
    try:
        hints = get_type_hints(cls, include_extras=True)
    except (NameError, TypeError) as error:
        raise PluginError(f"{where}: option types can't be read: {error}; import what they name at run time") from error
    options = {}
    for field in dataclasses.fields(cls):
        if not field.init:
            continue
        if field.name == "name":
            raise PluginError(f"{where}: an option can't be called 'name': suites use that for the technique itself")
        slot, many = _slot_in(hints[field.name])
        options[field.name] = Option(field.name, hints[field.name], *_default(field), slot, many)
    return types.MappingProxyType(options)


def _default(field: dataclasses.Field[Any]) -> tuple[bool, Any]:
    if field.default is not dataclasses.MISSING:
        return False, field.default
    if field.default_factory is not dataclasses.MISSING:
        return False, field.default_factory()
    return True, None


def _slot_in(hint: Any) -> tuple[str | None, bool]:
    """The slot that a hint's choices come from, and whether it holds a list of them."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin is Annotated:
        slots = [meta.slot for meta in inner[1:] if isinstance(meta, InSlot)]
        return (slots[0], False) if slots else _slot_in(inner[0])
    if origin in (Union, types.UnionType):
        return next((found for found in map(_slot_in, inner) if found[0]), (None, False))
    if origin in (tuple, list):
        return _slot_in(inner[0])[0], True
    return None, False


def complete(choice: Choice, registry: Registry) -> Choice:
    """A choice made in code with its defaults filled in.

    Raises:
        UsageError: unknown name or option, or a wrong value.
    """
    options = options_of(registry.get(choice.slot, choice.name).cls)
    unknown = [key for key in choice.options if key not in options]
    if unknown:
        raise UsageError(f"{choice.slot} {choice.name!r} has no option {unknown[0]!r}: {nearest(unknown[0], options)}")
    plain = {}
    for key, option in options.items():
        if key not in choice.options and option.required:
            raise UsageError(f"{choice.slot} {choice.name!r} needs {key!r}")
        value = choice.options.get(key, option.default)
        plain[key] = option.plain(_complete_all(value, registry))
    return Choice(choice.slot, choice.name, plain)


def default_of(option: Option, registry: Registry) -> Any:
    """An option's default, with the choices in it completed."""
    return _complete_all(option.default, registry)


def _complete_all(value: Any, registry: Registry) -> Any:
    if isinstance(value, Choice):
        return complete(value, registry)
    if isinstance(value, tuple | list):
        return type(value)(_complete_all(item, registry) for item in value)
    return value


def make(choice: Choice, registry: Registry) -> Any:
    """The technique that a choice names: an instance of its class.

    Raises:
        UsageError: unknown name or option, or a value that the technique refuses.
    """
    choice = complete(choice, registry)
    cls = registry.get(choice.slot, choice.name).cls
    options = options_of(cls)
    try:
        return cls(**{key: options[key].check(value) for key, value in choice.options.items()})
    except ValueError as error:
        raise UsageError(f"{choice.slot} {choice.name!r}: {error}") from error


def nested(value: object) -> Iterator[Choice]:
    """Techniques named within an option's plain value, at any depth."""
    if isinstance(value, Mapping):
        if value.keys() == {"slot", "name", "options"}:
            yield Choice.from_plain(value)
        for inner in value.values():
            yield from nested(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from nested(inner)


def label(choice: Choice, registry: Registry) -> str:
    """A choice in short, with the options that differ from their defaults: ``group(groups=4)``."""
    shown = []
    for key, option in options_of(registry.get(choice.slot, choice.name).cls).items():
        value = choice.options.get(key)
        if option.required or value != option.plain(default_of(option, registry)):
            shown.append(f"{key}={format_value(value, option, registry)}")
    return f"{choice.name}({', '.join(shown)})" if shown else choice.name


def format_value(value: Any, option: Option, registry: Registry) -> str:
    """A plain option value in short: techniques by their label, paths by their last part, text without quotes."""
    typed = option.check(value)
    if isinstance(typed, Choice):
        return label(typed, registry)
    if isinstance(typed, Path):
        return typed.name
    if option.slot and isinstance(typed, tuple | list):
        return " + ".join(label(item, registry) for item in typed) or "none"
    return str(value) if isinstance(value, str) else show(value).replace("None", "none")
