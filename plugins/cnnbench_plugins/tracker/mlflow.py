"""MLflow."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cnnbench.technique import Requirement, technique

if TYPE_CHECKING:
    from collections.abc import Mapping


@technique("tracker", "mlflow", requires=(Requirement("mlflow", "mlflow"), Requirement("sqlalchemy", "mlflow")))
class Mlflow:
    """Logs the run to MLflow: an experiment for the suite, in it a run for the table and below that one for each trial.

    A trial's run has its settings as parameters, curves by epoch, final metrics and the status as a tag. It goes where
    ``MLFLOW_TRACKING_URI`` says; without it into the results folder, as the database ``mlflow.db``
    (``mlflow ui --backend-store-uri sqlite:///.../mlflow.db`` shows it). The extra installs MLflow without its web
    interface. No user's and no machine's name is logged, and MLflow's reports of its own use are off unless
    ``MLFLOW_DISABLE_TELEMETRY`` says otherwise.
    """

    def __call__(self, run: Mapping[str, Any]) -> object:
        """An observer of the run."""
        from cnnbench_plugins.tracker._mlflow import Experiment
        from cnnbench_plugins.tracker._observer import Observer

        return Observer(Experiment(run))


TECHNIQUES = (Mlflow,)
