from typing import Any

import pytest

from ml_platform.core.errors import DeploymentError
from ml_platform.registry.versions import Version
from ml_platform.resources.model_server import ModelServer
from ml_platform_tests.processes import free_port

VERSION = Version("m", "2", "new", "2024-01-01", "run", "source")


class Told(ModelServer):
    """A server that says what it is told to say, one answer after the other."""

    def __init__(self, *answers: dict[str, Any] | None) -> None:
        self.answers = list(answers)
        self.now = 0.0
        super().__init__("http://server", clock=lambda: self.now, sleep=self.pass_time)

    def pass_time(self, seconds: float) -> None:
        self.now += seconds

    def status(self, model: str) -> dict[str, Any] | None:
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


OLD, NEW = {"version": "1", "digest": "old"}, {"version": "2", "digest": "new"}


def test_waits_until_the_new_digest_is_read_back() -> None:
    assert Told(None, OLD, NEW).wait_until_served(VERSION) == NEW


def test_challenger_is_waited_for_and_its_refusal_ends_the_waiting() -> None:
    challenged = {**OLD, "challenger": NEW}
    assert Told(OLD, {**OLD, "challenger": None}, challenged).wait_until_served(VERSION, arm="challenger") == challenged
    refused = {**OLD, "challenger": {"version": None, "refused": {"version": "2", "reason": "self-test failed"}}}
    with pytest.raises(DeploymentError, match="refused version 2: self-test failed"):
        Told(OLD, refused).wait_until_served(VERSION, arm="challenger")
    with pytest.raises(DeploymentError, match="still serves nothing, not version 2 as challenger"):
        Told(NEW).wait_until_served(VERSION, arm="challenger")


def test_server_that_restarts_is_waited_for() -> None:
    class Restarting(Told):
        def status(self, model: str) -> dict[str, Any] | None:
            if self.now < 5:
                raise DeploymentError("m/deployment", "does not answer", "start it")
            return super().status(model)

    assert Restarting(NEW).wait_until_served(VERSION) == NEW


def test_refusal_ends_the_waiting_with_its_reason() -> None:
    server = Told(OLD, {**OLD, "refused": {"version": "2", "reason": "self-test failed"}})
    with pytest.raises(DeploymentError, match="refused version 2: self-test failed"):
        server.wait_until_served(VERSION)


def test_refusal_of_another_version_does_not() -> None:
    assert Told({**OLD, "refused": {"version": "1", "reason": "old story"}}, NEW).wait_until_served(VERSION) == NEW


def test_server_that_never_takes_it_is_given_up_with_what_it_serves() -> None:
    with pytest.raises(DeploymentError, match="after 60 s .* still serves version 1, not version 2"):
        Told(OLD).wait_until_served(VERSION)


def test_server_that_is_down_is_named_with_the_next_step() -> None:
    with pytest.raises(DeploymentError, match="start it .make dev., or set ML_PLATFORM_MODEL_SERVER"):
        ModelServer(f"http://127.0.0.1:{free_port()}").status("m")
