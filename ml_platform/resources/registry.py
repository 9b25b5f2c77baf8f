"""The model registry on MLflow: versions are bundles, identified by their digest; aliases say what they are for."""

import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ml_platform.core.errors import RegistryError
from ml_platform.core.settings import Settings
from ml_platform.registry import bundle
from ml_platform.registry.versions import Aliases, Version

ARTIFACT_PATH = "bundle"


class Registry:
    def __init__(self, tracking_uri: str) -> None:
        # MLflow's own defaults keep a caller waiting for minutes when the server is down.
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
        os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
        from mlflow import MlflowClient

        self.tracking_uri = tracking_uri
        self.client = MlflowClient(tracking_uri, tracking_uri)

    @classmethod
    def at(cls, settings: Settings) -> "Registry":
        return cls(settings.mlflow_url)

    def register(self, model: str, files: Mapping[str, bytes], run_id: str, tags: Mapping[str, str]) -> Version:
        """Register a bundle as a version of the model; the same bundle again is the same version."""
        bundle_digest = bundle.digest_of(files)
        with self._translated(model):
            for known in self.versions(model):
                if known.digest == bundle_digest:
                    return known
            self._ensure_model(model)
            with tempfile.TemporaryDirectory() as folder:
                for name, content in files.items():
                    (Path(folder) / name).write_bytes(content)
                self.client.log_artifacts(run_id, folder, ARTIFACT_PATH)
            artifacts = self.client.get_run(run_id).info.artifact_uri
            created = self.client.create_model_version(
                model,
                f"{artifacts}/{ARTIFACT_PATH}",
                run_id,
                tags={**tags, "bundle_digest": bundle_digest},
                description=files[bundle.MODEL_CARD].decode(),
            )
            return _version(created)

    def versions(self, model: str) -> list[Version]:
        """All registered versions, newest first."""
        with self._translated(model):
            found = self.client.search_model_versions(f"name = '{model}'")
        return sorted(map(_version, found), key=lambda version: int(version.number), reverse=True)

    def models(self) -> list[str]:
        """The names of all registered models."""
        with self._translated("registry"):
            return [model.name for model in self._all_models()]

    def aliases(self, model: str) -> Aliases:
        """Which version holds which alias; none if the model was never registered."""
        with self._translated(model):
            held = next((m.aliases for m in self.client.search_registered_models(f"name = '{model}'")), {})
            return Aliases(
                **{
                    alias: _version(self.client.get_model_version(model, str(held[alias])))
                    for alias in ("champion", "previous")
                    if alias in held
                }
            )

    def set_aliases(self, model: str, aliases: Aliases) -> None:
        """Make the registry say this. `previous` moves first: dying in between leaves one champion, never two."""
        with self._translated(model):
            for alias, version in (("previous", aliases.previous), ("champion", aliases.champion)):
                if version is not None:
                    self.client.set_registered_model_alias(model, alias, version.number)
                else:
                    self.client.delete_registered_model_alias(model, alias)

    def champions(self) -> dict[str, Version]:
        """The champion of every model that has one."""
        with self._translated("registry"):
            return {
                m.name: _version(self.client.get_model_version(m.name, str(m.aliases["champion"])))
                for m in self._all_models()
                if "champion" in m.aliases
            }

    def download(self, version: Version) -> dict[str, bytes]:
        """The files of a version's bundle, checked against the digest that it was registered under."""
        from mlflow.artifacts import download_artifacts

        with self._translated(version.label), tempfile.TemporaryDirectory() as folder:
            path = Path(download_artifacts(version.source, dst_path=folder, tracking_uri=self.tracking_uri))
            files = {file.name: file.read_bytes() for file in sorted(path.iterdir())}
        bundle.verify(files, version.digest, version.label)
        return files

    def _all_models(self) -> Iterator[Any]:
        token = None
        while True:
            page = self.client.search_registered_models(page_token=token)
            yield from page
            token = page.token
            if not token:
                return

    def _ensure_model(self, model: str) -> None:
        if not self.client.search_registered_models(f"name = '{model}'"):
            self.client.create_registered_model(model)

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


def _version(found: Any) -> Version:
    return Version(
        model=found.name,
        number=str(found.version),
        digest=found.tags.get("bundle_digest", ""),
        training_date=found.tags.get("training_date", ""),
        run_id=found.run_id,
        source=found.source,
    )
