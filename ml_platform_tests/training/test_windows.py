from datetime import date, timedelta

from hypothesis import given
from hypothesis import strategies as st

from ml_platform.core.spec import TrainingSpec
from ml_platform.training.windows import windows

DATE = date(2018, 5, 31)


def test_windows_of_the_built_in_model() -> None:
    used = windows(TrainingSpec(), 7, DATE)
    assert used.train == (date(2018, 4, 12), date(2018, 5, 9))
    assert used.validation == (date(2018, 5, 17), date(2018, 5, 23))


@given(st.integers(1, 60), st.integers(1, 30), st.integers(0, 20), st.none() | st.integers(0, 20))
def test_windows_have_their_length_their_gap_and_only_known_labels(
    window: int, validation: int, delay: int, embargo: int | None
) -> None:
    """Whatever the spec says, no day's label is still unknown and training ends an embargo before validation."""
    spec = TrainingSpec(window_days=window, validation_days=validation, embargo_days=embargo)
    used = windows(spec, delay, DATE)
    assert used.validation[1] + timedelta(days=delay) < DATE
    assert (used.validation[0] - used.train[1]).days - 1 == (delay if embargo is None else embargo)
    assert len(used.days) == window + validation
