"""MLflow and Weights & Biases, by Tune's own callbacks."""

from __future__ import annotations

import importlib.util
from typing import Any

from actors.errors import UserError


def loggers(mlflow: str | None, wandb: str | None) -> list[Any]:
    """Callbacks for those that are asked for.

    Args:
        mlflow: tracking URI.
        wandb: project.

    Raises:
        UserError: its package is not installed; says how to install it.
    """
    found: list[Any] = []
    if mlflow is not None:
        _require("mlflow")
        from ray.air.integrations.mlflow import MLflowLoggerCallback

        found.append(MLflowLoggerCallback(tracking_uri=mlflow, experiment_name="touchdown"))
    if wandb is not None:
        _require("wandb")
        from ray.air.integrations.wandb import WandbLoggerCallback

        found.append(WandbLoggerCallback(project=wandb))
    return found


def _require(package: str) -> None:
    if importlib.util.find_spec(package) is None:
        raise UserError(f"--{package} needs the package {package}, which is not installed: pip install {package}")
