from __future__ import annotations

import pytest

from cnnbench.errors import Unsupported, UsageError
from cnnbench_plugins._foreign import made


class Layer:
    def __init__(self, channels: int, groups: int, *, scale: object = 1, **_: object) -> None:
        if channels % groups:
            raise ValueError(f"{channels} channels\nand {groups} groups")
        self.given = (channels, groups, scale)


def test_lists_become_tuples_at_any_depth() -> None:
    assert made(Layer, {"groups": 2, "scale": [[1, 2], [3, 4]]}, 4, what="a layer").given == (4, 2, ((1, 2), (3, 4)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"group": 2}, "^a layer has no option 'group': did you mean 'groups'[?]$"),
        ({"channels": 3}, "^a layer has no option 'channels': known are groups, scale$"),
        ({"scale": 2}, "^a layer needs 'groups' among its options$"),
    ],
)
def test_options_that_the_signature_lacks_or_needs(options: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        made(Layer, options, 4, what="a layer")


def test_values_that_it_refuses_are_told_on_one_line() -> None:
    with pytest.raises(Unsupported, match=r"^a layer can't be made: 4 channels$"):
        made(Layer, {"groups": 3}, 4, what="a layer")
