"""The dead man's switch: what the exporter tells when nobody else could, since Dagster's daemon itself is dead."""

from collections.abc import Iterator, Mapping

from ml_platform.monitoring.alerts import Alert

SILENT = 180.0  # seconds since a daemon's last sign; they give one every 30
PATIENCE = 120.0  # seconds that a webserver may be away, as while it is started again
WEBSERVER = "dagster/webserver"
WATCHED = "alert_sensor"  # which tells of all other sensors
FAILED_TICKS = 3  # in a row; one or two pass by themselves


def heart(heartbeats: Mapping[str, float | None] | None, why: str, now: float, url: str) -> Iterator[Alert]:
    """Alerts about daemons. `heartbeats` are their last signs, epoch seconds; None if Dagster does not answer, and `why`."""
    if heartbeats is None:
        yield Alert(
            "daemon_dead",
            WEBSERVER,
            f"Dagster does not answer: {why}",
            cause="no answer",
            limit=f"{PATIENCE:g} s",
            link=url,
            next_step="make dev, or kubectl get pods",
            patience=PATIENCE,
        )
        return
    for daemon, last in heartbeats.items():
        if last is None or now - last > SILENT:
            since = "never gave a sign" if last is None else f"last gave a sign {(now - last) / 60:.0f} minutes ago"
            yield Alert(
                "daemon_dead",
                f"daemon/{daemon.lower()}",
                f"the daemon {since}; nothing is started by itself",
                cause="no heartbeat",
                value=since,
                limit=f"{SILENT:g} s",
                link=f"{url}/deployment/daemons",
                next_step="start dagster-daemon again (make dev, or kubectl rollout restart deployment/dagster-daemon)",
                patience=PATIENCE if last is None else 0.0,
            )


def watched(running: bool, failures: int, error: str, url: str) -> Iterator[Alert]:
    """Alerts about the sensor that tells of everything else."""
    if not running or failures >= FAILED_TICKS:
        yield Alert(
            "sensor_dead",
            f"sensor/{WATCHED}",
            f"its last {failures} ticks failed: {error[:600]}" if running else "somebody has stopped it",
            cause="failing" if running else "stopped",
            limit=f"{FAILED_TICKS} failed ticks",
            link=f"{url}/automation",
            next_step="see its ticks in Dagster's UI",
        )
