"""From the rows of a request to its answer: who answers which row, and what is written down about it."""

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Protocol

from ml_platform.core.errors import RequestError
from ml_platform.resources.prediction_rows import Prediction
from ml_platform.rollout.traffic import Arm
from ml_platform.serving.batching import BATCH_ROWS
from ml_platform.serving.models import Served, Serving
from ml_platform.serving.requests import Checked
from ml_platform.serving.scoring import Scored

LOG = logging.getLogger("ml_platform.serving")


class Log(Protocol):
    """Where answers are written down."""

    def add(self, model: str, predictions: Sequence[Prediction]) -> None: ...


class Counts(Protocol):
    """Where is counted what no answer shows."""

    def failed(self, model: str, version: str, arm: str, rows: int) -> None: ...
    def shadow_skipped(self, model: str, rows: int) -> None: ...
    def batch(self, model: str, rows: int) -> None: ...


@dataclass(frozen=True)
class Asked:
    """The rows of one request. `by_id` is None where the rows themselves show it; `arm` is who shall answer, if anyone."""

    rows: Sequence[Mapping[str, Any]]
    by_id: bool | None
    request_id: str
    arm: Arm | None = None
    began: float = field(default_factory=time.perf_counter)

    def entity(self, serving: Serving, position: int) -> str:
        """By what a row's share of the traffic is decided: its first id, or the request where it has none."""
        ids = serving.champion.checker.ids
        value = self.rows[position].get(ids[0]) if ids else None
        return self.request_id if value is None else str(value)


@dataclass
class Answer:
    """Scores in the order of the rows, who gave each, and where features were looked up the views that knew its entity."""

    scores: list[Any]
    by: list[Served]
    arms: list[Arm]
    known: list[Sequence[str]]
    as_of: dict[str, datetime]

    def put(self, positions: Sequence[int], by: Served, arm: Arm, scored: Scored) -> None:
        for position, score in zip(positions, scored.scores, strict=True):
            self.scores[position], self.by[position], self.arms[position] = score, by, arm
        for position, known in zip(positions, scored.known, strict=False):  # there are none where nothing was looked up
            self.known[position] = known
        self.as_of |= scored.as_of


class Desk:
    """Answers requests. What it needs beside them: where to write down what it answered, and how often it did."""

    def __init__(self, log: Log, counts: Counts) -> None:
        self.log = log
        self.counts = counts
        self._shadows: set[asyncio.Task[None]] = set()

    async def answer(self, serving: Serving, asked: Asked) -> Answer:
        """Every row by the arm that its entity belongs to.

        Raises:
            RequestError: if a row is not what the model needs.
            FeatureError: if features cannot be looked up.
        """
        size = len(asked.rows)
        answer = Answer([None] * size, [serving.champion] * size, ["champion"] * size, [()] * size, {})
        for arm, positions in self._arms(serving, asked).items():
            rows = asked.rows if len(positions) == size else [asked.rows[position] for position in positions]
            if arm == "champion":
                await self._by_champion(serving, asked, positions, rows, answer)
            else:
                await self._by_challenger(serving, asked, positions, rows, answer)
        if serving.challenger and serving.traffic.shadow and asked.arm is None:
            self._shadow(serving, serving.challenger, asked)
        return answer

    @staticmethod
    def _arms(serving: Serving, asked: Asked) -> dict[Arm, Sequence[int]]:
        everyone = range(len(asked.rows))
        if asked.arm == "challenger" and serving.challenger is None:
            raise RequestError("parameter 'arm'", "there is no challenger", "see GET /models/<model>")
        if asked.arm is not None or serving.challenger is None or serving.traffic.shadow:
            return {asked.arm or "champion": everyone}
        arms: dict[Arm, list[int]] = {}
        for position in everyone:
            arms.setdefault(serving.traffic.arm(asked.entity(serving, position)), []).append(position)
        return {**arms}

    async def _by_champion(
        self,
        serving: Serving,
        asked: Asked,
        positions: Sequence[int],
        rows: Sequence[Mapping[str, Any]],
        answer: Answer,
    ) -> None:
        try:
            checked = await _checked(serving.champion, asked, rows)
            scored = await serving.champion.batcher.score(checked)
        except RequestError:
            raise  # the client's doing, and no observation about the model
        except Exception as error:
            self._note_failure(serving, serving.champion, "champion", asked, positions, error)
            raise
        answer.put(positions, serving.champion, "champion", scored)
        await self._note(serving, serving.champion, "champion", asked, positions, checked, scored)

    async def _by_challenger(
        self,
        serving: Serving,
        asked: Asked,
        positions: Sequence[int],
        rows: Sequence[Mapping[str, Any]],
        answer: Answer,
    ) -> None:
        """A challenger that cannot answer is noted, and the champion answers: an experiment costs no client an answer."""
        assert serving.challenger is not None
        try:
            checked = await _checked(serving.challenger, asked, rows)
            scored = await serving.challenger.batcher.score(checked)
        except Exception as error:
            if asked.arm is not None:
                raise
            await self._by_champion(serving, asked, positions, rows, answer)  # which raises if it is the client's doing
            LOG.warning("%s failed, the champion answered: %s", serving.challenger.version.label, error)
            self._note_failure(serving, serving.challenger, "challenger", asked, positions, error)
            return
        answer.put(positions, serving.challenger, "challenger", scored)
        await self._note(serving, serving.challenger, "challenger", asked, positions, checked, scored)

    def _shadow(self, serving: Serving, challenger: Served, asked: Asked) -> None:
        """Score the rows once more, after the answer and beside the event loop."""
        if challenger.shadow.full:
            self.counts.shadow_skipped(challenger.version.model, len(asked.rows))
            return
        task = asyncio.create_task(self._score_shadow(serving, challenger, asked))
        self._shadows.add(task)
        task.add_done_callback(self._shadows.discard)

    async def _score_shadow(self, serving: Serving, challenger: Served, asked: Asked) -> None:
        everyone = range(len(asked.rows))
        again = Asked(asked.rows, asked.by_id, asked.request_id)  # its latency is its own
        try:
            checked = await _checked(challenger, again, asked.rows)
            scored = await challenger.shadow.score(checked)
        except Exception as error:  # noqa: BLE001  # what a shadow fails at is what it is watched for
            self._note_failure(serving, challenger, "shadow", again, everyone, error)
            return
        await self._note(serving, challenger, "shadow", again, everyone, checked, scored)

    async def finish(self) -> None:
        """Wait for the shadows of requests that are answered."""
        await asyncio.gather(*self._shadows, return_exceptions=True)

    async def _note(
        self,
        serving: Serving,
        by: Served,
        arm: Arm,
        asked: Asked,
        positions: Sequence[int],
        checked: Checked,
        scored: Scored,
    ) -> None:
        if asked.arm is not None:
            return  # a test of one arm is no traffic
        latency = (time.perf_counter() - asked.began) * 1_000
        now = datetime.now(UTC)

        def write() -> None:
            several = bool(scored.scores) and isinstance(scored.scores[0], list)
            names, given = by.checker.features, {**checked.request, **checked.identity}
            known = scored.known or [()] * len(positions)
            self.log.add(
                by.version.model,
                [
                    Prediction(
                        asked.request_id,
                        now,
                        by.version.number,
                        arm,
                        asked.entity(serving, position),
                        latency,
                        None if several else score,
                        score if several else None,
                        inputs={name: column[row] for name, column in given.items()},
                        features=values,
                        names=names,
                        as_of=scored.as_of,
                        known=by_views,
                    )
                    for row, (position, score, values, by_views) in enumerate(
                        zip(positions, scored.scores, scored.features, known, strict=True)
                    )
                ],
            )

        if len(positions) > BATCH_ROWS:
            await asyncio.to_thread(write)
        else:
            write()

    def _note_failure(
        self, serving: Serving, by: Served, arm: Arm, asked: Asked, positions: Sequence[int], error: Exception
    ) -> None:
        if asked.arm is not None:
            return
        self.counts.failed(by.version.model, by.version.number, arm, len(positions))
        latency, now = (time.perf_counter() - asked.began) * 1_000, datetime.now(UTC)
        rows = [
            Prediction(
                asked.request_id,
                now,
                by.version.number,
                arm,
                asked.entity(serving, position),
                latency,
                error=f"{type(error).__name__}: {error}"[:500],
            )
            for position in positions
        ]
        self.log.add(by.version.model, rows)


async def _checked(by: Served, asked: Asked, rows: Sequence[Mapping[str, Any]]) -> Checked:
    by_id = by.checker.looks_up(rows) if asked.by_id is None else asked.by_id
    check = by.checker.entities if by_id else by.checker.rows
    return await asyncio.to_thread(check, rows) if len(rows) > BATCH_ROWS else check(rows)
