"""What plugins answer to the harness's questions: of the right type, and of a length that people and records can bear.

Reasons, advice and facts go into every record and to the terminal. What is too long is cut, and says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Any, Final

from cnnbench.errors import PluginError
from cnnbench.text import cut

MOST_CHARACTERS: Final = 1_000
"""Of a reason, a line of advice, a fact and its name."""
MOST_LINES: Final = 20
"""Of a plugin's advice on one arm."""
MOST_FACTS: Final = 100
"""Of a plugin."""
_SHOWN: Final = 60


class AnswerError(PluginError):
    """A hook returned something of the wrong type; the text names the hook."""


def classes(hook: str, answer: object) -> list[type[Any]]:
    """Technique classes that a hook offers; each is looked at when it is registered.

    Raises:
        AnswerError: it is nothing that holds any.
    """
    if not isinstance(answer, Iterable) or isinstance(answer, str | bytes | Mapping):
        raise _wrong(hook, answer, "a list of technique classes")
    return list(answer)


def reason(answer: object) -> str | None:
    """Why a plugin has a trial skipped; None where it does not.

    Raises:
        AnswerError: it is neither text nor None.
    """
    if answer is None:
        return None
    if not isinstance(answer, str):
        raise _wrong("cnnbench_check_trial", answer, "text or None")
    return cut(answer, MOST_CHARACTERS) or None


def advice(answer: object) -> tuple[str, ...]:
    """Lines of a plugin's advice; one more says so where there were too many. They may be without end.

    Raises:
        AnswerError: it is not lines of text.
    """
    hook = "cnnbench_advise_arm"
    if not isinstance(answer, Iterable) or isinstance(answer, str | bytes | Mapping):
        raise _wrong(hook, answer, "a list of lines")
    lines = list(islice(answer, MOST_LINES + 1))
    for number, line in enumerate(lines, 1):
        if not isinstance(line, str):
            raise AnswerError(f"{hook} returned {_shown(line)} as line {number}, expected text")
    found = tuple(cut(line, MOST_CHARACTERS) for line in lines[:MOST_LINES])
    more = (f"there is more advice than {MOST_LINES} lines: the rest is left out",)
    return found + more if len(lines) > MOST_LINES else found


def facts(answer: object) -> tuple[dict[str, str], str]:
    """Facts of a plugin, and what was cut of them, or an empty string.

    Raises:
        AnswerError: it is no mapping.
    """
    hook = "cnnbench_describe_environment"
    if not isinstance(answer, Mapping):
        raise _wrong(hook, answer, "a mapping of text to text")
    told = {str(name): str(value) for name, value in islice(answer.items(), MOST_FACTS)}
    found = {cut(name, MOST_CHARACTERS): cut(value, MOST_CHARACTERS) for name, value in told.items()}
    if len(answer) > MOST_FACTS:
        return found, f"{hook} returned {len(answer):,} facts: the first {MOST_FACTS} are kept"
    if found != told:
        return found, f"{hook} returned facts of more than {MOST_CHARACTERS:,} characters: they are cut"
    return found, ""


def _shown(value: object) -> str:
    """A value in a few characters; of one with code of its own only the type, since that code may raise."""
    if value is None or type(value) in (bool, int, float, str, bytes):
        try:
            return cut(repr(value[:_SHOWN]) if isinstance(value, str | bytes) else repr(value), _SHOWN)
        except ValueError:  # an integer of thousands of digits
            return "a number beyond all bounds"
    return f"an object of type {type(value).__name__}"


def _wrong(hook: str, answer: object, expected: str) -> AnswerError:
    return AnswerError(f"{hook} returned {_shown(answer)}, expected {expected}")
