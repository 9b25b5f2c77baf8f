"""Requests that wait together are scored together, and fail alone."""

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from ml_platform.core.errors import FeatureError, RequestError
from ml_platform.serving.batching import BATCH_ROWS, Batcher
from ml_platform.serving.requests import Checked
from ml_platform.serving.scoring import Scored


def rows(*values: float) -> Checked:
    return Checked([{}] * len(values), {}, [[value] for value in values], {})


class Doubling:
    """A model that doubles, cannot take a 13, and finds a 7 too large."""

    def __init__(self) -> None:
        self.calls: list[int] = []

    def __call__(self, batch: Sequence[Checked]) -> list[Scored | RequestError]:
        self.calls.append(sum(map(len, batch)))
        values = [[of_row[0] for of_row in one.features or []] for one in batch]
        if any(13 in of_one for of_one in values):
            raise ZeroDivisionError("13")
        if any(99 in of_one for of_one in values):
            raise FeatureError("store", "is away", "wait")
        return [
            RequestError("row 0", "too large", "send less")
            if 7 in of_one
            else Scored([2 * v for v in of_one], {}, np.empty(0))
            for of_one in values
        ]


def scored(model: Doubling, requests: Sequence[Checked], inline: bool = True) -> list[Scored | BaseException]:
    async def all_at_once() -> list[Scored | BaseException]:
        with ThreadPoolExecutor(1) as pool:
            batcher = Batcher(model, pool, inline=inline)
            answers = await asyncio.gather(*map(batcher.score, requests), return_exceptions=True)
            assert batcher.rows_waiting == 0
            return answers

    return asyncio.run(all_at_once())


@pytest.mark.parametrize("inline", [True, False])
def test_requests_that_come_together_are_one_call_and_each_gets_its_own_scores(inline: bool) -> None:
    model = Doubling()
    answers = scored(model, [rows(1), rows(2, 3), rows(4)], inline)
    assert [one.scores for one in answers if isinstance(one, Scored)] == [[2], [4, 6], [8]]
    assert model.calls == [4]


def test_batches_are_bounded_and_nobody_is_forgotten() -> None:
    model = Doubling()
    answers = scored(model, [rows(*[1.0] * 100) for _ in range(9)])
    assert [one.scores for one in answers if isinstance(one, Scored)] == [[2.0] * 100] * 9
    assert sum(model.calls) == 900
    assert max(model.calls) <= BATCH_ROWS


def test_large_request_is_a_call_of_its_own() -> None:
    model = Doubling()
    scored(model, [rows(1), rows(*[2.0] * (BATCH_ROWS + 1)), rows(3)])
    assert sorted(model.calls) == [2, BATCH_ROWS + 1]


def test_request_that_makes_the_call_fail_fails_alone() -> None:
    first, bad, large, last = scored(Doubling(), [rows(1), rows(13), rows(7), rows(2)])
    assert isinstance(bad, ZeroDivisionError)
    assert isinstance(large, RequestError)
    assert isinstance(first, Scored)
    assert isinstance(last, Scored)
    assert (first.scores, last.scores) == ([2], [4])


def test_store_that_is_away_is_asked_once_for_a_batch() -> None:
    model = Doubling()
    answers = scored(model, [rows(1), rows(99), rows(2)])
    assert all(isinstance(one, FeatureError) for one in answers)
    assert len(model.calls) == 1


def test_request_that_was_given_up_is_not_scored() -> None:
    model = Doubling()

    async def give_up() -> None:
        with ThreadPoolExecutor(1) as pool:
            batcher = Batcher(model, pool)
            given_up, other = (asyncio.create_task(batcher.score(rows(value))) for value in (1, 2))
            await asyncio.sleep(0)
            given_up.cancel()
            assert (await other).scores == [4]

    asyncio.run(give_up())
    assert model.calls == [1]
