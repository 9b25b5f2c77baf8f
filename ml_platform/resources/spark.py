# pyright: reportAttributeAccessIssue=false, reportArgumentType=false, reportCallIssue=false
# The stubs of Ibis and PySpark know fewer methods than the libraries have.
"""Spark as the engine of features: for a history that one machine is too small for."""

from collections.abc import Iterator
from datetime import datetime
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.fs as pafs

from ml_platform.core.errors import SettingsError
from ml_platform.core.settings import Settings
from ml_platform.features.engine import Embedded, Engine

if TYPE_CHECKING:
    import ibis.expr.types as ir
    import pyarrow.dataset as pads  # it imports pandas

S3A = "org.apache.hadoop.fs.s3a.S3AFileSystem"


def engine_at(settings: Settings) -> Engine:
    """The engine in the settings: DuckDB in this process, or a Spark cluster."""
    if settings.engine == "duckdb":
        return Embedded(settings.engine_memory)
    return Spark(settings)


class Spark:
    """A session on a cluster, or with local[n] in this machine; the only one of the process.

    Executors read the lake's files themselves: from a folder that they all see, or from S3 where Spark has S3A (the package
    hadoop-aws). Otherwise rows go through this process.
    """

    joins_as_of = False

    def __init__(self, settings: Settings) -> None:
        try:
            import ibis
            from pyspark.sql import SparkSession
        except ImportError as error:
            raise SettingsError("ML_PLATFORM_ENGINE", str(error), "pip install 'ml-platform[spark]'") from error

        builder: Any = SparkSession.builder.master(settings.engine).appName("ml_platform")
        for name, value in _configuration(settings).items():
            builder = builder.config(name, value)
        try:
            self._session = builder.getOrCreate()
        except Exception as error:  # whatever Java and Py4J throw
            problem = f"no Spark session at {settings.engine}: {str(error).splitlines()[0][:300]}"
            raise SettingsError("ML_PLATFORM_ENGINE", problem, "look after Java 17 and the cluster") from error
        self._spark: Any = ibis.pyspark.connect(self._session)
        self._tables = 0

    def table(self, rows: "pads.Dataset | pa.Table") -> "ir.Table":
        from pyspark.sql.pandas.types import from_arrow_schema

        if not isinstance(rows, pa.Table) and (paths := self._paths(rows)):
            frame = self._session.read.schema(from_arrow_schema(rows.schema)).parquet(*paths)
        else:
            frame = self._session.createDataFrame(rows if isinstance(rows, pa.Table) else rows.to_table())
        self._tables += 1
        frame.createOrReplaceTempView(name := f"rows_{self._tables}")
        return self._spark.table(name)

    def microseconds(self, times: "ir.Value") -> "ir.Value":
        import ibis

        return ibis.udf.scalar.builtin(_of_time, name="unix_micros", signature=((times.type(),), "int64"))(times)

    def batches(self, expression: "ir.Table") -> Iterator[pa.RecordBatch]:
        yield from self._spark.to_pyarrow_batches(expression)

    def stop(self) -> None:
        self._session.stop()

    def _paths(self, rows: "pads.Dataset") -> list[str]:
        if isinstance(rows.filesystem, pafs.LocalFileSystem):
            return list(rows.files)
        return [f"s3a://{path}" for path in rows.files] if self._has_s3a() else []

    def _has_s3a(self) -> bool:
        from py4j.protocol import Py4JJavaError

        try:
            self._session._jvm.java.lang.Class.forName(S3A)
        except Py4JJavaError:
            return False
        return True


def _configuration(settings: Settings) -> dict[str, str]:
    """What the session needs beside Spark's own defaults (SPARK_CONF_DIR)."""
    configuration = {
        "spark.sql.session.timeZone": "UTC",
        "spark.log.level": "ERROR",
        "spark.ui.showConsoleProgress": "false",
    }
    if settings.engine.startswith("local"):  # nothing else has to reach the driver
        configuration |= {"spark.driver.bindAddress": "127.0.0.1", "spark.driver.host": "127.0.0.1"}
        configuration |= {"spark.ui.enabled": "false", "spark.sql.shuffle.partitions": "4"}
    if settings.engine_memory:
        configuration["spark.driver.memory" if settings.engine.startswith("local") else "spark.executor.memory"] = (
            settings.engine_memory.lower().removesuffix("b")
        )
    if settings.s3_endpoint_url:
        configuration |= {
            "spark.hadoop.fs.s3a.endpoint": settings.s3_endpoint_url,
            "spark.hadoop.fs.s3a.path.style.access": "true",
        }
    if credentials := settings.s3_credentials:
        names = ("spark.hadoop.fs.s3a.access.key", "spark.hadoop.fs.s3a.secret.key")
        configuration |= dict(zip(names, credentials, strict=True))
    return configuration


def _of_time(time: datetime) -> int: ...  # type: ignore[empty-body]  # Spark's own
