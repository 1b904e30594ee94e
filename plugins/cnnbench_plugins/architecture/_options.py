"""Changes one option of a model technique, and says which models have it where this one has not."""

from __future__ import annotations

import dataclasses
from typing import Any

from cnnbench.errors import NoEffect, Unsupported
from cnnbench.options import options_of
from cnnbench.technique import CARD, card_of


def option_of(model: Any, option: str) -> Any:
    """An option's value.

    Raises:
        Unsupported: the model has no such option; names those that have it.
    """
    if not hasattr(model, CARD):
        raise Unsupported(f"{option} can't be set once another technique is built around the model: list that one last")
    if option not in options_of(type(model)):
        from cnnbench_plugins import cnnbench_register_models

        having = [card_of(cls).name for cls in cnnbench_register_models() if option in options_of(cls)]
        raise Unsupported(
            f"model {card_of(model).name!r} has no option {option!r}; these have it: {', '.join(sorted(having))}"
        )
    return getattr(model, option)


def changed(model: Any, option: str, value: Any) -> Any:
    """The model technique with another value of an option.

    Raises:
        NoEffect: it has that value already.
        Unsupported: the model refuses it.
    """
    if value == getattr(model, option):
        raise NoEffect(f"{option} of model {card_of(model).name!r} stays {_shown(value)}")
    try:
        return dataclasses.replace(model, **{option: options_of(type(model))[option].check(value)})
    except ValueError as error:
        raise Unsupported(f"model {card_of(model).name!r} can't have {option} {_shown(value)}: {error}") from error


def _shown(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
