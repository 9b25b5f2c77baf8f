"""The model server, seen from the outside: what does it serve?"""

import time
from collections.abc import Callable
from typing import Any, Literal

import httpx

from ml_platform.core.errors import DeploymentError
from ml_platform.core.settings import Settings
from ml_platform.registry.versions import Version


class ModelServer:
    def __init__(
        self,
        url: str,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        api_key: str | None = None,
    ) -> None:
        self.url = url
        self.headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self.clock = clock
        self.sleep = sleep

    @classmethod
    def at(cls, settings: Settings) -> "ModelServer":
        key = settings.api_key
        return cls(settings.model_server_url, api_key=key.get_secret_value() if key else None)

    def status(self, model: str) -> dict[str, Any] | None:
        """What the server says of a model; None if it does not know it.

        Raises:
            DeploymentError: if it does not answer.
        """
        try:
            answer = httpx.get(f"{self.url}/models/{model}", timeout=10, headers=self.headers)
            if answer.status_code == httpx.codes.NOT_FOUND:
                return None
            return answer.raise_for_status().json()
        except (httpx.HTTPError, ValueError) as error:
            raise self._silent(model, error) from error

    def predict(
        self,
        model: str,
        body: dict[str, Any],
        timeout: float = 60.0,
        arm: Literal["champion", "challenger"] | None = None,
    ) -> dict[str, Any]:
        """The server's answer to a prediction request; a server that cannot look features up is given until the timeout.

        `arm` is who shall answer, whatever the traffic; such an answer is not in the prediction log.

        Raises:
            DeploymentError: with what the server says, if it is no answer.
        """
        deadline = self.clock() + timeout
        url = f"{self.url}/models/{model}/predict" + (f"?arm={arm}" if arm else "")
        while True:
            try:
                answer = httpx.post(url, json=body, timeout=30, headers=self.headers)
            except httpx.HTTPError as error:
                raise self._silent(model, error) from error
            if answer.status_code == httpx.codes.OK:
                return answer.json()
            if answer.status_code != httpx.codes.SERVICE_UNAVAILABLE or self.clock() > deadline:
                problem = f"the model server answers {answer.status_code}: {answer.text[:300]}"
                raise DeploymentError(f"{model}/deployment", problem, "look at the model server's log")
            self.sleep(1.0)

    def wait_until_served(
        self, version: Version, timeout: float = 60.0, arm: Literal["champion", "challenger"] = "champion"
    ) -> dict[str, Any]:
        """Read back what is served until it is this version's digest; as challenger, in a shadow or answering a share.

        Raises:
            DeploymentError: if the server refuses the version, does not answer, or takes longer than `timeout` seconds.
        """
        deadline = self.clock() + timeout
        while True:
            try:
                status = self.status(version.model)
            except DeploymentError:
                if self.clock() > deadline:
                    raise
                self.sleep(1.0)  # a server that restarts is given until the deadline
                continue
            held = (status or {}) if arm == "champion" else (status or {}).get("challenger") or {}
            if status and held.get("digest") == version.digest:
                return status
            refused = held.get("refused") or {}
            if refused.get("version") == version.number:
                problem = f"the server refused version {version.number}: {refused['reason']}"
                raise DeploymentError(f"{version.model}/deployment", problem, "train again")
            if self.clock() > deadline:
                serving = f"version {held['version']}" if held.get("version") else "nothing"
                raise DeploymentError(
                    f"{version.model}/deployment",
                    f"after {timeout:.0f} s the server at {self.url} still serves {serving}, not version {version.number}"
                    + (" as challenger" if arm == "challenger" else ""),
                    "look at the model server's log",
                )
            self.sleep(0.2)

    def _silent(self, model: str, error: Exception) -> DeploymentError:
        problem = f"the model server at {self.url} does not answer: {error}"
        return DeploymentError(f"{model}/deployment", problem, "start it (make dev), or set ML_PLATFORM_MODEL_SERVER")
