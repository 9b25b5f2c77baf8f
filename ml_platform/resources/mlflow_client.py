"""MLflow's client as the platform wants it: soon tired of a server that is away, and without what Feast hangs into it."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

# Retries of a request, each after twice the time of the one before: given up after 4 s, or after 124 s, in which a server is replaced.
SOON, TWO_MINUTES = 2, 6
_RETRIES = "MLFLOW_HTTP_REQUEST_MAX_RETRIES"
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
    os.environ.setdefault(_RETRIES, str(SOON))
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


@contextmanager
def patience(retries: int) -> Iterator[None]:
    """How often a request is tried again meanwhile, unless the environment says it: `SOON` or `TWO_MINUTES`."""
    before = os.environ.get(_RETRIES)
    if before in (None, str(SOON), str(TWO_MINUTES)):
        os.environ[_RETRIES] = str(retries)
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(_RETRIES, None)
        else:
            os.environ[_RETRIES] = before
