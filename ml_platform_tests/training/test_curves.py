"""The time that is left, and the learning curves."""

import pytest

from ml_platform.training.curves import Pace, learning_curves

PNG = b"\x89PNG"


def test_time_left_is_the_pace_since_the_last_report_times_what_remains() -> None:
    pace = Pace()
    assert pace.seconds_left(100.0, 1, 21) is None
    assert pace.seconds_left(110.0, 11, 21) == 10.0  # a second each; every tenth is reported
    assert pace.seconds_left(112.0, 12, 21) == 18.0
    assert pace.seconds_left(113.0, 21, 21) == 0.0


@pytest.mark.parametrize("epochs", [None, 5])
def test_no_time_is_left_out_of_thin_air(epochs: int | None) -> None:
    pace = Pace()
    assert pace.seconds_left(1.0, 2, epochs) is None
    assert pace.seconds_left(2.0, 2, epochs) is None  # the same epoch again, after a checkpoint
    assert (pace.seconds_left(3.0, 3, epochs) is None) is (epochs is None)


def test_curves_are_drawn_where_there_are_curves() -> None:
    losses = {"train_loss": [(1, 0.5), (2, 0.4)], "validation_loss": [(1, 0.6), (2, 0.5)]}
    several = {f"1_mlp_{name}": points for name, points in losses.items()} | {"2_linear_validation_loss": [(1, 0.7)]}
    for history in (losses, several):
        drawn = learning_curves(history, "m as of 2018-05-31")
        assert drawn is not None
        assert drawn.startswith(PNG)
    assert learning_curves({"validation_loss": [(1, 0.7)]}, "m") is None
    assert learning_curves({"rows_per_second": [(1, 7.0), (2, 7.0)]}, "m") is None
