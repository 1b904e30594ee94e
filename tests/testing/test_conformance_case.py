"""The conformance kit as authors run it: test cases of a project of their own, collected and run by pytest."""

from __future__ import annotations

import sys

import pytest

from cnnbench.testing import KIT, ConformanceCase
from cnnbench_plugins.augmentation.flip import HFlip

pytest_plugins = ["pytester"]

PLUGIN = '''
from cnnbench import hookimpl, technique
from cnnbench.errors import NoEffect


@technique("augmentation", "my_shade", waives={"effect": "it is shown elsewhere"})
class MyShade:
    """Darken images.

    A reason.
    """

    def __call__(self, images, targets, generator):
        return images.div_(2), targets


@technique("schedule", "my_schedule")
class MySchedule:
    """Fall.

    A reason.
    """

    def __call__(self, step, total_steps):
        return 1 / (1 + step)


@hookimpl
def cnnbench_register_techniques():
    return [MyShade]
'''
CASES = """
from cnnbench.testing import ConformanceCase
from my_plugin import MySchedule, MyShade


class TestMyShade(ConformanceCase):
    technique = MyShade


class TestMySchedule(ConformanceCase):
    technique = MySchedule


def test_of_the_authors_own():
    assert True
"""


class TestHFlip(ConformanceCase):
    technique = HFlip


@pytest.fixture
def project(pytester, monkeypatch):
    """An author's folder: a plugin that is not installed, and its tests."""
    pytester.makepyfile(my_plugin=PLUGIN, test_mine=CASES)
    pytester.syspathinsert()
    monkeypatch.delitem(sys.modules, "my_plugin", raising=False)
    return pytester


def test_each_rule_of_the_slot_is_an_item(project):
    result = project.runpytest_inprocess("--collect-only", "-q", "-p", "no:cacheprovider")
    names = [rule.name for rule in KIT if "schedule" in rule.slots]
    items = [line for line in result.outlines if "TestMySchedule" in line]
    assert items == [f"test_mine.py::TestMySchedule::test_conformance[{name}]" for name in names]


def test_a_broken_rule_explains_itself_and_others_are_skipped_with_a_reason(project):
    result = project.runpytest_inprocess("-rs", "-p", "no:cacheprovider")
    counts = result.parseoutcomes()
    assert counts["failed"] == 1
    result.stdout.fnmatch_lines(
        [
            "*TestMyShade.test_conformance*inputs-unchanged*",
            "augmentation 'my_shade': inputs-unchanged: broken",
            "  rule: what it is given stays as it is",
            "  what happened: with 6 colour images of 16 x 16 it changed its arguments in place: *",
            "  where: my_plugin.py:12",
            "  fix: work on a copy: *",
        ]
    )
    result.stdout.fnmatch_lines(["SKIPPED*waived: it is shown elsewhere"])
    result.stdout.fnmatch_lines(["SKIPPED*not applicable: it draws nothing"])
    assert "Traceback" not in result.stdout.str()


def test_a_class_without_a_technique_is_told_at_collection(pytester):
    pytester.makepyfile("from cnnbench.testing import ConformanceCase\nclass TestNothing(ConformanceCase): pass\n")
    result = pytester.runpytest_inprocess("-p", "no:cacheprovider")
    result.stdout.fnmatch_lines(["*TestNothing names no technique: expected `technique = MyTechnique` in its body*"])


def test_files_that_options_make(pytester):
    pytester.makepyfile(
        """
        import numpy as np
        from cnnbench.testing import ConformanceCase
        from cnnbench_plugins.dataset.arrays import Arrays

        class TestArrays(ConformanceCase):
            technique = Arrays

            @classmethod
            def options(cls, folder):
                images, labels = np.zeros((4, 8, 8), np.uint8), np.arange(4) % 2
                np.savez(folder / "a.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)
                return {"path": folder / "a.npz"}
        """
    )
    result = pytester.runpytest_inprocess("-rs", "-p", "no:cacheprovider")
    assert result.parseoutcomes().keys() == {"passed", "skipped"}
    assert "not checked" not in result.stdout.str()


@pytest.mark.slow
def test_under_xdist_and_in_any_order(project):
    project.makeconftest("def pytest_collection_modifyitems(items): items.reverse()")
    result = project.runpytest_subprocess("-n", "2", "-p", "no:cacheprovider")
    assert result.parseoutcomes()["failed"] == 1


def test_a_project_that_only_has_cnnbench_installed_imports_no_torch(pytester):
    pytester.makepyfile("import sys\ndef test_it(): assert 'torch' not in sys.modules\n")
    assert pytester.runpytest_subprocess("-p", "no:cacheprovider").ret == 0
