"""Addresses of every kind of online store."""

from pathlib import Path

import pytest

from ml_platform.core.settings import Settings
from ml_platform_tests.redis import redis_port, redis_url  # noqa: F401  # fixtures

FEAST = ("feast+sqlite", "redis")


@pytest.fixture(params=["sqlite", *FEAST])
def at_store(request: pytest.FixtureRequest, tmp_path: Path) -> Settings:
    """A home of the test's own, with an online store of each kind."""
    if request.param == "redis":
        return Settings(home=tmp_path, online_store=request.getfixturevalue("redis_url"))
    return Settings(home=tmp_path, online_store=f"{request.param}:///{tmp_path / 'deep' / 'online.db'}")
