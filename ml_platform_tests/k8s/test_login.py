"""MLflow as the cluster starts it: whoever has no login changes nothing."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import httpx
import psycopg
import pytest
import yaml

from ml_platform.core.errors import RegistryError
from ml_platform.resources.registry import Registry
from ml_platform_tests.k8s.double.kubelet import ROOT
from ml_platform_tests.processes import BIN, free_port, wait_until_it_answers

LOGIN = ("ml-platform", "a long password")


@pytest.fixture
def mlflow(postgres_url: str, tmp_path: Path) -> Iterator[str]:
    name = f"login_{uuid4().hex[:8]}"
    with psycopg.connect(postgres_url.replace("+psycopg", ""), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}".encode())
    deployment = next(iter(yaml.safe_load_all((ROOT / "k8s" / "base" / "mlflow.yaml").read_text())))
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    port = free_port()
    environment = {
        **os.environ,
        "PATH": f"{BIN}:{os.environ['PATH']}",
        "HOME": str(tmp_path),
        "MLFLOW_DB_URL": postgres_url.replace("/postgres", f"/{name}"),
        "MLFLOW_TRACKING_USERNAME": LOGIN[0],
        "MLFLOW_TRACKING_PASSWORD": LOGIN[1],
        "MLFLOW_FLASK_SERVER_SECRET_KEY": "secret",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    }
    replaced = {
        "5000": str(port),
        "0.0.0.0": "127.0.0.1",
        "$(MLFLOW_DB_URL)": environment["MLFLOW_DB_URL"],
        "$(MLFLOW_ARTIFACTS)": str(tmp_path / "artifacts"),
        "$(MLFLOW_ALLOWED_HOSTS)": "127.0.0.1:*",
    }
    command = list(container["args"])
    for word, value in replaced.items():
        command = [argument.replace(word, value) for argument in command]
    (tmp_path / "dagster.yaml").write_text("telemetry: {enabled: false}")
    migration = {**environment, "DAGSTER_HOME": str(tmp_path)}
    subprocess.run([BIN / "ml-platform", "migrate"], env=migration, check=True, capture_output=True)
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
    url = f"http://127.0.0.1:{port}"
    try:
        wait_until_it_answers(
            process, "MLflow", tmp_path / "log", lambda: httpx.get(f"{url}/health").raise_for_status(), httpx.HTTPError
        )
        yield url
    finally:
        os.killpg(process.pid, 15)
        process.wait(timeout=60)


def test_whoever_has_no_login_neither_reads_nor_writes(mlflow: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(RegistryError, match="401|not authenticated|Unauthorized"):
        Registry(mlflow).models()
    created = httpx.post(f"{mlflow}/api/2.0/mlflow/registered-models/create", json={"name": "evil"})
    assert created.status_code == 401

    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", LOGIN[0])
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", LOGIN[1])
    registry = Registry(mlflow)
    registry.client.create_registered_model("fraud")
    assert registry.models() == ["fraud"]

    made = httpx.post(
        f"{mlflow}/api/2.0/mlflow/users/create", json={"username": "reader", "password": "another one!"}, auth=LOGIN
    )
    assert made.status_code == 200, made.text
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "reader")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "another one!")
    assert Registry(mlflow).models() == ["fraud"]
    with pytest.raises(Exception, match="403|[Pp]ermission denied"):
        Registry(mlflow).client.set_registered_model_alias("fraud", "champion", "1")
