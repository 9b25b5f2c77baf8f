"""Rows that are shown as cold starts: which, how many, and what they then say."""

from collections.abc import Sequence

import numpy as np
import pytest

from ml_platform.core.spec import FeatureViewSpec
from ml_platform.training.cold_start import Rows, with_cold_starts

COUNT = 20_000
IDENTITY = ["order", "at"]


def view(name: str, entity: str, **features: object) -> FeatureViewSpec:
    inputs = {"orders": {"window_days": 1}}
    content = {"name": name, "entity": entity, "function": "a.b", "inputs": inputs, "features": features}
    return FeatureViewSpec.model_validate({**content, "is_known": True})


USERS = view("users", "user", age={"default": -3.5}, visits={"type": "int64", "default": 7})
HABITS = view("habits", "user", pace={"default": 0.25})
SHOPS = view("shops", "shop", size={"default": 40})
VIEWS = [USERS, HABITS, SHOPS]


def some(count: int = COUNT) -> dict[str, np.ndarray]:
    random = np.random.default_rng(5)
    names = [name for one in VIEWS for name in one.features]
    return {
        "order": np.arange(count),
        "at": np.datetime64("2024-01-01", "us") + np.arange(count) * np.timedelta64(1, "s"),
        "amount": random.uniform(1, 9, count),
        "visits": random.integers(100, 200, count),
        **{name: random.uniform(100, 200, count) for name in names if name != "visits"},
    }


def shown(rows: Rows, share: float = 0.2, seed: int = 7, views: Sequence[FeatureViewSpec] = VIEWS) -> Rows:
    return with_cold_starts(rows, views, IDENTITY, share, seed)[0]


def forgotten(rows: Rows, one: FeatureViewSpec) -> np.ndarray:
    """Where a view's features are all exactly its defaults; nowhere is one of them alone."""
    of_each = [rows[name] == feature.default for name, feature in one.features.items()]
    assert all((of_each[0] == other).all() for other in of_each)
    return of_each[0]


def test_drawn_rows_have_exactly_the_declared_defaults_and_all_else_is_as_it_was() -> None:
    rows = some()
    before = {name: values.copy() for name, values in rows.items()}
    made, counts = with_cold_starts(rows, VIEWS, IDENTITY, 0.2, 7)
    assert all((rows[name] == before[name]).all() for name in rows)
    assert list(made) == list(rows)
    user, shop = forgotten(made, USERS), forgotten(made, SHOPS)
    assert (forgotten(made, HABITS) == user).all()  # one entity is known to all of its views, or to none
    assert counts == {"user": user.sum(), "shop": shop.sum()}
    for name, values in made.items():
        assert values.dtype == rows[name].dtype
        known = ~(user if name in {*USERS.features, *HABITS.features} else shop if name in SHOPS.features else False)
        assert (values == rows[name])[np.broadcast_to(known, COUNT)].all()


def test_a_share_of_rows_is_drawn_a_third_without_each_entity_and_a_third_without_both() -> None:
    made = shown(some())
    user, shop = forgotten(made, USERS), forgotten(made, SHOPS)
    assert (user | shop).mean() == pytest.approx(0.2, abs=0.01)
    thirds = [(user & ~shop).mean(), (shop & ~user).mean(), (user & shop).mean()]
    assert thirds == pytest.approx([0.2 / 3] * 3, abs=0.007)


def test_a_row_is_drawn_by_seed_and_identity_whatever_rows_are_around_it() -> None:
    rows = some()
    drawn = forgotten(shown(rows), USERS)
    order = np.random.default_rng(1).permutation(COUNT)[:5_000]
    part = {name: values[order] for name, values in rows.items()}
    assert (forgotten(shown(part), USERS) == drawn[order]).all()
    assert (forgotten(shown(rows, views=[SHOPS, HABITS, USERS]), USERS) == drawn).all()
    narrow = {**rows, "order": rows["order"].astype(np.int32), "at": rows["at"].astype("datetime64[ns]")}
    assert (forgotten(shown(narrow), USERS) == drawn).all()
    more = forgotten(shown(rows, share=0.3), USERS)
    assert more.sum() > drawn.sum()
    assert (more | ~drawn).all()  # who was drawn is drawn still
    assert (forgotten(shown(rows, seed=8), USERS) != drawn).any()
    another_day = {**rows, "at": rows["at"] + np.timedelta64(1, "D")}  # keys may begin anew every day
    assert (forgotten(shown(another_day), USERS) != drawn).any()


@pytest.mark.parametrize("key", [np.array([f"o-{n}" for n in range(COUNT)], object), np.arange(COUNT) / 8])
def test_keys_of_any_type_tell_rows_apart(key: np.ndarray) -> None:
    drawn = forgotten(shown({**some(), "order": key, "at": np.full(COUNT, np.datetime64("2024-01-01", "us"))}), USERS)
    assert drawn.mean() == pytest.approx(0.2 * 2 / 3, abs=0.01)


def test_draws_are_the_same_on_every_machine() -> None:
    """A registered model is made again from its manifest: these rows are a part of what it was made from."""
    drawn = np.flatnonzero(forgotten(shown(some(200), share=0.1), USERS))
    assert drawn.tolist() == [0, 37, 40, 48, 74, 121, 153, 187, 197]


def test_nothing_is_drawn_of_no_share_and_of_views_that_nobody_is_looked_up_in() -> None:
    rolling = FeatureViewSpec.model_validate(
        {**USERS.model_dump(exclude={"is_known"}), "kind": "rolling", "rows": "orders"}
    )
    rows = some(100)
    assert with_cold_starts(rows, VIEWS, IDENTITY, 0.0, 7) == (rows, {})
    assert with_cold_starts(rows, [rolling], IDENTITY, 0.5, 7) == (rows, {})
