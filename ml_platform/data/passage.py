# pyright: reportAttributeAccessIssue=false, reportArgumentType=false
# The stubs of PyArrow know fewer methods than the library has.
"""One passage of a day's rows through the checks: each row is staged, or set aside with what it broke."""

from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

import numpy as np
import pyarrow as pa

from ml_platform.data.contract import Offence, broken_rules, fit
from ml_platform.data.findings import SAMPLE_ROWS, Rules, Tally
from ml_platform.data.opened import BATCH_ROWS, Malformed, Opened
from ml_platform.data.staging import Stage
from ml_platform.data.values import converted

ROW_CHECKS = (
    "values_fit_their_types",
    "required_values_are_present",
    "values_are_allowed",
    "event_times_are_in_partition",
)
HOPELESS_ROWS = 100_000  # so many rows that stop the day are enough to know
Reason = tuple[str, str]  # the check that a row broke, and what is written down of it
Leaving = Mapping[int, Sequence[Reason]]  # by position of the row


def aside_schema(columns: Sequence[str]) -> pa.Schema:
    """Rows in quarantine: where they came from, what they broke, and their values as text.

    `_row` counts from 0 within the object; it is null for a line that is no row, whose `_text` is kept instead.
    """
    origin = [("_object", pa.string()), ("_row", pa.int64()), ("_reasons", pa.string()), ("_text", pa.string())]
    return pa.schema([*origin, *((name, pa.string()) for name in columns)])


class Passage:
    """Rows on their way. Those of small files are judged together.

    Attributes:
        rows, written, quarantined, discarded: how many there were so far, by file. `rows` are counted where the file is
            read, by another way than by the rows that come out; the others where a row goes.
        tallies: what was found so far, by check.
    """

    def __init__(
        self,
        rules: Rules,
        day: date,
        keys: Sequence[str],
        adopted: pa.Schema,
        staged: Stage,
        aside: Stage,
        drop: Mapping[str, np.ndarray],
    ) -> None:
        """`drop` names rows to set aside besides, by check, as sorted positions among those that stay."""
        self.rules, self.source, self.day = rules, rules.source, day
        self.keys, self.adopted = pa.array(keys, pa.string()), adopted
        self.staged, self.aside, self.drop = staged, aside, drop
        self.rows, self.written, self.quarantined, self.discarded = (np.zeros(len(keys), np.int64) for _ in range(4))
        self._numbered = np.zeros(len(keys), np.int64)  # rows that have come, by file
        self.tallies = {check: Tally() for check in ROW_CHECKS}
        self._waiting: list[pa.Table] = []
        self._waiting_rows = 0
        self._position = 0

    @property
    def is_hopeless(self) -> bool:
        """Whether so many rows stop the day that there is no point in reading on."""
        return any(t.offending > HOPELESS_ROWS and self.rules.treatment(c) == "stop" for c, t in self.tallies.items())

    def take(self, number: int, opened: Opened) -> None:
        """Bring one file's rows to their types, and pass them on.

        Raises:
            UnreadableError: if the file turns out to be unreadable. Rows that were read from it have passed by then.
        """
        columns = [name for name in opened.schema.names if name in self.source.columns or name in self.adopted.names]
        for batch in opened.batches(columns):
            first, count = int(self._numbered[number]), batch.rows.num_rows
            self.rows[number] += batch.records
            self._numbered[number] += count
            origin = (pa.array(np.full(count, number), pa.int32()), pa.array(np.arange(first, first + count)))
            if batch.malformed:
                self._set_aside_lines(number, batch.malformed)
            if not count:
                continue
            typed, offences = fit(self.source, batch.rows, self.adopted, batch.json_kinds)
            typed = _with_origin(typed, *origin)
            if offences:
                raw = _with_origin(batch.rows, *origin)
                typed = self._part(typed, raw, self._count(offences, raw))
            self._waiting.append(typed)
            self._waiting_rows += typed.num_rows
            if self._waiting_rows >= BATCH_ROWS:
                self.flush()
            if self.is_hopeless:
                return

    def flush(self) -> None:
        """Judge the rows that wait, and stage those that stay."""
        if not self._waiting_rows:
            return
        rows = pa.concat_tables(self._waiting).combine_chunks()
        self._waiting, self._waiting_rows = [], 0
        if offences := list(broken_rules(self.source, self.day, rows)):
            rows = self._part(rows, rows, self._count(offences, rows))
        dropped = self._dropped(rows.num_rows)
        self._position += rows.num_rows
        rows = self._part(rows, rows, dropped)
        self.written += np.bincount(rows["_object"].to_numpy(), minlength=len(self.keys))
        self.staged.write(rows)

    def _dropped(self, count: int) -> Leaving:
        """Those of the next `count` rows that are to be dropped."""
        leaving: dict[int, list[Reason]] = {}
        for check, positions in self.drop.items():
            first, last = np.searchsorted(positions, [self._position, self._position + count])
            for position in positions[first:last] - self._position:
                leaving.setdefault(int(position), []).append((check, check))
        return leaving

    def _count(self, offences: Sequence[Offence], rows: pa.Table) -> Leaving:
        """Count what was found; returns the rows that have to leave."""
        leaving: dict[int, list[Reason]] = {}
        counted: dict[str, set[int]] = {}
        for offence in offences:
            tally, before = self.tallies[offence.check], counted.setdefault(offence.check, set())
            news = [row for row in offence.rows.tolist() if row not in before]
            before.update(news)
            sample = rows.take(pa.array(news[: SAMPLE_ROWS - len(tally.sample)], pa.int64()))
            words = f"{offence.rule}: {offence.shown}" if offence.shown else offence.rule
            tally.add(len(news), words, _as_objects(self._named(sample)))
            if self.rules.leaves(offence.check):
                reason = (offence.check, f"{offence.check}: {offence.rule}")
                for row in offence.rows.tolist():
                    leaving.setdefault(row, []).append(reason)
        return leaving

    def _part(self, rows: pa.Table, raw: pa.Table, leaving: Leaving) -> pa.Table:
        """The rows that stay; those that leave are set aside as `raw` has them."""
        if not leaving:
            return rows
        kept, discarded = [], []
        for position, reasons in sorted(leaving.items()):  # discarded if somebody decided so about all of the reasons
            is_discarded = all(self.rules.treatment(check) == "discard" for check, _ in reasons)
            (discarded if is_discarded else kept).append(position)
        of_file = raw["_object"].to_numpy()
        self.quarantined += np.bincount(of_file[kept], minlength=len(self.keys))
        self.discarded += np.bincount(of_file[discarded], minlength=len(self.keys))
        out = self._named(raw.take(pa.array(kept, pa.int64())))
        self._set_aside(
            {
                **{name: _as_text(out[name]) for name in out.column_names if not name.startswith("_")},
                "_object": out["_object"],
                "_row": out["_row"],
                "_reasons": ["; ".join(text for _, text in leaving[position]) for position in kept],
            }
        )
        stays = np.ones(rows.num_rows, bool)
        stays[[*leaving]] = False
        return rows.filter(pa.array(stays))

    def _set_aside_lines(self, number: int, lines: Sequence[Malformed]) -> None:
        """Set aside lines that are no rows at all."""
        origin = {"_object": [self.keys[number].as_py()] * len(lines), "_text": [line.text for line in lines]}
        sample = [{"_object": origin["_object"][0], "_text": text} for text in origin["_text"][:SAMPLE_ROWS]]
        self.tallies["values_fit_their_types"].add(len(lines), f"a line {lines[0].problem}", sample)
        if self.rules.treatment("values_fit_their_types") == "discard":
            self.discarded[number] += len(lines)
            return
        self.quarantined[number] += len(lines)
        self._set_aside({**origin, "_reasons": [f"values_fit_their_types: a line {line.problem}" for line in lines]})

    def _set_aside(self, columns: Mapping[str, Any]) -> None:
        schema = aside_schema([*self.source.columns, *self.adopted.names])
        count = len(columns["_object"])
        arrays = [columns[f.name] if f.name in columns else pa.nulls(count, f.type) for f in schema]
        self.aside.write(pa.table(arrays, names=schema.names).cast(schema))

    def _named(self, rows: pa.Table) -> pa.Table:
        """Rows with their object's key in place of its number."""
        names = self.keys.take(rows["_object"].combine_chunks())
        return rows.set_column(rows.schema.get_field_index("_object"), "_object", names)


def _as_objects(rows: pa.Table) -> list[dict[str, Any]]:
    try:
        return rows.to_pylist()
    except (OverflowError, ValueError):  # times that Python has none for
        return pa.table([_as_text(column) for column in rows.columns], names=rows.column_names).to_pylist()


def _as_text(column: pa.ChunkedArray) -> pa.ChunkedArray:
    try:
        if pa.types.is_timestamp(column.type) and converted(column.combine_chunks(), "timestamp").refused:
            column = column.cast(pa.int64())  # Arrow would write some other year, or cut nothing off
        return column.cast(pa.string())
    except (pa.ArrowNotImplementedError, pa.ArrowInvalid):  # lists, structs, bytes
        return pa.chunked_array([[None if value is None else str(value) for value in column.to_pylist()]], pa.string())


def _with_origin(rows: pa.Table, objects: pa.Array, numbers: pa.Array) -> pa.Table:
    return rows.append_column("_object", objects).append_column("_row", numbers)
