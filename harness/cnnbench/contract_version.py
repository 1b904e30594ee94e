"""The version of the contract between cnnbench and plugins.

Part of the contract is what a plugin's author writes against: the hooks and their arguments (``cnnbench.hookspecs``),
the ``technique`` decorator and the kinds of options, the slots with the signatures and protocols of their techniques
(``cnnbench.slots``), the errors that techniques raise (``cnnbench.errors``), the types that they are handed and return
(``cnnbench.types``), and the conformance kit (``cnnbench.testing``). Everything else of the harness may change at any
time, and so may the text of messages.

A *minor* step adds: a hook, a slot, an optional argument or method, a field. What worked goes on working. A *major*
step takes away or changes: what it takes away was deprecated in a minor version before, wherever that was possible.

A plugin's module may say what it was built for, as ``CNNBENCH_CONTRACT = "1.0"``: it needs that major version, and at
least that minor one. Without it nothing is claimed and nothing checked. It is read from the source before the module is
imported, for an import may fail just because the contract has changed.
"""

from __future__ import annotations

import ast
import re
from typing import Final

CONTRACT: Final = (1, 0)
"""Major and minor version of the contract that this cnnbench keeps."""
NAME: Final = "CNNBENCH_CONTRACT"
"""What a plugin's module calls the version that it was built for."""


def refusal(value: object) -> str | None:
    """Why a plugin that says ``CNNBENCH_CONTRACT = value`` can't be used here; None where it can.

    Args:
        value: what it says; None claims nothing.
    """
    if value is None:
        return None
    here = ".".join(map(str, CONTRACT))
    found = re.fullmatch(r"(\d{1,6})\.(\d{1,6})", value, re.ASCII) if isinstance(value, str) else None
    if found is None:
        return f'{NAME} is {value!r:.60}, expected the version of the contract as text, such as {NAME} = "{here}"'
    major, minor = int(found[1]), int(found[2])
    if (major, minor) == CONTRACT or (major == CONTRACT[0] and minor < CONTRACT[1]):
        return None
    built = f"it was built for version {value} of the plugin contract, this cnnbench has {here}"
    if major < CONTRACT[0]:
        return f"{built}: install a version of the plugin for {CONTRACT[0]}.x, or an earlier cnnbench"
    return f"{built}: upgrade cnnbench, or install an earlier version of the plugin"


def declared(source: bytes) -> object:
    """What a module's source says to have been built for, without running it; None where it says nothing plainly."""
    if NAME.encode() not in source:
        return None
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError):
        return None  # the import tells of it
    for node in tree.body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        if any(isinstance(target, ast.Name) and target.id == NAME for target in targets):
            try:
                return ast.literal_eval(getattr(node, "value", None) or ast.Constant(None))
            except (ValueError, TypeError, RecursionError):
                return None  # it is computed: known once the module is imported
    return None
