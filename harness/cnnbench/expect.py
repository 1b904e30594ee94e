"""What was expected and what was found, in words for people rather than a validator's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cnnbench.registry import nearest

if TYPE_CHECKING:
    from collections.abc import Mapping

LONGEST = 80
"""Characters of a value that a message shows."""

_NOUNS = {
    "integer": ("an integer", "integers"),
    "number": ("a number", "numbers"),
    "boolean": ("true or false", "true or false"),
    "string": ("text", "texts"),
    "array": ("a list", "lists"),
    "object": ("a table", "tables"),
    "null": ("nothing", "nothing"),
}
_BOUNDS = (("minimum", ">="), ("exclusiveMinimum", ">"), ("maximum", "<="), ("exclusiveMaximum", "<"))


def show(value: Any) -> str:
    """A TOML value as a message shows it: on one line, cut where it is long."""
    text = _show(value)
    return text if len(text) <= LONGEST else text[: LONGEST - 3] + "..."


def _show(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {_show(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_show, value)) + "]"
    return repr(value) if isinstance(value, str | int | float) else str(value)


def mismatch(schema: Mapping[str, Any], value: Any) -> str:
    """``expected an integer >= 1, got 'x'``, with the nearest of the allowed words where there is one."""
    text = f"expected {expectation(schema)}, got {show(value)}"
    words = [word for word in _allowed(schema) if isinstance(word, str)]
    hint = nearest(value, words) if isinstance(value, str) else ""
    return f"{text}: {hint}" if hint.startswith("did you mean") else text


def expectation(schema: Mapping[str, Any], *, plural: bool = False) -> str:
    """A JSON Schema in words: ``an integer >= 1``, ``a list of numbers > 0``, ``one of 'fp32', 'bf16'``."""
    if "anyOf" in schema:
        words = [expectation(part, plural=plural) for part in schema["anyOf"] if part.get("type") != "null"]
        return " or ".join(dict.fromkeys(words))
    allowed = _allowed(schema)
    if allowed:
        return _show(allowed[0]) if len(allowed) == 1 else f"one of {', '.join(map(_show, allowed))}"
    kind = str(schema.get("type", ""))
    if kind not in _NOUNS:
        return "another value"
    noun = _NOUNS[kind][plural]
    if kind == "string" and schema.get("format") == "path":
        noun = "paths" if plural else "a path"
    return " ".join(filter(None, (noun, _details(kind, schema))))


def _allowed(schema: Mapping[str, Any]) -> list[Any]:
    if "const" in schema:
        return [schema["const"]]
    if "anyOf" in schema:
        return [word for part in schema["anyOf"] for word in _allowed(part)]
    return list(schema.get("enum", ()))


def _details(kind: str, schema: Mapping[str, Any]) -> str:
    if kind in ("integer", "number"):
        parts = [f"{sign} {schema[key]:g}" for key, sign in _BOUNDS if key in schema]
        if "multipleOf" in schema:
            parts.append(f"a multiple of {schema['multipleOf']:g}")
        return " and ".join(parts)
    if kind == "array":
        return _details_of_list(schema)
    if kind == "object" and isinstance(schema.get("additionalProperties"), dict):
        return f"of {expectation(schema['additionalProperties'], plural=True)}"
    if kind == "string" and schema.get("minLength"):
        return "that is not empty"
    return ""


def _details_of_list(schema: Mapping[str, Any]) -> str:
    if "prefixItems" in schema:
        return f"of {len(schema['prefixItems'])}: {', '.join(expectation(item) for item in schema['prefixItems'])}"
    least, most = schema.get("minItems"), schema.get("maxItems")
    count = ""
    if least is not None and least == most:
        count = f"{least} "
    elif most is not None:
        count = f"{least or 0} to {most} "
    elif least:
        count = "one or more " if least == 1 else f"{least} or more "
    items = schema.get("items")
    return f"of {count}{expectation(items, plural=True)}" if items else ""
