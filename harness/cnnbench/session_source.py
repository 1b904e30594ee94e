"""The code of a class that no file holds, as defined in a notebook or at a prompt: what its results depend on."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from types import CodeType, FunctionType, ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

_PLAIN = (bool, int, float, complex, str, bytes, type(None))
_MADE = frozenset(
    {"__dict__", "__weakref__", "__module__", "__annotations__", "__dataclass_fields__", "__dataclass_params__"}
    | {"__firstlineno__", "__static_attributes__", "__annotate_func__", "__annotations_cache__", "__slotnames__"}
)
"""Attributes that say nothing of the code, or say it in objects that fields tell better."""


def session_digest(cls: type[Any]) -> str:
    """Digest of a class's code and of all in its session that the code uses.

    Followed, at any depth: methods, base classes, functions and classes of the session that they name, and globals that
    are plain data. Not followed: what modules hold, and globals that are other objects, of which the type counts. It is
    made of compiled code, so comments and the cell's number don't count; another version of Python has another.

    Args:
        cls: of a module without a file.
    """
    session = cls.__module__
    told: dict[int, object] = {}  # the objects themselves, since an id is another's once its object is gone
    ahead: list[tuple[str, object]] = [(cls.__qualname__, cls)]
    digest = hashlib.sha256()
    while ahead:
        name, value = ahead.pop(0)
        name, value = f"{name} {type(value).__name__}", _bare(value)
        if id(value) in told:
            continue
        told[id(value)] = value
        digest.update(f"{name}\0{_said(value, session)}\0".encode("utf-8", "surrogatepass"))
        if getattr(value, "__module__", None) == session:
            ahead += _used(value)
    return digest.hexdigest()[:16]


def _bare(value: object) -> object:
    """The function behind a method's wrapper."""
    if isinstance(value, staticmethod | classmethod):
        return value.__func__
    return value.fget if isinstance(value, property) else value


def _said(value: object, session: str) -> str:
    """What a value is, in the same words in every process."""
    if isinstance(value, FunctionType) and value.__module__ == session:
        return f"def {_code(value.__code__)} {_data(value.__defaults__)} {_data(value.__kwdefaults__)}"
    if isinstance(value, type):
        options = [(f.name, repr(f.type), _data(f.default)) for f in fields(value)] if is_dataclass(value) else ()
        return f"class {value.__module__}.{value.__qualname__} {options}"
    if isinstance(value, ModuleType):
        return f"module {value.__name__}"
    return _data(value)


def _used(value: object) -> Iterator[tuple[str, object]]:
    """What a class or a function of the session is made of, and what it names, each with its name."""
    if isinstance(value, type):
        yield from ((base.__qualname__, base) for base in value.__bases__)
        yield from ((name, vars(value)[name]) for name in sorted(vars(value).keys() - _MADE))
    elif isinstance(value, FunctionType):
        known = value.__globals__
        yield from ((name, known[name]) for name in sorted(_names(value.__code__) & known.keys()))
        for name, cell in zip(value.__code__.co_freevars, value.__closure__ or (), strict=True):
            try:
                yield name, cell.cell_contents
            except ValueError:  # not filled yet
                continue


def _names(code: CodeType) -> set[str]:
    inner = [_names(one) for one in code.co_consts if isinstance(one, CodeType)]
    return set(code.co_names).union(*inner)


def _code(code: CodeType) -> str:
    """Compiled code without its place in a file."""
    constants = [_code(one) if isinstance(one, CodeType) else _data(one) for one in code.co_consts]
    names = (code.co_name, code.co_names, code.co_varnames, code.co_freevars, code.co_argcount)
    return f"{names} {constants} {code.co_code.hex()} {code.co_exceptiontable.hex()}"


def _data(value: object) -> str:
    """Plain data in full, of anything else the type."""
    if isinstance(value, _PLAIN):
        return repr(value)
    if isinstance(value, tuple | list):
        return f"{type(value).__name__}[{', '.join(map(_data, value))}]"
    if isinstance(value, set | frozenset):  # whose order is another in each process
        return f"{type(value).__name__}[{', '.join(sorted(map(_data, value)))}]"
    if isinstance(value, Mapping):
        return f"mapping[{', '.join(f'{_data(key)}: {_data(item)}' for key, item in value.items())}]"
    if isinstance(value, type | FunctionType):
        return f"{value.__module__}.{value.__qualname__}"
    return f"{type(value).__module__}.{type(value).__qualname__}"
