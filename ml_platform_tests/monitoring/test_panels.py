"""Rules and dashboard are made from one list, are up to date, and ask for what is exported; Prometheus' own tool judges the rules."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from ml_platform.monitoring.panels import PANELS, dashboard, rules
from ml_platform.serving.metrics import Metrics

ROOT = Path(__file__).parents[2]
EXPORTER = (ROOT / "ml_platform" / "local" / "exporter.py").read_text()


def test_files_are_what_the_list_makes() -> None:
    for name, made in (("rules.yaml", rules()), ("dashboard.json", dashboard())):
        command = f"python -m ml_platform.local.exporter {name.split('.')[0]} > k8s/monitoring/{name}"
        assert (ROOT / "k8s" / "monitoring" / name).read_text() == made, f"make it again: {command}"


def test_every_metric_that_is_asked_for_is_exported() -> None:
    served = Metrics().text().decode()
    for panel in PANELS:
        for expr in (*panel.exprs, *(rule.expr for rule in panel.rules)):
            names = re.findall(r"\bml_platform_\w+", expr)
            assert names
            for name in names:
                base = name.removesuffix("_bucket").removesuffix("_total")
                assert f'"{base}"' in EXPORTER or f"# TYPE {base}" in served, name


def test_panels_of_the_dashboard_do_not_overlap() -> None:
    panels = json.loads(dashboard())["panels"]
    assert len({(one["gridPos"]["x"], one["gridPos"]["y"]) for one in panels}) == len(panels) == len(PANELS)
    assert len({one["id"] for one in panels}) == len(panels)


CASES = [
    # series, values, minutes, the rule, and whether it fires
    ('ml_platform_daemon_heartbeat_timestamp_seconds{daemon="SENSOR"}', "0x20", 10, "MlPlatformDaemonDead", True),
    ('ml_platform_daemon_heartbeat_timestamp_seconds{daemon="SENSOR"}', "0+60x20", 10, "MlPlatformDaemonDead", False),
    ("ml_platform_exporter_looked_timestamp_seconds", "0+60x20", 15, "MlPlatformExporterDead", False),
    ("nothing_of_ours", "0x20", 15, "MlPlatformExporterDead", True),
    ('ml_platform_table_late_seconds{table="transactions/raw"}', "100x20", 9, "MlPlatformDataLate", False),
    ('ml_platform_table_late_seconds{table="transactions/raw"}', "100x20", 12, "MlPlatformDataLate", True),
    ('ml_platform_table_late_seconds{table="transactions/raw"}', "0x20", 12, "MlPlatformDataLate", False),
    ('ml_platform_sensor_failed_ticks{sensor="a"}', "3x20", 10, "MlPlatformSensorFails", True),
    ('ml_platform_sensor_failed_ticks{sensor="a"}', "2x20", 10, "MlPlatformSensorFails", False),
    ('ml_platform_sensor_tick_timestamp_seconds{sensor="a"}', "0x40", 25, "MlPlatformSensorSilent", True),
    ('ml_platform_runs_total{about="x",status="FAILURE"}', "0+1x60", 30, "MlPlatformRunsFail", True),
    ('ml_platform_runs_total{about="x",status="SUCCESS"}', "0+1x60", 30, "MlPlatformRunsFail", False),
    ('ml_platform_runs_under_way{status="queued"}', "51x60", 40, "MlPlatformQueueGrows", True),
    ('ml_platform_channel_failures{channel="ops"}', "3x20", 10, "MlPlatformChannelBroken", True),
    ('ml_platform_exporter_up{part="lake"}', "0x20", 15, "MlPlatformPartAway", True),
    ('ml_platform_exporter_up{part="lake"}', "1x20", 15, "MlPlatformPartAway", False),
]


@pytest.mark.processes
@pytest.mark.parametrize(("series", "values", "minutes", "name", "fires"), CASES)
def test_rule_fires_when_it_should(
    tmp_path: Path, series: str, values: str, minutes: int, name: str, fires: bool
) -> None:
    if shutil.which("promtool") is None:
        pytest.skip("no promtool on this machine (apt-get install prometheus)")
    (tmp_path / "rules.yaml").write_text(rules())
    (rule,) = [rule for panel in PANELS for rule in panel.rules if rule.name == name]
    # What an alert says is compared as a whole, so that the rule is asked for its own series.
    count = f'count(ALERTS{{alertname="{name}", alertstate="firing"}}) or vector(0)'
    asked = {"expr": count, "eval_time": f"{minutes}m", "exp_samples": [{"labels": "{}", "value": int(fires)}]}
    test = {"interval": "1m", "input_series": [{"series": series, "values": values}], "promql_expr_test": [asked]}
    whole = {"rule_files": ["rules.yaml"], "evaluation_interval": "1m", "tests": [test]}
    (tmp_path / "test.yaml").write_text(yaml.safe_dump(whole))
    done = subprocess.run(
        ["promtool", "test", "rules", str(tmp_path / "test.yaml")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{rule.expr}\n{done.stdout}{done.stderr}"


def test_every_rule_has_a_case() -> None:
    assert {rule.name for panel in PANELS for rule in panel.rules} == {name for *_, name, fires in CASES if fires}
