"""What keys are hashes of: JSON text, put together from parts of which many keys have the same ones."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from json.encoder import encode_basestring_ascii
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


class Written(str):
    """JSON text of a part that many keys have in common, written out once."""

    __slots__ = ()


def digest(data: object) -> str:
    """Key of JSON-ready data: 32 hex digits, independent of the order of keys in mappings."""
    return _hash(written(data))


def digest_of(*parts: object) -> str:
    """``digest`` of the list of the parts, those ``Written`` standing for what they were written from."""
    return _hash(f"[{','.join(_texts(parts))}]")


def written(data: object) -> Written:
    """JSON-ready data as the text that keys are made of."""
    return Written(_encode(data))


def joined(*parts: object) -> Written:
    """Several parts of ``digest_of`` that always stand together, in one."""
    return Written(",".join(_texts(parts)))


def written_list(*parts: object) -> Written:
    """``written`` of the list of the parts, those ``Written`` standing for what they were written from."""
    return Written(f"[{','.join(_texts(parts))}]")


def written_table(table: Mapping[str, object]) -> Written:
    """``written`` of a mapping, values that are ``Written`` standing for what they were written from."""
    names = sorted(table)
    values = _texts([table[name] for name in names])
    members = [f"{encode_basestring_ascii(name)}:{value}" for name, value in zip(names, values, strict=True)]
    return Written(f"{{{','.join(members)}}}")


def _texts(parts: Sequence[object]) -> list[str]:
    return [_WRITERS.get(type(part), _encode)(part) for part in parts]


def _hash(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{value!r} can't be part of a key")


_encode = json.JSONEncoder(sort_keys=True, separators=(",", ":"), default=_plain).encode
_WRITERS: Mapping[type, Callable[[Any], str]] = {Written: str, str: encode_basestring_ascii, int: int.__repr__}
"""The encoder makes nothing else of these, and takes several times as long."""
