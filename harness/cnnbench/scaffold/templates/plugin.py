"""template_summary."""

from __future__ import annotations

from cnnbench import hookimpl
from cnnbench.scaffold.templates.norm.technique import Template

CNNBENCH_CONTRACT = "template_contract"
"""The version of cnnbench's contract with plugins that this is written for."""


@hookimpl
def cnnbench_register_techniques() -> list[type]:
    """What this plugin offers. Called when cnnbench starts."""
    return [Template]
