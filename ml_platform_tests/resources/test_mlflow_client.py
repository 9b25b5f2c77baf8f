"""What MLflow's client loads and sends, in processes of their own, with Feast installed."""

import json
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import pytest

BARE = "from mlflow import MlflowClient; client = MlflowClient({url!r})"
OURS = "from ml_platform.resources.mlflow_client import mlflow_client; client = mlflow_client({url!r})"
ASK = "; client.get_experiment_by_name('any'); import sys, json; print(json.dumps('feast' in sys.modules))"


class MlflowThatListens(HTTPServer):
    """Answers that there is no such experiment; keeps what it was told."""

    def __init__(self) -> None:
        self.heard: list[dict[str, str]] = []
        super().__init__(("127.0.0.1", 0), _Handler)


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        assert isinstance(self.server, MlflowThatListens)
        self.server.heard.append(dict(self.headers))
        body = json.dumps({"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "none"}).encode()
        self.send_response(404)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def mlflow() -> Iterator[MlflowThatListens]:
    with MlflowThatListens() as listening:
        Thread(target=listening.serve_forever, daemon=True).start()
        yield listening
        listening.shutdown()


def loads_feast(mlflow: MlflowThatListens, program: str) -> bool:
    url = f"http://127.0.0.1:{mlflow.server_port}"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program.format(url=url) + ASK],
        capture_output=True,
        text=True,
        check=True,
    )
    assert mlflow.heard
    return json.loads(done.stdout)


@pytest.mark.processes
def test_bare_client_loads_feast(mlflow: MlflowThatListens) -> None:
    """If this fails, Feast has changed, and `prepare_mlflow` may do less."""
    pytest.importorskip("feast")
    assert loads_feast(mlflow, BARE)


@pytest.mark.processes
def test_ours_does_not(mlflow: MlflowThatListens) -> None:
    assert not loads_feast(mlflow, OURS)
    assert all("Authorization" not in headers for headers in mlflow.heard)
