from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from ml_platform.registry.versions import Version
from ml_platform.rollout.traffic import Traffic, position

CHAMPION = Version("fraud", "1", "a", "2026-01-01", "", "")
RAMP = Traffic(CHAMPION, replace(CHAMPION, number="2"), share=0.1, salt="2")


def test_a_share_of_the_entities_goes_to_the_challenger() -> None:
    taken = sum(RAMP.arm(str(entity)) == "challenger" for entity in range(20_000))
    assert abs(taken / 20_000 - 0.1) < 0.01


@given(st.text(), st.floats(0, 1), st.floats(0, 1))
def test_who_was_with_the_challenger_stays_as_the_share_grows(entity: str, one: float, other: float) -> None:
    small, large = (replace(RAMP, share=share) for share in sorted((one, other)))
    assert small.arm(entity) == "champion" or large.arm(entity) == "challenger"


def test_a_shadow_answers_nobody_and_a_full_share_everybody() -> None:
    entities = [str(entity) for entity in range(1_000)]
    assert {replace(RAMP, share=1.0, shadow=True).arm(entity) for entity in entities} == {"champion"}
    assert {replace(RAMP, share=1.0).arm(entity) for entity in entities} == {"challenger"}


def test_another_salt_takes_other_entities() -> None:
    assert position("17", "2") != position("17", "3")
