"""What the server counts, for Prometheus at `/metrics`."""

from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from ml_platform.resources.prediction_log import LogState
from ml_platform.serving.models import ServedModels

SECONDS = (0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10)
ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 1_024, 10_000)


class Metrics:
    """One server's figures. `arm` is empty where no model answered, and "both" where both did."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "ml_platform_requests",
            "Prediction requests by who answered",
            ("model", "version", "arm", "status"),
            registry=self.registry,
        )
        self.seconds = Histogram(
            "ml_platform_request_seconds",
            "Time from a prediction request to its answer",
            ("model", "arm"),
            buckets=SECONDS,
            registry=self.registry,
        )
        self._failed = Counter(
            "ml_platform_failed_rows",
            "Rows that a version could not score, though they were right",
            ("model", "version", "arm"),
            registry=self.registry,
        )
        self._shadow_skipped = Counter(
            "ml_platform_shadow_skipped_rows",
            "Rows that a shadow did not score because it could not keep up",
            ("model",),
            registry=self.registry,
        )
        self._batches = Histogram(
            "ml_platform_batch_rows",
            "Rows that one call of a model scores",
            ("model",),
            buckets=ROWS,
            registry=self.registry,
        )

        self._sent_away = Counter(
            "ml_platform_refused_connections",
            "Connections that were ended, or made room, for what they cost",
            ("reason",),
            registry=self.registry,
        )

    def failed(self, model: str, version: str, arm: str, rows: int) -> None:
        self._failed.labels(model, version, arm).inc(rows)

    def shadow_skipped(self, model: str, rows: int) -> None:
        self._shadow_skipped.labels(model).inc(rows)

    def batch(self, model: str, rows: int) -> None:
        self._batches.labels(model).observe(rows)

    def sent_away(self, reason: str) -> None:
        self._sent_away.labels(reason).inc()

    def watch(self, models: ServedModels, log: Callable[[], LogState], held: Callable[[], int]) -> None:
        """Show what is served, how the prediction log does, and the bytes of large bodies."""
        self.registry.register(_State(models, log, held))

    def text(self) -> bytes:
        return generate_latest(self.registry)


class _State:
    """What is so at the moment of asking."""

    def __init__(self, models: ServedModels, log: Callable[[], LogState], held: Callable[[], int]) -> None:
        self.models = models
        self.log = log
        self.held = held

    def collect(self) -> Iterator[Metric]:
        served = list(self.models.served.values())
        loaded = GaugeMetricFamily(
            "ml_platform_model_loaded", "Versions that answer", labels=("model", "version", "arm", "digest")
        )
        share = GaugeMetricFamily(
            "ml_platform_challenger_share", "Share of the entities that the challenger answers", labels=("model",)
        )
        waiting = GaugeMetricFamily("ml_platform_waiting_rows", "Rows that wait to be scored", labels=("model", "arm"))
        for one in served:
            arms = [("champion", one.champion, one.champion.batcher)]
            if one.challenger:
                shadow = one.traffic.shadow
                queue = one.challenger.shadow if shadow else one.challenger.batcher
                arms.append(("shadow" if shadow else "challenger", one.challenger, queue))
                share.add_metric([one.champion.version.model], 0.0 if shadow else one.traffic.share)
            for arm, by, queue in arms:
                loaded.add_metric([by.version.model, by.version.number, arm, by.version.digest], 1)
                waiting.add_metric([by.version.model, arm], queue.rows_waiting)
        refused = GaugeMetricFamily(
            "ml_platform_model_refused", "Versions that should answer and cannot", labels=("model", "version")
        )
        for version in list(self.models.refused):
            refused.add_metric([version.model, version.number], 1)
        log = self.log()
        lost = CounterMetricFamily("ml_platform_prediction_log_lost_rows", "Rows that the prediction log gave up")
        lost.add_metric([], log.lost)
        unwritten = GaugeMetricFamily("ml_platform_prediction_log_waiting_rows", "Rows of the log in memory")
        unwritten.add_metric([], log.waiting)
        spooled = GaugeMetricFamily(
            "ml_platform_prediction_log_spooled_bytes", "What of the log the lake has not taken yet"
        )
        spooled.add_metric([], log.spooled)
        kept = GaugeMetricFamily(
            "ml_platform_model_kept",
            "Models served as before, since the registry has no sense or version",
            labels=("model",),
        )
        for model in list(self.models.kept):
            kept.add_metric([model], 1)
        answered = GaugeMetricFamily(
            "ml_platform_registry_answered_timestamp_seconds", "When the registry last answered; 0 if it has not yet"
        )
        answered.add_metric([], self.models.looked_at or 0.0)
        held = GaugeMetricFamily("ml_platform_large_bodies_bytes", "Large bodies that are being received or answered")
        held.add_metric([], self.held())
        yield from (held, loaded, share, waiting, refused, kept, answered, lost, unwritten, spooled)
