# pyright: reportAttributeAccessIssue=false, reportArgumentType=false, reportOperatorIssue=false
# The stubs of Ibis and PyArrow know fewer methods than the libraries have.
"""Which label is that of which row. A key says so only as far as it is promised to be unique."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ml_platform.core.spec import SourceSpec
from ml_platform.features.engine import Engine, read

if TYPE_CHECKING:
    import ibis.expr.types as ir

LABEL = "label"
_DAY = "__day"


@dataclass(frozen=True)
class Match:
    """How rows and labels are matched over a number of days."""

    rows: SourceSpec
    labels: SourceSpec
    days: int

    @property
    def by_key_alone(self) -> bool:
        """Else the day has to be the same too: another day may have another row of that key."""
        return self.labels.corrections == "latest" or min(self.rows.horizon, self.labels.horizon) >= self.days

    @property
    def words(self) -> str:
        key = ", ".join(self.labels.key)
        return key if self.by_key_alone else f"{key} and day, since keys are unique within {self._horizon} only"

    @property
    def _horizon(self) -> str:
        days = min(self.rows.horizon, self.labels.horizon)
        return f"{days} day{'s' if days > 1 else ''}"

    def left(self, rows: "ir.Table") -> "ir.Table":
        return rows if self.by_key_alone else rows.mutate(**{_DAY: rows[self.rows.event_time].date()})

    def right(self, labels: "ir.Table", column: str) -> "ir.Table":
        """The labels that are known, one for each row: of several days the latest, where the source says so."""
        import ibis

        if self.labels.corrections == "latest":
            newest = ibis.window(group_by=list(self.labels.key), order_by=ibis.desc(labels[self.labels.event_time]))
            labels = labels.mutate(__place=ibis.row_number().over(newest)).filter(ibis._["__place"] == 0)
        labels = labels.filter(labels[column].notnull())
        day = {} if self.by_key_alone else {_DAY: labels[self.labels.event_time].date()}
        return labels.select(*self.labels.key, **day, **{LABEL: labels[column]})

    @property
    def on(self) -> list[str]:
        return [*self.labels.key, *([] if self.by_key_alone else [_DAY])]


@dataclass(frozen=True)
class Counted:
    """How many rows have a label and how many have none; each counted by itself."""

    labelled: int
    unlabelled: int


def labelled(rows: "ir.Table", labels: "ir.Table", column: str, match: Match) -> "ir.Table":
    """The rows that have a label, with it as `label`."""
    return match.left(rows).inner_join(match.right(labels, column), match.on).select(*rows.columns, LABEL)


def count(rows: "ir.Table", labels: "ir.Table", column: str, match: Match, engine: Engine) -> Counted:
    """By semi-join and anti-join: neither can count a row twice."""
    left, right = match.left(rows), match.right(labels, column)
    counts = [
        read(engine, kept.aggregate(rows=kept.count()))["rows"][0].as_py()
        for kept in (left.semi_join(right, match.on), left.anti_join(right, match.on))
    ]
    return Counted(*counts)
