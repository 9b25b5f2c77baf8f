"""What is the same in a folder and on a server: kinds of stores, as parameters of tests."""

from pathlib import Path

import pytest

from ml_platform.core.settings import Settings

S3 = pytest.param("s3", marks=pytest.mark.processes)
POSTGRES = pytest.param("postgres", marks=pytest.mark.processes)
REDIS = pytest.param("redis", marks=pytest.mark.processes)
FEAST = ("feast+sqlite", REDIS)


@pytest.fixture(params=["sqlite", *FEAST])
def at_store(request: pytest.FixtureRequest, tmp_path: Path) -> Settings:
    """A home of the test's own, with an online store of each kind."""
    if request.param == "redis":
        return Settings(home=tmp_path, online_store=request.getfixturevalue("redis_url"))
    return Settings(home=tmp_path, online_store=f"{request.param}:///{tmp_path / 'deep' / 'online.db'}")
