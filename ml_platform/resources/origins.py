"""Origins by source: the landing bucket, a database, or a class of the user's own."""

from ml_platform.core.imports import load_object
from ml_platform.core.settings import Settings
from ml_platform.core.spec import PluginOrigin, SourceSpec, SqlOrigin
from ml_platform.data.landing import Origin
from ml_platform.resources.object_store import ObjectStore


class Origins:
    """Each origin is opened when it is first asked for, and kept."""

    def __init__(self, landing: ObjectStore) -> None:
        self.landing = landing
        self._opened: dict[str, Origin] = {}

    @classmethod
    def at(cls, settings: Settings) -> "Origins":
        """For callers outside Dagster; inside, dagster-aws makes the client of the landing bucket."""
        return cls(ObjectStore.at(settings))

    def of(self, source: SourceSpec) -> Origin:
        if source.name not in self._opened:
            self._opened[source.name] = self._open(source)
        return self._opened[source.name]

    def _open(self, source: SourceSpec) -> Origin:
        match source.origin:
            case SqlOrigin() as origin:
                from ml_platform.resources.sql_origin import SqlRows

                return SqlRows.at(source, origin)
            case PluginOrigin(type=path, options=options):
                return load_object(path, f"{source.name}: origin.type")(options)
            case _:
                return self.landing
