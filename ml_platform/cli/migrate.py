"""`ml-platform migrate`: the schemas of Dagster and MLflow as this code wants them."""

import os
import subprocess
import sys
from pathlib import Path

from ml_platform.core.errors import StackError

DATABASE = "MLFLOW_DB_URL"


def migrate() -> None:
    """Bring the databases of $DAGSTER_HOME and of MLflow ($MLFLOW_DB_URL) to the present schema; new ones are created.

    Does nothing where they are. Deployments of a new image run it first (docs/cluster.md, Upgrades).
    """
    if missing := [name for name in ("DAGSTER_HOME", DATABASE) if not os.environ.get(name)]:
        raise StackError("migrate", f"{missing[0]} is not set", f"export {missing[0]}=...")
    _check(os.environ[DATABASE])
    _run("dagster", "instance", "migrate")
    _run("mlflow", "db", "upgrade", os.environ[DATABASE])
    _run("python", "-m", "mlflow.server.auth", "db", "upgrade", "--url", os.environ[DATABASE])  # who may log in


def _check(database: str) -> None:
    """MLflow itself would try for two minutes before it says that there is no such database."""
    from sqlalchemy import create_engine
    from sqlalchemy.exc import DBAPIError

    try:
        create_engine(database).connect().close()
    except DBAPIError as error:
        problem = f"the database of MLflow cannot be opened: {' '.join(str(error.orig).split())}"
        raise StackError("migrate", problem, f"look after {DATABASE}") from error


def _run(program: str, *arguments: str) -> None:
    """Run a program of this environment; its address may hold a password and is not repeated."""
    command = [str(Path(sys.executable).parent / program), *arguments]
    if status := subprocess.run(command, check=False).returncode:
        what = " ".join([program, *(one for one in arguments if one != os.environ[DATABASE])])
        raise StackError("migrate", f"`{what}` ended with status {status}", "read its last lines above")
