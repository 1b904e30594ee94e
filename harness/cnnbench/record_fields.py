"""The fields of a record and their types: what every reader of records relies on, checked once when a line is read.

Records come from strangers too. A line whose fields are of other types is set aside with its reason, as a torn one is,
so that nothing that reads records has to ask again. Fields that are not known here may hold any shallow data: plugins
add their own, and so may a later version.
"""

from __future__ import annotations

import json
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final, get_args, get_type_hints

from cnnbench.inference import Inference
from cnnbench.json_checks import (
    INTEGER,
    NUMBER,
    TEXT,
    among,
    by_name,
    each,
    each_by_name,
    many,
    one,
    rows,
    table,
    unknown,
)
from cnnbench.text import LONGEST_NAME

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cnnbench.json_checks import Check

LONGEST_CHANGES: Final = 10_000
"""Characters of what an arm changes; suites write ``LONGEST_NAME``."""

_text: Final = one(TEXT)
_name: Final = one(TEXT, longest=LONGEST_NAME)
_names: Final = many(TEXT, longest=LONGEST_NAME)
_number: Final = one(NUMBER)
_integer: Final = one(INTEGER)
_options: Final = table({})
_counts: Final = rows(INTEGER, named=False)


def _statistics() -> Check:
    """As ``[statistics]`` of a suite: an unknown way to decide is not to be passed over."""
    words = {name: get_args(hint) for name, hint in get_type_hints(Inference).items() if get_args(hint)}
    return table({**{name: among(known) for name, known in words.items()}, "most_seeds": _integer}, others=unknown)


def _ladder(value: Any) -> str:
    """Numbers of seeds at which a run looked, rising from 2."""
    if fault := many(INTEGER)(value):
        return fault
    rising = all(fewer < more for fewer, more in pairwise(value))
    return "" if not value or (rising and value[0] >= 2) else " does not rise from 2 or more"


def _square(value: Any) -> str:
    """A confusion matrix [K, K] of counts."""
    if fault := _counts(value):
        return fault
    if not {len(value)}.issuperset(map(len, value)):
        return " is not square"
    return "" if min(map(min, value), default=0) >= 0 else " holds a negative count"


_CHOICE: Final = table({"slot": _text, "name": _text, "options": _options}, needs=["name"])
_SESSION: Final = table(
    {
        **dict.fromkeys(("seconds", "others_percent", "steal_percent", "throttle_events"), _number),
        **dict.fromkeys(("cpu_mhz", "gpu_mhz"), many(NUMBER, least=2, most=2)),
        "gpu_throttles": many(TEXT),
    }
)
_INTERVAL: Final = many(NUMBER, least=2, most=2)
_SAMPLING: Final = table(
    {
        "samples_ms": many(NUMBER),
        "stopped": _text,
        "interval_ms": _INTERVAL,
        "reference_ms": many(NUMBER),
        "ratio": many(NUMBER, least=3, most=3),
        "threads": _integer,
        "cpus": many(INTEGER),
    },
    needs=["samples_ms", "stopped"],
)
_ENERGY: Final = table(
    {
        "intensity": table({"g_per_kwh": one(NUMBER, maybe=False), "source": _text}, needs=["g_per_kwh", "source"]),
        "windows_mj": many(NUMBER),
        "range_mj": _INTERVAL,
    }
)

FIELDS: Final[Mapping[str, Check]] = {
    **dict.fromkeys(("key", "arm", "role", "status"), one(TEXT, maybe=False, longest=LONGEST_NAME)),
    "seed": one(INTEGER, maybe=False, least=0),
    **dict.fromkeys(("reference", "dataset", "device"), _name),
    "changes": one(TEXT, longest=LONGEST_CHANGES),
    **dict.fromkeys(("budget", "data", "borrowed_from"), _text),
    **dict.fromkeys(("reason", "trace", "started", "finished"), _text),
    "workers": _integer,
    "suite": table({**dict.fromkeys(("name", "question", "sha256", "file"), _text), "code": by_name(TEXT)}),
    "planned": table(
        {
            "arms": _names,
            "seeds": many(INTEGER),
            "datasets": _names,
            "looks": _ladder,
            "seeds_of": each_by_name(many(INTEGER)),
        }
    ),
    "design": table(
        {
            "kind": _text,
            "axes": each(table({"key": _text, "levels": many(TEXT, least=1)}, needs=["key", "levels"])),
            "cells": each_by_name(many(INTEGER)),
        },
        needs=["kind", "axes"],
    ),
    "measure": table(
        {
            "primary": _name,
            "metrics": _names,
            "latency": table(
                {"batch_sizes": many(INTEGER), "precision": _number, "max_seconds": _number, "threads": _integer}
            ),
            "margin": by_name(NUMBER),
        }
    ),
    "statistics": _statistics(),
    "metrics": by_name(NUMBER, maybe=True),
    "methods": by_name(TEXT, maybe=True),
    "seconds": by_name(NUMBER),
    "stages": by_name(TEXT),
    "environment": by_name(TEXT, maybe=True),
    "settings": table(
        {
            **dict.fromkeys(("dataset", "model"), _CHOICE),
            "data": _options,
            "recipe": _options,
            "techniques": each_by_name(each(_CHOICE)),
        }
    ),
    "details": table(
        {
            "history": rows(NUMBER, named=True, maybe=True),
            "notes": many(TEXT),
            "classes": many(TEXT),
            "confusion": _square,
            "latency": each_by_name(_SAMPLING),
            **dict.fromkeys(("noise", "noise_energy"), _SESSION),
            **dict.fromkeys(("energy", "energy_train"), _ENERGY),
        }
    ),
}
"""The check of each known field; one that is null or missing passes, but for those that every record has."""

_NEEDED: Final = ("key", "arm", "role", "seed", "status")
_as_record: Final = table(FIELDS, needs=_NEEDED)


def has_escaped_surrogates(line: bytes) -> bool:
    """Whether a line may hold text that is no Unicode: an escape alone of what only two of them make a character."""
    return b"\\" in line and (b"\\ud" in line or b"\\uD" in line)  # to look for one byte takes next to nothing


def unicode_fault(line: bytes, record: dict[str, Any]) -> str:
    """What is wrong with the texts of a record from a line, or an empty string: they can't be written as UTF-8."""
    if has_escaped_surrogates(line):
        try:
            json.dumps(record, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            return "not a record: a text in it is no Unicode"
    return ""


def fault_of(record: dict[str, Any]) -> str:
    """What is wrong with the fields of a record of the present schema, or an empty string."""
    found = _as_record(record)
    return f"not a record: {found.removeprefix('.')}" if found else ""
