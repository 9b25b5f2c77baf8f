"""Objects by kind, namespace and name, with versions, and who watches them."""

import copy
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

Object = dict[str, Any]
Key = tuple[str, str, str]  # plural, namespace, name


def now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class Store:
    """All methods may be called from any thread. What is returned is a copy; what is stored changes through `change` only."""

    def __init__(self) -> None:
        self.changed = threading.Condition(threading.RLock())
        self._objects: dict[Key, Object] = {}
        self._log: list[tuple[int, str, str, Object]] = []  # version, event, plural, object
        self._version = 0

    def create(self, plural: str, namespace: str, body: Object) -> Object | None:
        """None if there is one of this name."""
        with self.changed:
            made = copy.deepcopy(body)
            meta = made.setdefault("metadata", {})
            if (plural, namespace, meta["name"]) in self._objects:
                return None
            meta |= {"namespace": namespace, "uid": str(uuid4()), "creationTimestamp": now(), "generation": 1}
            self._put("ADDED", plural, made)
            return copy.deepcopy(made)

    def get(self, plural: str, namespace: str, name: str) -> Object | None:
        with self.changed:
            return copy.deepcopy(self._objects.get((plural, namespace, name)))

    def list(self, plural: str, fits: Callable[[Object], bool] = lambda one: True) -> list[Object]:
        with self.changed:
            return [copy.deepcopy(one) for (kind, _, _), one in self._objects.items() if kind == plural and fits(one)]

    def change(self, plural: str, known: Object, change: Callable[[Object], None]) -> Object | None:
        """Change an object that is known in some former version; None if it is gone."""
        with self.changed:
            there = self._objects.get((plural, known["metadata"]["namespace"], known["metadata"]["name"]))
            if there is None or there["metadata"]["uid"] != known["metadata"]["uid"]:
                return None
            before = copy.deepcopy(there)
            change(there)
            if there != before:
                self._put("MODIFIED", plural, there)
            return copy.deepcopy(there)

    def remove(self, plural: str, known: Object) -> None:
        with self.changed:
            key = (plural, known["metadata"]["namespace"], known["metadata"]["name"])
            there = self._objects.get(key)
            if there and there["metadata"]["uid"] == known["metadata"]["uid"]:
                del self._objects[key]
                self._log_event("DELETED", plural, there)

    def look(self, plural: str, known: Object) -> Object | None:
        """What is there of an object that is known in some former version, not copied: only to be looked at."""
        there = self._objects.get((plural, known["metadata"]["namespace"], known["metadata"]["name"]))
        return there if there and there["metadata"]["uid"] == known["metadata"]["uid"] else None

    @property
    def version(self) -> int:
        with self.changed:
            return self._version

    def wait(self, version: int, timeout: float) -> int:
        """Until there is something newer than `version`, or for `timeout` seconds; returns the newest version."""
        with self.changed:
            self.changed.wait_for(lambda: self._version > version, timeout)
            return self._version

    def events_since(self, version: int, plural: str, until: Callable[[], bool]) -> Iterator[tuple[int, str, Object]]:
        """What happens to objects of a kind from a version on, as it happens, until `until` says that it is enough."""
        while not until():
            with self.changed:
                new = [one for one in self._log if one[0] > version]
                if not new:
                    self.changed.wait(0.2)
                    continue
            for version, event, kind, found in new:  # it goes on from there
                if kind == plural:
                    yield version, event, found

    def _put(self, event: str, plural: str, whole: Object) -> None:
        meta = whole["metadata"]
        self._objects[plural, meta["namespace"], meta["name"]] = whole
        self._log_event(event, plural, whole)

    def _log_event(self, event: str, plural: str, whole: Object) -> None:
        self._version += 1
        whole["metadata"]["resourceVersion"] = str(self._version)
        self._log.append((self._version, event, plural, copy.deepcopy(whole)))
        self.changed.notify_all()
