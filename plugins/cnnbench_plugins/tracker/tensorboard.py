"""TensorBoard."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cnnbench.technique import Requirement, technique

if TYPE_CHECKING:
    from collections.abc import Mapping


@technique("tracker", "tensorboard", requires=(Requirement("tensorboard", "tensorboard"),))
class TensorBoard:
    """Writes event files for TensorBoard into the results folder.

    ``tensorboard/<time of the start>/<trial>`` there holds a trial's curves by epoch, its final metrics and, for the
    HParams page, its settings; the folder above has the run's table as text. ``tensorboard --logdir`` takes any of
    these folders. Nothing is sent anywhere. The names of event files hold the machine's name, as TensorBoard wants it.
    """

    def __call__(self, run: Mapping[str, Any]) -> object:
        """An observer of the run."""
        from cnnbench_plugins.tracker._observer import Observer
        from cnnbench_plugins.tracker._tensorboard import EventFiles

        return Observer(EventFiles(run))


TECHNIQUES = (TensorBoard,)
