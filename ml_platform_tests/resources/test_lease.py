"""The lease, with a store that does what MLflow does and no more."""

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_ALREADY_EXISTS, RESOURCE_DOES_NOT_EXIST

from ml_platform.core.errors import RegistryError
from ml_platform.resources.lease import LEASE_TAG, SECONDS, lease


@dataclass
class Store:
    """Registered models by name; `late` answers of a creation get lost after it was done, and it is sent again."""

    models: dict[str, dict[str, str]] = field(default_factory=dict)
    late: bool = False

    def create_registered_model(self, name: str, tags: dict[str, str]) -> None:
        if name in self.models:
            raise MlflowException("exists", RESOURCE_ALREADY_EXISTS)
        self.models[name] = tags
        if self.late:
            self.create_registered_model(name, tags)

    def get_registered_model(self, name: str) -> Any:
        if name not in self.models:
            raise MlflowException("gone", RESOURCE_DOES_NOT_EXIST)
        return SimpleNamespace(tags=self.models[name])

    def rename_registered_model(self, name: str, new_name: str) -> None:
        self.create_registered_model(new_name, self.get_registered_model(name).tags)
        del self.models[name]

    def delete_registered_model(self, name: str) -> None:
        del self.models[name]


class Time:
    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def left_behind(store: Store, time: Time) -> None:
    """What a process leaves that is killed while it holds the lease."""
    store.create_registered_model("m.lease", {LEASE_TAG: f"{time() + SECONDS} abc"})


@pytest.fixture
def time() -> Time:
    return Time()


def test_it_is_there_for_the_moments_of_a_change(time: Time) -> None:
    store = Store()
    with lease(store, "m", time, sleep=time.sleep) as held:
        held.check()
        assert list(store.models) == ["m.lease"]
    assert store.models == {}


def test_it_is_given_back_when_the_change_fails(time: Time) -> None:
    store = Store()
    with pytest.raises(ZeroDivisionError), lease(store, "m", time, sleep=time.sleep):
        _ = 1 / 0
    assert store.models == {}


def test_one_that_a_dead_process_left_is_waited_for_and_set_aside(time: Time) -> None:
    store = Store()
    left_behind(store, time)
    began = time.now
    with lease(store, "m", time, sleep=time.sleep):
        assert SECONDS <= time.now - began < SECONDS + 1
        assert len(store.models) == 2
    assert [name.rpartition(".")[0] for name in store.models] == ["m.lease"]


def test_who_is_late_to_set_one_aside_does_not_take_the_next_ones_place(time: Time) -> None:
    """Both see the same expired lease; one sets it aside and takes a new one before the other acts."""
    store = Store()
    left_behind(store, time)
    time.now += SECONDS + 1
    expired = store.models["m.lease"]["ml_platform.lease"].split()[1]
    with lease(store, "m", time, sleep=time.sleep):
        mine = store.models["m.lease"]
        with pytest.raises(MlflowException):
            store.rename_registered_model("m.lease", f"m.lease.{expired}")
        assert store.models["m.lease"] == mine


def test_writer_that_takes_too_long_may_not_begin_another_write(time: Time) -> None:
    store = Store()
    with lease(store, "m", time, sleep=time.sleep) as held:
        time.now += SECONDS / 2
        with pytest.raises(RegistryError, match="takes too long"):
            held.check()
    assert list(store.models) == ["m.lease"], "it may be another's by now"


def test_request_that_was_sent_again_has_taken_it_all_the_same(time: Time) -> None:
    store = Store(late=True)
    with lease(store, "m", time, sleep=time.sleep):
        assert time.now == 1_000.0
