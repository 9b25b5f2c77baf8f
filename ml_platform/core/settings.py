"""Addresses: where the outside is. Each has an embedded default, so that a laptop needs no environment at all.

Read from `ML_PLATFORM_*` (and `MLFLOW_TRACKING_URI`, the name that MLflow itself reads). S3 credentials come from where
the AWS SDK looks for them; only the embedded S3 server has credentials of its own.
"""

from datetime import date
from pathlib import Path
from typing import Literal

from pydantic import ByteSize, Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from ml_platform.core.errors import SettingsError
from ml_platform.core.project import root_of

EMBEDDED_S3_CREDENTIALS = ("ml-platform", "ml-platform-embedded")


class Settings(BaseSettings):
    model_config = SettingsConfigDict(env_prefix="ML_PLATFORM_", frozen=True, populate_by_name=True)

    project: str = Field(
        default="",
        description="the project, as an importable package or a folder with its pyproject.toml; default: the one that the "
        "present folder lies in, or the example that comes with the platform",
    )
    strict: bool = Field(
        default=True,
        description="whether one file with a mistake stops everything; else it stands as it last was without one, or is left "
        "out, and the rest goes on (so in `make dev`)",
    )
    home: Path = Field(
        default_factory=lambda: (root_of(Path.cwd()) or Path.cwd()) / ".ml_platform",
        description="folder that holds all that the embedded parts store; default: .ml_platform in the project's folder",
    )
    s3_port: int = Field(default=9100, description="port of the embedded S3 server")
    mlflow_port: int = Field(default=5000, description="port of the embedded MLflow server")
    dagster_port: int = Field(default=3000, description="port of the Dagster UI")
    exporter_port: int = Field(default=9101, description="port of the exporter's /metrics")
    exporter_host: str = Field(default="127.0.0.1", description="address that the exporter binds: 0.0.0.0 for all")
    model_server_port: int = Field(default=8000, description="port of the embedded model server")

    landing: str = Field(default="s3://landing", description="where producers put files: s3://bucket[/prefix]")
    lake: str = Field(
        default="", description="where tables live: a folder or s3://bucket[/prefix]; default <home>/lake"
    )
    s3_endpoint: str | None = Field(
        default=None, description="S3 endpoint; default the embedded server; empty: AWS itself"
    )
    tracking_uri: str = Field(
        default="", validation_alias="MLFLOW_TRACKING_URI", description="MLflow; default the embedded server"
    )
    online_store: str = Field(
        default="",
        description="where features are looked up: sqlite:///path, or Feast's store at feast+sqlite:///path or "
        "redis[s]://[user:password@]host[:port][/db]; default sqlite:///<home>/online_store.db",
    )
    feast_registry: str = Field(
        default="",
        description="Feast's registry: a path, s3://bucket/key or an SQLAlchemy URL; default <home>/feast/registry.db",
    )
    model_server: str = Field(default="", description="URL of the model server; default the embedded one")
    model_server_host: str = Field(
        default="127.0.0.1", description="address that the model server binds: 0.0.0.0 for all interfaces"
    )
    api_key: SecretStr | None = Field(
        default=None, min_length=1, description="key that the model server asks for; default none"
    )
    serve_by_hand: bool = Field(
        default=False,
        description="whether a champion answers whose alias somebody has moved in the registry past rollouts and gates",
    )
    model_server_connections: int = Field(
        default=1_000, ge=10, description="connections that the model server has open at a time"
    )
    model_server_body: ByteSize = Field(
        default=ByteSize(32 << 20), gt=0, description="largest body of a request, such as 32MiB"
    )
    model_server_bodies: ByteSize = Field(
        default=ByteSize(64 << 20), gt=0, description="of all large bodies together that are being received or answered"
    )
    model_server_string: int = Field(default=4_096, ge=1, description="characters of a string in a request")
    prediction_log_spool: ByteSize = Field(
        default=ByteSize(2 << 30),
        gt=0,
        description="disk space for answers that the lake has not taken yet; beyond it the oldest are given up",
    )
    dagster: str = Field(default="", description="URL of the Dagster webserver; default the embedded one")
    kafka: str = Field(default="", description="Kafka's brokers, for models with a topic: host:port[,host:port]")
    kafka_options: SecretStr | None = Field(
        default=None, description="more settings of librdkafka for it, as YAML: {security.protocol: SASL_SSL, ...}"
    )
    executor: Literal["multiprocess", "in_process", "k8s"] = Field(
        default="multiprocess", description="how a run executes its steps"
    )
    cluster: str = Field(
        default="",
        description="fields of the Cluster component that are different here, as YAML: {profiles: {gpu-training: {cpu: 500m}}}",
    )
    engine: str = Field(
        default="duckdb",
        pattern=r"^(duckdb|local(\[.+\])?|spark://.+|k8s://.+|yarn)$",
        description="what computes features: duckdb, in the step itself, or the master of a Spark cluster (spark://host:7077, "
        "k8s://..., yarn, local[2])",
    )
    engine_memory: str | None = Field(
        default=None,
        pattern=r"^[1-9][0-9]*(MB|GB)$",
        description="memory that it may use, such as 4GB; beyond it DuckDB works on disk. Default: most of the machine's",
    )
    image: str = Field(default="", description="digest of the image that this runs in, for training manifests")
    first_day: date | None = Field(default=None, description="first day of every source, instead of its start_date")

    @field_validator("home")
    @classmethod
    def _absolute(cls, home: Path) -> Path:
        return home.resolve()

    @property
    def lake_url(self) -> str:
        return self.lake or str(self.home / "lake")

    @property
    def s3_endpoint_url(self) -> str | None:
        """None means AWS itself."""
        return f"http://127.0.0.1:{self.s3_port}" if self.s3_endpoint is None else self.s3_endpoint or None

    @property
    def s3_credentials(self) -> tuple[str, str] | None:
        """Key and secret of the embedded S3 server; None where the AWS SDK's own chain is to be asked."""
        return EMBEDDED_S3_CREDENTIALS if self.s3_endpoint is None else None

    @property
    def mlflow_url(self) -> str:
        return self.tracking_uri or f"http://127.0.0.1:{self.mlflow_port}"

    @property
    def online_store_url(self) -> str:
        return self.online_store or f"sqlite:///{self.home / 'online_store.db'}"

    @property
    def feast_registry_url(self) -> str:
        return self.feast_registry or str(self.home / "feast" / "registry.db")

    @property
    def model_server_url(self) -> str:
        return (self.model_server or f"http://127.0.0.1:{self.model_server_port}").rstrip("/")

    @property
    def dagster_url(self) -> str:
        return (self.dagster or f"http://127.0.0.1:{self.dagster_port}").rstrip("/")


def load_settings() -> Settings:
    """Settings from the environment.

    Raises:
        SettingsError: naming the variable, if one has an impossible value.
    """
    try:
        return Settings()
    except ValidationError as error:
        first = error.errors()[0]
        variable = f"ML_PLATFORM_{str(first['loc'][0]).upper()}"
        raise SettingsError(variable, f"{first['msg']} (it is {first['input']!r})", f"export {variable}=...") from error
