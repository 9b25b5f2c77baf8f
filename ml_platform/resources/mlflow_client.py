"""MLflow's client as the platform wants it: soon tired of a server that is away, and without what Feast hangs into it."""

import os
import sys
from typing import Any

_HEADERS = "mlflow.tracking.request_header.registry"


def mlflow_client(tracking_uri: str) -> Any:
    """A client of tracking and registry at one address."""
    prepare_mlflow()
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri, tracking_uri)


def prepare_mlflow() -> None:
    """Before the first request of a process, whoever makes it.

    With Feast installed, MLflow's client would load a plugin of Feast's that takes five seconds of processor time and sends the
    token of a pod's service account, with which jobs can be launched, along with every request.
    """
    # MLflow's own defaults keep a caller waiting for minutes when the server is down.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    if _HEADERS in sys.modules:
        return
    from mlflow.utils import plugins

    found = plugins._get_entry_points
    plugins._get_entry_points = lambda group: [one for one in found(group) if not one.value.startswith("feast.")]
    try:
        import mlflow.tracking.request_header.registry  # noqa: F401  # it loads them, once
    finally:
        plugins._get_entry_points = found
