"""What the server serves: one loaded bundle per model, following the registry's champions."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from ml_platform.core.errors import BundleError, RegistryError
from ml_platform.registry.bundle import Bundle, unpack
from ml_platform.registry.versions import Version
from ml_platform.resources.registry import Registry

log = logging.getLogger("ml_platform.serving")


@dataclass(frozen=True)
class Served:
    """A version that answers requests."""

    version: Version
    bundle: Bundle
    since: float


@dataclass(frozen=True)
class Refused:
    """A version that the registry wants served, and why it is not."""

    version: Version
    reason: str


@dataclass
class ServedModels:
    """The loaded models. A swap is one assignment: a request sees the old version or the new one, never a mixture."""

    registry: Registry
    clock: Callable[[], float] = time.time
    served: dict[str, Served] = field(default_factory=dict)
    refused: dict[str, Refused] = field(default_factory=dict)
    synchronized: bool = False

    def synchronize(self) -> None:
        """Serve what the registry's champion aliases say. What cannot be loaded is refused, and the old one stays.

        Raises:
            RegistryError: if the registry cannot be asked; everything stays as it is.
        """
        champions = self.registry.champions()
        for model, version in champions.items():
            current, refused = self.served.get(model), self.refused.get(model)
            if current and current.version.number == version.number:
                self.refused.pop(model, None)
            elif not (refused and refused.version == version):
                self._take(model, version)
        for model in self.served.keys() - champions.keys():
            del self.served[model]
            log.info("%s has no champion any more", model)
        for model in self.refused.keys() - champions.keys():
            del self.refused[model]
        self.synchronized = True

    def _take(self, model: str, version: Version) -> None:
        try:
            bundle = unpack(self.registry.download(version), version.label)
            _self_test(bundle, version.label)
        except RegistryError as error:  # it may answer the next time
            log.warning("cannot load %s: %s", version.label, error)
            return
        except Exception as error:  # noqa: BLE001 - whatever is wrong with one bundle, the other models go on
            self.refused[model] = Refused(version, f"{type(error).__name__}: {error}")
            log.warning("refused %s: %s", version.label, error)
            return
        self.served[model] = Served(version, bundle, self.clock())
        self.refused.pop(model, None)
        log.info("now serving %s (bundle %s)", version.label, version.digest[:12])


def _self_test(bundle: Bundle, subject: str) -> None:
    """Score a row of defaults, which also warms the model up."""
    row = {name: np.array([default]) for name, default in bundle.schema.features.items()}
    row |= {name: empty_column(type_) for name, type_ in bundle.schema.request.items()}
    scores = bundle.score(row)
    several = bundle.spec.task == "multiclass_classification"
    if len(scores) != 1 or scores.ndim != (2 if several else 1) or not np.isfinite(scores).all():
        wanted = "one finite score per class" if several else "one finite score"
        raise BundleError(subject, f"self-test gave {scores!r}, not {wanted}", "train again")


def empty_column(type_: str) -> np.ndarray:
    """One row of a harmless value of a column type."""
    if type_ == "timestamp":
        return np.array(["2020-01-01"], dtype="datetime64[us]")
    if type_ == "bool":
        return np.zeros(1, dtype=bool)
    return np.array([""]) if type_ == "string" else np.zeros(1)
