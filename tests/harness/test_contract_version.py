"""The version of the contract with plugins: who is refused, when, and who is told of what goes."""

from __future__ import annotations

import warnings

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnnbench import contract_version, hookspecs
from cnnbench.contract_version import CONTRACT, declared, refusal
from cnnbench.hookspecs import ContractDeprecation, hookimpl, hookspec
from cnnbench.plugins import PluginHost
from cnnbench.registry import Owner

HERE = ".".join(map(str, CONTRACT))
GOOD = '''
from cnnbench import hookimpl, technique

@technique("activation", "agreed")
class Agreed:
    """Does what it says."""
    def __call__(self, module):
        return module

@hookimpl
def cnnbench_register_techniques():
    return [Agreed]
'''


def test_the_version_of_this_contract_and_no_claim_are_accepted():
    assert refusal(HERE) is None
    assert refusal(None) is None


@given(st.integers(0, 40), st.integers(0, 40), st.integers(0, 40), st.integers(0, 40))
def test_a_plugin_fits_its_own_major_version_from_its_minor_one_on(major, minor, has_major, has_minor):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(contract_version, "CONTRACT", (has_major, has_minor))
        text = refusal(f"{major}.{minor}")
    assert (text is None) == (major == has_major and minor <= has_minor)
    if text:
        assert f"built for version {major}.{minor} " in text
        assert f"this cnnbench has {has_major}.{has_minor}:" in text
        newer = (major, minor) > (has_major, has_minor)
        assert ("upgrade cnnbench" in text) == newer
        assert "\n" not in text


@pytest.mark.parametrize(
    "value", [1, 1.0, True, "", "1", "1.0.0", "v1.0", " 1.0", "1.x", "-1.0", "١.٠", [1, 0], {}, b"1.0"]
)
def test_what_is_no_version_is_told_with_one_that_is(value):
    assert refusal(value) == (
        f"CNNBENCH_CONTRACT is {value!r}, expected the version of the contract as text, "
        f'such as CNNBENCH_CONTRACT = "{HERE}"'
    )


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ('CNNBENCH_CONTRACT = "2.0"', "2.0"),
        ('"""Doc."""\nimport gone\nCNNBENCH_CONTRACT: str = "2.0"\n', "2.0"),
        ("CNNBENCH_CONTRACT = 2", 2),
        ('OTHER = CNNBENCH_CONTRACT = "2.0"', "2.0"),
        ("CNNBENCH_CONTRACT = '.'.join('20')", None),
        ("CNNBENCH_CONTRACT: str", None),
        ('# CNNBENCH_CONTRACT = "2.0"', None),
        ('def f():\n    CNNBENCH_CONTRACT = "2.0"', None),
        ('CNNBENCH_CONTRACT = "2.0"\ndef broken(:', None),
        ("", None),
    ],
)
def test_the_version_is_read_without_running_the_module(source, said):
    assert declared(source.encode()) == said


def test_a_plugin_for_another_major_version_is_refused_before_it_is_imported(install_plugin, tmp_path):
    install_plugin("later", f'CNNBENCH_CONTRACT = "9.0"\nopen({str(tmp_path / "ran")!r}, "w")\n{GOOD}')
    (problem,) = PluginHost.discover().problems
    assert str(problem) == (
        f"plugin 'later' of later 1.0: it was built for version 9.0 of the plugin contract, this cnnbench has {HERE}: "
        "upgrade cnnbench, or install an earlier version of the plugin"
    )
    assert not (tmp_path / "ran").exists()


def test_a_version_that_is_computed_is_known_after_the_import(install_plugin):
    install_plugin("sly", f"CNNBENCH_CONTRACT = str(9) + '.0'\n{GOOD}")
    host = PluginHost.discover()
    assert "built for version 9.0" in host.problems[0].cause
    assert "agreed" not in host.registry.names("activation")


@pytest.mark.parametrize("claim", [f'CNNBENCH_CONTRACT = "{HERE}"', f'CNNBENCH_CONTRACT = "{CONTRACT[0]}.0"', ""])
def test_a_plugin_for_this_contract_is_loaded(install_plugin, claim):
    install_plugin("fitting", f"{claim}\n{GOOD}")
    host = PluginHost.discover()
    assert host.problems == []
    assert host.registry.get("activation", "agreed")


# Deprecation, with a hook that stands for one that goes.


@pytest.fixture
def old_hook(monkeypatch):
    """The contract with a hook, and an argument of another, that go."""

    @hookspec(warn_on_impl=ContractDeprecation("hook cnnbench_old is deprecated since 1.1: use cnnbench_new"))
    def cnnbench_old(): ...

    @hookspec(warn_on_impl_args={"worn": ContractDeprecation("argument worn is deprecated since 1.1: use fresh")})
    def cnnbench_new(fresh, worn): ...

    monkeypatch.setattr(hookspecs, "cnnbench_old", cnnbench_old, raising=False)
    monkeypatch.setattr(hookspecs, "cnnbench_new", cnnbench_new, raising=False)


OLD = f"{GOOD}\n@hookimpl\ndef cnnbench_old():\n    pass\n\n@hookimpl\ndef cnnbench_new(worn):\n    pass\n"


@pytest.mark.usefixtures("old_hook")
def test_who_uses_what_is_deprecated_is_told_and_works_on(install_plugin):
    install_plugin("aged", OLD)
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("always")
        host = PluginHost.discover()
    assert {str(problem) for problem in host.problems} == {
        "plugin 'aged' of aged 1.0: hook cnnbench_old is deprecated since 1.1: use cnnbench_new",
        "plugin 'aged' of aged 1.0: argument worn is deprecated since 1.1: use fresh",
    }
    assert all(problem.usable for problem in host.problems)
    assert not [one for one in shown if isinstance(one.message, ContractDeprecation)], "told once, by the host"
    assert host.registry.get("activation", "agreed")
    assert len(host.with_local(()).problems) == 2


@pytest.mark.usefixtures("old_hook")
def test_a_suite_with_a_plugin_that_uses_what_is_deprecated_is_no_mistake(tmp_path, tiny_suite):
    from cnnbench.opening import open_suite

    (tmp_path / "aged_act.py").write_text(OLD)
    path = tmp_path / "s.toml"
    path.write_text(tiny_suite({"a": '{ activation = "agreed" }'}, plugins=["aged_act.py"]))
    suite, host = open_suite(path, PluginHost.discover())
    assert [arm.name for arm in suite.arms] == ["a"]
    assert "cnnbench_old is deprecated" in "".join(map(str, host.problems))


def test_other_warnings_at_registration_are_passed_on(monkeypatch):
    @hookspec(warn_on_impl=UserWarning("something else"))
    def cnnbench_other(): ...

    monkeypatch.setattr(hookspecs, "cnnbench_other", cnnbench_other, raising=False)

    class Plugin:
        @hookimpl
        def cnnbench_other(self): ...

    host = PluginHost()
    with pytest.warns(UserWarning, match="something else"):
        host.register(Plugin(), Owner("p", "p", "1"))
    assert host.problems == []
