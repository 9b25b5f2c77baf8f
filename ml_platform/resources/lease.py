"""One at a time: a lease on a model's registry entry, made of what MLflow has.

Creating a registered model is the one thing in MLflow that succeeds for one caller only, so the lease is one, `<model>.lease`,
there for the moments of a change. A holder that dies leaves it behind; who finds it expired renames it after its token, which
again succeeds for one caller only, and never for a lease that somebody else has taken since.
"""

import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from ml_platform.core.errors import RegistryError

LEASE_TAG = "ml_platform.lease"
SECONDS = 90.0  # how long a lease holds; longer than any request may take that was begun in its first part
BEGIN_WITHIN = 1 / 3  # of the lease: nothing is begun later


@dataclass(frozen=True)
class Lease:
    """Permission to write until `until`, by this process's clock."""

    model: str
    begin_until: float
    clock: Callable[[], float]

    def check(self) -> None:
        """Before every write.

        Raises:
            RegistryError: if it may run out while the write is under way.
        """
        if self.clock() > self.begin_until:
            raise RegistryError(
                f"{self.model}/registry", "the change takes too long, and others may write now", "try again"
            )


@contextmanager
def lease(
    client: Any,
    model: str,
    clock: Callable[[], float] = time.time,
    seconds: float = SECONDS,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[Lease]:
    """Hold the model's lease; waits for who holds it, at most until that one's has expired.

    Raises:
        RegistryError: if others hold it again and again.
    """
    from mlflow.exceptions import MlflowException

    name, token = f"{model}.lease", uuid4().hex[:12]
    give_up = clock() + 2 * seconds
    while not (taken := _take(client, name, token, clock() + seconds)):
        while there := _read(client, name):  # waiting by creating would keep the holder's own writes waiting
            if clock() > give_up:
                raise RegistryError(f"{model}/registry", f"others have changed it for {2 * seconds:.0f} s", "try again")
            if there[0] < clock():
                with suppress(MlflowException):  # somebody was faster
                    client.rename_registered_model(name, f"{name}.{there[1]}")
                break
            sleep(random.uniform(0.05, 0.3))
    held = Lease(model, taken - (1 - BEGIN_WITHIN) * seconds, clock)
    try:
        yield held
    finally:
        if clock() <= held.begin_until:  # otherwise it may be another's
            with suppress(MlflowException):  # if that fails it expires
                client.delete_registered_model(name)


def _take(client: Any, name: str, token: str, until: float) -> float | None:
    """Until when it is held; None if it is another's."""
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(name, tags={LEASE_TAG: f"{until} {token}"})
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
        # Perhaps by this very call: a request whose answer is late is sent again.
        there = _read(client, name)
        return there[0] if there and there[1] == token else None
    return until


def _read(client: Any, name: str) -> tuple[float, str] | None:
    """Until when the lease holds, and its holder's token; None if there is none."""
    from mlflow.exceptions import MlflowException

    try:
        until, token = client.get_registered_model(name).tags[LEASE_TAG].split()
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return None
        raise
    return float(until), token
