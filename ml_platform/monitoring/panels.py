"""What people watch: one list, from which Prometheus' alert rules and Grafana's dashboard are made."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import yaml

ROW = 3  # panels beside each other
WIDTH, HEIGHT = 24 // ROW, 8


@dataclass(frozen=True)
class Rule:
    """An alert of Prometheus: `expr` holds for `lasts`."""

    name: str
    expr: str
    lasts: str
    severity: str
    summary: str


@dataclass(frozen=True)
class Panel:
    """One graph; `legend` names a line by its labels, `unit` is Grafana's."""

    title: str
    exprs: tuple[str, ...]
    legend: str = ""
    unit: str = "short"
    rules: tuple[Rule, ...] = ()


def _quantile(share: float, name: str, by: str) -> str:
    return f"histogram_quantile({share}, sum by (le{', ' + by if by else ''}) (rate({name}_bucket[1h])))"


PANELS: tuple[Panel, ...] = (
    Panel(
        "Runs an hour",
        ("sum by (status) (increase(ml_platform_runs_total[1h]))",),
        "{{status}}",
        rules=(
            Rule(
                "MlPlatformRunsFail",
                'sum by (about) (increase(ml_platform_runs_total{status="FAILURE"}[1h])) > 5',
                "0m",
                "warning",
                "{{ $value | humanize }} runs of {{ $labels.about }} failed within an hour. Next: ml-platform status",
            ),
        ),
    ),
    Panel(
        "Runs that wait and run",
        ("ml_platform_runs_under_way",),
        "{{status}}",
        rules=(
            Rule(
                "MlPlatformQueueGrows",
                'ml_platform_runs_under_way{status="queued"} > 50',
                "30m",
                "warning",
                "{{ $value | humanize }} runs have waited for half an hour. Next: raise max_concurrent_runs, or cancel some",
            ),
        ),
    ),
    Panel("Duration of runs, 95 %", (_quantile(0.95, "ml_platform_run_seconds", "about"),), "{{about}}", "s"),
    Panel("Wait in the queue, 95 %", (_quantile(0.95, "ml_platform_run_queue_seconds", ""),), "queue", "s"),
    Panel("Spent a day", ("sum by (step) (increase(ml_platform_spend_total[1d]))",), "{{step}}"),
    Panel("Duration of steps, 95 %", (_quantile(0.95, "ml_platform_step_seconds", "step"),), "{{step}}", "s"),
    Panel(
        "Retries an hour",
        (
            "sum by (about) (increase(ml_platform_run_retries_total[1h]))",
            "sum by (step) (increase(ml_platform_step_retries_total[1h]))",
        ),
        "{{about}}{{step}}",
    ),
    Panel(
        "Age of the daemon's last sign",
        ("time() - ml_platform_daemon_heartbeat_timestamp_seconds",),
        "{{daemon}}",
        "s",
        (
            Rule(
                "MlPlatformDaemonDead",
                "time() - ml_platform_daemon_heartbeat_timestamp_seconds > 180",
                "2m",
                "critical",
                "daemon {{ $labels.daemon }} gives no sign, and nothing is started by itself. Next: start dagster-daemon again",
            ),
            Rule(
                "MlPlatformExporterDead",
                "absent(ml_platform_exporter_looked_timestamp_seconds) or time() - ml_platform_exporter_looked_timestamp_seconds > 300",
                "5m",
                "critical",
                "the exporter does not look any more, so that nobody would tell of a dead daemon. Next: start it again",
            ),
        ),
    ),
    Panel(
        "Age of sensors' last ticks",
        ("time() - ml_platform_sensor_tick_timestamp_seconds",),
        "{{sensor}}",
        "s",
        (
            Rule(
                "MlPlatformSensorSilent",
                "time() - ml_platform_sensor_tick_timestamp_seconds > 900",
                "5m",
                "critical",
                "{{ $labels.sensor }} has not ticked for {{ $value | humanizeDuration }}. Next: see the daemon's log",
            ),
            Rule(
                "MlPlatformSensorFails",
                "ml_platform_sensor_failed_ticks >= 3",
                "5m",
                "critical",
                "{{ $labels.sensor }} fails again and again. Next: see its ticks in Dagster's UI",
            ),
        ),
    ),
    Panel(
        "What is late",
        ("ml_platform_table_late_seconds > 0",),
        "{{table}}",
        "s",
        (
            Rule(
                "MlPlatformDataLate",
                "ml_platform_table_late_seconds > 0",
                "10m",
                "critical",
                "the newest due day of {{ $labels.table }} is late by {{ $value | humanizeDuration }}. Next: ml-platform alerts list",
            ),
        ),
    ),
    Panel("Gates that say no", ("ml_platform_gate_passed == 0",), "{{model}} {{gate}}"),
    Panel("Age of champions", ("ml_platform_model_age_seconds",), "{{model}}", "s"),
    Panel("Rollouts under way", ("ml_platform_rollout_step > 0",), "{{model}}"),
    Panel(
        "Open alerts, and channels that fail",
        ("ml_platform_alerts_open", "ml_platform_channel_failures"),
        "{{kind}}{{channel}}",
        rules=(
            Rule(
                "MlPlatformChannelBroken",
                "ml_platform_channel_failures > 2",
                "5m",
                "critical",
                "channel {{ $labels.channel }} takes no messages. Next: ml-platform alerts test --channel {{ $labels.channel }}",
            ),
        ),
    ),
    Panel(
        "Parts that the exporter sees",
        ("ml_platform_exporter_up",),
        "{{part}}",
        rules=(
            Rule(
                "MlPlatformPartAway",
                "ml_platform_exporter_up == 0",
                "10m",
                "warning",
                "{{ $labels.part }} could not be looked at for ten minutes. Next: see the exporter's log",
            ),
        ),
    ),
    Panel(
        "Requests a second",
        ("sum by (model, arm, status) (rate(ml_platform_requests_total[5m]))",),
        "{{model}} {{arm}} {{status}}",
        "reqps",
    ),
    Panel(
        "Time to an answer, 99 %",
        (_quantile(0.99, "ml_platform_request_seconds", "model, arm").replace("[1h]", "[5m]"),),
        "{{model}} {{arm}}",
        "s",
    ),
)


def rules(panels: Sequence[Panel] = PANELS) -> str:
    """Prometheus' rule file."""
    made = [
        {
            "alert": rule.name,
            "expr": rule.expr,
            "for": rule.lasts,
            "labels": {"severity": rule.severity},
            "annotations": {"summary": rule.summary},
        }
        for panel in panels
        for rule in panel.rules
    ]
    head = "# Made by: python -m ml_platform.local.exporter rules\n"
    return head + yaml.safe_dump({"groups": [{"name": "ml_platform", "rules": made}]}, sort_keys=False, width=120)


def dashboard(panels: Sequence[Panel] = PANELS) -> str:
    """Grafana's dashboard, to be imported; it asks for the Prometheus to read from."""
    source = {"type": "prometheus", "uid": "${source}"}
    made: list[dict[str, Any]] = []
    for place, panel in enumerate(panels):
        at = {"x": place % ROW * WIDTH, "y": place // ROW * HEIGHT, "w": WIDTH, "h": HEIGHT}
        targets = [
            {"refId": chr(65 + n), "expr": expr, "legendFormat": panel.legend, "datasource": source}
            for n, expr in enumerate(panel.exprs)
        ]
        defaults = {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []}
        one = {"id": place + 1, "type": "timeseries", "title": panel.title, "gridPos": at, "datasource": source}
        made.append({**one, "fieldConfig": defaults, "targets": targets})
    variable = {"name": "source", "label": "Prometheus", "type": "datasource", "query": "prometheus"}
    whole = {
        "title": "ml_platform",
        "uid": "ml-platform",
        "schemaVersion": 39,
        "tags": ["ml_platform"],
        "time": {"from": "now-24h", "to": "now"},
        "refresh": "1m",
        "templating": {"list": [variable]},
        "panels": made,
    }
    return json.dumps(whole, indent=1) + "\n"
