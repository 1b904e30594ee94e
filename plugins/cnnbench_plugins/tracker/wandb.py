"""Weights & Biases."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cnnbench.technique import Requirement, technique

if TYPE_CHECKING:
    from collections.abc import Mapping


@technique("tracker", "wandb", requires=(Requirement("wandb", "wandb"),))
class Wandb:
    """Logs the run to Weights & Biases, offline unless ``WANDB_MODE`` says otherwise.

    Each trial is a run, in a group for the run of the suite: its settings as config, curves by epoch, final metrics and
    the status as summary. One more run of the group has the tables. Offline runs lie in the results folder, under
    ``wandb``; ``wandb sync`` sends them when you want it. ``WANDB_PROJECT`` names the project (default: cnnbench) and
    ``WANDB_DIR`` another folder. Console output, code, and what wandb finds out about machine and user are not logged.
    """

    def __call__(self, run: Mapping[str, Any]) -> object:
        """An observer of the run."""
        from cnnbench_plugins.tracker._observer import Observer
        from cnnbench_plugins.tracker._wandb import Group

        return Observer(Group(run))


TECHNIQUES = (Wandb,)
