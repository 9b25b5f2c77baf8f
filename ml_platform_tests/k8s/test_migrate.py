"""`ml-platform migrate` on a real PostgreSQL."""

import os
import re
import subprocess
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest

from ml_platform_tests.processes import BIN

INSTANCE = "storage:\n  postgres:\n    postgres_url: {env: DAGSTER_PG_URL}\ntelemetry: {enabled: false}\n"


@pytest.fixture
def environment(postgres_url: str, tmp_path: Path) -> dict[str, str]:
    """Two empty databases, as a cluster begins with."""
    plain, suffix = postgres_url.replace("+psycopg", ""), uuid4().hex[:8]
    with psycopg.connect(plain, autocommit=True) as connection:
        for database in ("dagster", "mlflow"):
            connection.execute(f"CREATE DATABASE {database}_{suffix}".encode())
    (tmp_path / "dagster.yaml").write_text(INSTANCE)
    return {
        "DAGSTER_HOME": str(tmp_path),
        "DAGSTER_PG_URL": plain.replace("/postgres", f"/dagster_{suffix}").replace("://", "+psycopg2://"),
        "MLFLOW_DB_URL": postgres_url.replace("/postgres", f"/mlflow_{suffix}"),
    }


def migrate(environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    command = [str(BIN / "ml-platform"), "migrate"]
    return subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, check=False)


def tables(url: str) -> set[str]:
    with psycopg.connect(re.sub(r"\+\w+:", ":", url)) as connection:
        rows = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
        return {name for (name,) in rows}


def test_empty_databases_get_their_schemas_and_full_ones_stay(environment: dict[str, str]) -> None:
    for _ in range(2):
        done = migrate(environment)
        assert done.returncode == 0, done.stderr[-2000:]
        assert {"runs", "event_logs", "alembic_version"} <= tables(environment["DAGSTER_PG_URL"])
        assert {"registered_models", "experiments", "alembic_version", "users"} <= tables(environment["MLFLOW_DB_URL"])


def test_database_that_is_away_is_an_error_that_does_not_repeat_the_password(environment: dict[str, str]) -> None:
    done = migrate({**environment, "MLFLOW_DB_URL": environment["MLFLOW_DB_URL"].replace("/mlflow", "/nothing")})
    assert done.returncode == 1
    assert "the database of MLflow cannot be opened" in done.stderr
    assert 'database "nothing_' in done.stderr
    assert "not-to-be-shown" not in done.stderr


def test_variable_that_is_not_set_is_named(environment: dict[str, str]) -> None:
    done = migrate({**environment, "MLFLOW_DB_URL": ""})
    assert done.returncode == 1
    assert "MLFLOW_DB_URL is not set" in done.stderr
