"""The page of all techniques."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import pytest
from annotated_types import Ge

from cnnbench.catalogue import catalogue
from cnnbench.plugins import PluginHost
from cnnbench.registry import Owner, Registry
from cnnbench.technique import Requirement, technique

DOCS = Path(__file__).parents[2] / "docs"


@technique("norm", "made_up", requires=(Requirement("no_such_package", "some"),))
class MadeUp:
    """Does one thing.

    After A. Author 2020: y = ``x`` | z.

    Attributes:
        groups: how many
            there are.
        low, high: either end.
    """

    groups: Annotated[int, Ge(1)]
    low: float = 0.5
    high: float = 1.0


@technique("loss", "plain_one")
class PlainOne:
    """Has no options."""


@pytest.fixture
def page() -> str:
    registry = Registry()
    for cls in (PlainOne, MadeUp):
        registry.add(cls, Owner("test", "test", "0"))
    return catalogue(registry)


def test_a_section_says_all_that_the_docstring_and_the_options_say(page):
    section = page.partition("### norm made_up\n")[2].partition("## loss")[0]
    assert section.strip() == (
        "Does one thing.\n\nAfter A. Author 2020: y = `x` | z.\n\n"
        "| option | type | default | meaning |\n| --- | --- | --- | --- |\n"
        "| `groups` | an integer >= 1 | required | how many there are. |\n"
        "| `low` | a number | `0.5` | either end. |\n"
        "| `high` | a number | `1.0` | either end. |\n\n"
        "Needs `no_such_package`: `pip install 'cnnbench[some]'`."
    )
    assert page.endswith("### loss plain_one\n\nHas no options.")


def test_the_contents_count_and_link_in_the_order_of_use(page):
    assert "2 techniques:" in page
    assert page.index("| [norm](#norm) |") < page.index("| [loss](#loss) |")
    assert "| 1: [made_up](#norm-made_up) |" in page


def test_the_page_in_the_docs_is_current():
    """Else: ``cnnbench list --markdown > docs/techniques.md``."""
    registry = PluginHost.discover().registry
    assert {entry.owner.distribution for entry in registry} == {"cnnbench"}, "another plugin is installed here"
    assert (DOCS / "techniques.md").read_text(encoding="utf-8") == catalogue(registry) + "\n"


def test_every_technique_of_ours_names_its_source_and_its_limits():
    """The form that cards have: what it does; where it comes from; when it helps and when it is known not to."""
    lacking = [
        f"{entry.card.slot} {entry.card.name}"
        for entry in PluginHost.discover().registry
        if entry.card.slot
        in {"norm", "activation", "regularizer", "strategy", "compressor", "augmentation", "convolution"}
        and not ("Helps" in (entry.cls.__doc__ or "") and "nown" in (entry.cls.__doc__ or ""))
    ]
    assert lacking == []
