"""The model registry on MLflow: versions are bundles, identified by their digest; aliases say what they are for."""

import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import date
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from ml_platform.core.days import start_of
from ml_platform.core.errors import RegistryError
from ml_platform.core.settings import Settings
from ml_platform.registry import bundle
from ml_platform.registry.versions import Aliases, Version
from ml_platform.resources.change import RECORD, Change
from ml_platform.resources.lease import LEASE_TAG, lease
from ml_platform.resources.mlflow_client import mlflow_client
from ml_platform.rollout.standing import ALIASES, Record, Standing, completion, held
from ml_platform.rollout.state import Event, Rollout
from ml_platform.rollout.traffic import Traffic
from ml_platform.training.overrides import OVERRIDES

T = TypeVar("T")
ARTIFACT_PATH = "bundle"
PLOTS_PATH = "evaluation"
EVENT = "ml_platform.event."  # what tags of versions begin with that say what was done to them


class Registry:
    def __init__(self, tracking_uri: str, clock: Callable[[], float] = time.time, by_hand: bool = False) -> None:
        """`by_hand`: whether a champion answers whose alias somebody has moved past rollouts and gates."""
        self.tracking_uri = tracking_uri
        self.by_hand = by_hand
        self.clock = clock
        self.client = mlflow_client(tracking_uri)

    @classmethod
    def at(cls, settings: Settings) -> "Registry":
        return cls(settings.mlflow_url, by_hand=settings.serve_by_hand)

    def register(
        self,
        model: str,
        files: Mapping[str, bytes],
        run_id: str,
        tags: Mapping[str, str],
        card: str = "",
        plots: Mapping[str, bytes] | None = None,
    ) -> Version:
        """Register a bundle as a version of the model, and its candidate; the same bundle again is the same version.

        `card` describes the version, in place of the bundle's own; `plots` become artifacts of the run.
        """
        bundle_digest = bundle.digest_of(files)
        with self._translated(model):
            version = self._registered(model, bundle_digest)
            if version is None:
                self._ensure_model(model)
                self._log_files(run_id, files, ARTIFACT_PATH)
                self._log_files(run_id, plots or {}, PLOTS_PATH)
            source = f"{self.client.get_run(run_id).info.artifact_uri}/{ARTIFACT_PATH}"
            with self.changing(model) as change:
                version = version or self._registered(model, bundle_digest)  # another run may have been faster
                if version is None:
                    description = card or files[bundle.MODEL_CARD].decode()
                    tags = {**tags, "bundle_digest": bundle_digest}
                    version = _version(
                        self.client.create_model_version(model, source, run_id, tags=tags, description=description)
                    )
                change.to(change.standing.aliases.nominated(version), change.standing.rollout)
            return version

    def _registered(self, model: str, bundle_digest: str) -> Version | None:
        return next((known for known in self.versions(model) if known.digest == bundle_digest), None)

    def _log_files(self, run_id: str, files: Mapping[str, bytes], path: str) -> None:
        with tempfile.TemporaryDirectory() as folder:
            for name, content in files.items():
                (Path(folder) / name).write_bytes(content)
            if files:
                self.client.log_artifacts(run_id, folder, path)

    def plot_link(self, run_id: str, name: str) -> str:
        """Where the MLflow server shows a plot of a run."""
        return f"/get-artifact?path={PLOTS_PATH}/{name}&run_uuid={run_id}"

    def versions(self, model: str) -> list[Version]:
        """All registered versions, newest first."""
        with self._translated(model):
            found = self.client.search_model_versions(f"name = '{model}'")
        return sorted(map(_version, found), key=lambda version: int(version.number), reverse=True)

    def find(self, model: str, number: str) -> Version | None:
        """A version by its number; None if there is none."""
        from mlflow.exceptions import MlflowException

        with self._translated(model):
            try:
                return _version(self.client.get_model_version(model, number))
            except MlflowException as error:
                if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                    return None
                raise

    def named(self, model: str, wanted: str = "") -> Version:
        """The version that holds an alias, or has a number; default: the champion.

        Raises:
            RegistryError: if there is no such model, alias or version.
        """
        name = wanted or "champion"
        version: Version | None = getattr(self.aliases(model), name) if name in ALIASES else self.find(model, name)
        if version is None:
            raise RegistryError(model, f"has no {name}", f"ml-platform versions {model} shows what there is")
        return version

    def models(self) -> list[str]:
        """The names of all registered models."""
        with self._translated("registry"):
            return [model.name for model in self._all_models()]

    # --- who answers ------------------------------------------------------------------------------------------------------

    def aliases(self, model: str) -> Aliases:
        """Which version holds which alias; none if the model was never registered."""
        return self.standing(model).aliases

    def standing(self, model: str) -> Standing:
        """Aliases and rollout of a model; empty if it was never registered."""
        with self._translated(model):
            found = list(self.client.search_registered_models(f"name = '{model}'"))
        return self._standing(found[0]) if found else Standing()

    def rollouts(self, unreadable: dict[str, RegistryError] | None = None) -> dict[str, Rollout]:
        """The last rollout of every model that had one; one request, however many there are.

        What the registry has of a model may make no sense: such models go into `unreadable`, or raise where there is none.
        """
        found = self._of_each(lambda model: _record(model).rollout, unreadable)
        return {model: rollout for model, rollout in found.items() if rollout}

    def traffic(self, unreadable: dict[str, RegistryError] | None = None) -> dict[str, Traffic]:
        """Who answers the requests of every model that has a champion; `unreadable` as in `rollouts`.

        A champion that somebody has set by hand is unreadable too, unless that is allowed.
        """

        def of(model: Any) -> Traffic:
            number = _set_by_hand(model)
            if number and not self.by_hand:
                problem = f"somebody moved its alias champion to version {number} past rollouts and gates"
                next_step = f"ml-platform promote {model.name} {number}, or ML_PLATFORM_SERVE_BY_HAND=true"
                raise RegistryError(_subject(model.name), problem, next_step)
            return self._standing(model, ("champion",)).traffic()

        told = self._of_each(of, unreadable)
        return {model: traffic for model, traffic in told.items() if traffic.champion}

    def set_by_hand(self) -> dict[str, str]:
        """Models whose alias champion was moved past rollouts and commands, and to which version."""
        found = self._of_each(_set_by_hand, {})
        return {model: number for model, number in found.items() if number}

    def _of_each(self, read: Callable[[Any], T], unreadable: dict[str, RegistryError] | None) -> dict[str, T]:
        found: dict[str, T] = {}
        with self._translated("registry"):
            for model in self._all_models():
                try:
                    found[model.name] = read(model)
                except RegistryError as error:
                    if unreadable is None or error.subject != _subject(model.name):
                        raise
                    unreadable[model.name] = error
        return found

    @contextmanager
    def changing(self, model: str) -> Iterator[Change]:
        """Look at a model and change it, while nobody else does.

        Raises:
            RegistryError: also if others hold on to it.
        """
        with self._translated(model), lease(self.client, model, self.clock) as held:
            found = list(self.client.search_registered_models(f"name = '{model}'"))
            actual = {alias: str(number) for alias, number in found[0].aliases.items()} if found else {}
            record = _record(found[0]) if found else Record()
            standing = self._standing(found[0]) if found else Standing()
            change = Change(self, model, held, standing, actual, record.vouched)
            change.write(completion(actual, record))  # what a writer that died has left to do
            yield change

    def note(self, version: Version, event: Event) -> None:
        """Keep an event with the version."""
        with self._translated(version.label):
            key = f"{EVENT}{event.at:%Y%m%dT%H%M%S%f}"
            self.client.set_model_version_tag(version.model, version.number, key, event.to_json())

    def log_figures(self, version: Version, figures: Mapping[str, float], day: date) -> None:
        """Figures of a day, as metrics of the run that the version came from; their step is the day as YYYYMMDD."""
        from mlflow.entities import Metric

        moment, step = round(start_of(day).timestamp() * 1_000), int(f"{day:%Y%m%d}")
        metrics = [Metric(f"monitoring_{name}", value, moment, step) for name, value in figures.items()]
        with self._translated(version.label):
            self.client.log_batch(version.run_id, metrics)

    def card(self, version: Version) -> str:
        """What people read about a version."""
        with self._translated(version.label):
            return self.client.get_model_version(version.model, version.number).description or ""

    def tags(self, version: Version) -> dict[str, str]:
        """Lineage and figures of a version."""
        return {name: value for name, value in self._tags(version).items() if not name.startswith(EVENT)}

    def events(self, version: Version) -> list[Event]:
        """What was done to a version, in time order."""
        tags = self._tags(version)
        return [Event.from_json(tags[name]) for name in sorted(tags) if name.startswith(EVENT)]

    def _tags(self, version: Version) -> dict[str, str]:
        with self._translated(version.label):
            return dict(self.client.get_model_version(version.model, version.number).tags)

    def _standing(self, model: Any, wanted: Iterable[str] = ALIASES) -> Standing:
        """What holds, as far as the wanted aliases are concerned; each is a request."""
        record = _record(model)
        numbers_ = held({alias: str(number) for alias, number in model.aliases.items()}, record)
        versions = {alias: self.find(model.name, numbers_[alias]) for alias in wanted if alias in numbers_}
        challenger = None
        if record.rollout and not record.rollout.is_over:
            known = next((v for v in versions.values() if v and v.number == record.rollout.version), None)
            challenger = known or self.find(model.name, record.rollout.version)
        return Standing(Aliases(**versions), record.rollout, challenger)

    # --- bundles ----------------------------------------------------------------------------------------------------------

    def download(self, version: Version) -> dict[str, bytes]:
        """The files of a version's bundle, checked against the digest that it was registered under."""
        from mlflow.artifacts import download_artifacts, list_artifacts

        with self._translated(version.label), tempfile.TemporaryDirectory() as folder:
            listed = list_artifacts(version.source, tracking_uri=self.tracking_uri)
            names = {PurePosixPath(one.path).name: one.file_size or 0 for one in listed}
            bundle.check_files(names, version.label)  # before any of it is on this machine
            path = Path(download_artifacts(version.source, dst_path=folder, tracking_uri=self.tracking_uri))
            files = {file.name: file.read_bytes() for file in sorted(path.iterdir()) if file.is_file()}
        bundle.verify(files, version.digest, version.label)
        return files

    def _all_models(self) -> Iterator[Any]:
        token = None
        while True:
            page = self.client.search_registered_models(page_token=token)
            yield from (model for model in page if LEASE_TAG not in model.tags)
            token = page.token
            if not token:
                return

    def _ensure_model(self, model: str) -> None:
        from mlflow.exceptions import MlflowException

        try:
            self.client.create_registered_model(model)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise

    @contextmanager
    def _translated(self, subject: str) -> Iterator[None]:
        from mlflow.exceptions import MlflowException
        from requests.exceptions import RequestException

        try:
            yield
        except (MlflowException, RequestException) as error:
            raise RegistryError(
                f"{subject}/registry",
                f"MLflow at {self.tracking_uri}: {error}",
                "start it (make dev), or set MLFLOW_TRACKING_URI",
            ) from error


def _record(model: Any) -> Record:
    try:
        return Record.from_json(model.tags.get(RECORD))
    except ValueError as error:
        problem = f"its tag {RECORD} cannot be read: {error}"
        raise RegistryError(_subject(model.name), problem, "delete that tag in MLflow; its aliases hold") from error


def _set_by_hand(model: Any) -> str | None:
    record = _record(model)
    champion = held({alias: str(number) for alias, number in model.aliases.items()}, record).get("champion")
    return None if champion is None or record.vouches_for(champion) else champion


def _subject(model: str) -> str:
    """Of errors about what the registry has of one model, unlike those about the registry."""
    return f"{model}/rollout"


def _version(found: Any) -> Version:
    return Version(
        model=found.name,
        number=str(found.version),
        digest=found.tags.get("bundle_digest", ""),
        training_date=found.tags.get("training_date", ""),
        run_id=found.run_id,
        source=found.source,
        overrides=found.tags.get(OVERRIDES, ""),
    )
