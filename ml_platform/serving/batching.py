"""Rows of requests that wait at the same time are scored in one call.

Nobody waits for a batch to fill. A request that comes to an idle server is scored in the event loop's next turn; those that
arrive while a call runs are the next call's batch. So batches grow with the load, and only then.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor

from ml_platform.core.errors import PlatformError, RequestError
from ml_platform.serving.requests import Checked
from ml_platform.serving.scoring import Scored

BATCH_ROWS = 256
INLINE_SECONDS = 0.005  # what is expected to take longer goes to a thread, so that the event loop goes on

Score = Callable[[Sequence[Checked]], list[Scored | RequestError]]
Outcome = Scored | Exception


class Batcher:
    """The queue before one version. All but `score` happens in the event loop."""

    def __init__(
        self,
        score: Score,
        pool: Executor,
        on_batch: Callable[[int], None] = lambda rows: None,
        inline: bool = True,
        most: int | None = None,
    ) -> None:
        """`on_batch` hears the rows of each call; `inline`: small batches are scored in the event loop itself; `most`: rows that may wait."""
        self.pool = pool
        self.on_batch = on_batch
        self.inline = inline
        self.most = most
        self.rows_waiting = 0
        self._score = score
        self._waiting: list[tuple[Checked, asyncio.Future[Scored]]] = []
        self._running = False
        self._seconds_per_row = 0.0

    @property
    def full(self) -> bool:
        return self.most is not None and self.rows_waiting >= self.most

    async def score(self, rows: Checked) -> Scored:
        """The scores of one request.

        Raises:
            RequestError: if the model has no finite score for its values.
            FeatureError: if features cannot be looked up.
        """
        loop = asyncio.get_running_loop()
        if len(rows) > BATCH_ROWS:  # a batch by itself, which the others need not wait for
            (outcome,) = await loop.run_in_executor(self.pool, self._outcomes, [rows])
            return _result(outcome)
        future: asyncio.Future[Scored] = loop.create_future()
        self._waiting.append((rows, future))
        self.rows_waiting += len(rows)
        if not self._running:
            self._running = True
            loop.call_soon(self._run)
        return await future

    def _run(self) -> None:
        batch = self._next_batch()
        if not batch:
            self._running = False
            return
        rows, futures = zip(*batch, strict=True)
        loop = asyncio.get_running_loop()
        if self.inline and self._seconds_per_row * sum(map(len, rows)) < INLINE_SECONDS:
            _deliver(futures, self._outcomes(rows))
            loop.call_soon(self._run)
            return
        call = loop.run_in_executor(self.pool, self._outcomes, rows)
        call.add_done_callback(lambda done: (_deliver(futures, done.result()), self._run()))

    def _next_batch(self) -> list[tuple[Checked, asyncio.Future[Scored]]]:
        batch: list[tuple[Checked, asyncio.Future[Scored]]] = []
        size = taken = 0
        for rows, future in self._waiting:
            if size + len(rows) > BATCH_ROWS:
                break
            taken += 1
            self.rows_waiting -= len(rows)
            if not future.done():  # otherwise its request was given up
                size += len(rows)
                batch.append((rows, future))
        del self._waiting[:taken]
        return batch

    def _outcomes(self, batch: Sequence[Checked]) -> list[Outcome]:
        """What became of each request; one that makes the call fail, fails alone."""
        began = time.perf_counter()
        try:
            outcomes: list[Outcome] = [*self._score(batch)]
        except PlatformError as error:
            return [error] * len(batch)
        except Exception as error:  # noqa: BLE001  # its requests are told
            return [error] if len(batch) == 1 else [outcome for one in batch for outcome in self._outcomes([one])]
        rows = sum(map(len, batch))
        self.on_batch(rows)
        per_row = (time.perf_counter() - began) / rows
        self._seconds_per_row += 0.1 * (per_row - self._seconds_per_row)
        return outcomes


def _deliver(futures: Sequence[asyncio.Future[Scored]], outcomes: Sequence[Outcome]) -> None:
    for future, outcome in zip(futures, outcomes, strict=True):
        if future.done():
            continue
        if isinstance(outcome, Exception):
            future.set_exception(outcome)
        else:
            future.set_result(outcome)


def _result(outcome: Outcome) -> Scored:
    if isinstance(outcome, Exception):
        raise outcome
    return outcome
