"""The verdict on a candidate, as it is stored: its report, judged by the gates as they are now."""

from datetime import date

from ml_platform.core import keys
from ml_platform.core.spec import ModelSpec
from ml_platform.evaluation.gates import GateResult, judge
from ml_platform.evaluation.report import Report
from ml_platform.resources.lake import Lake

REPORT = "report.json"


def verdict(spec: ModelSpec, day: date, lake: Lake) -> tuple[Report, tuple[GateResult, ...]]:
    """The report of a training date, judged by the gates as they are now."""
    report = Report.from_json(lake.read_files(keys.evaluation(spec.name), day)[REPORT])
    return report, judge(spec.gates, report)
