"""A search as Dagster runs it: steps known only at run time, tries, what is reused, and the winner trained."""

import json
from collections.abc import Iterator
from typing import Any

import dagster as dg
import numpy as np
import pyarrow as pa
import pytest
from mlflow.tracking import MlflowClient

from ml_platform.components.automation import model_assets
from ml_platform.core import keys
from ml_platform.core.settings import Settings
from ml_platform.registry import bundle
from ml_platform.resources.lake import Lake
from ml_platform.resources.trials import outcomes
from ml_platform.training.overrides import OVERRIDES, overridden
from ml_platform.training.training_set import LABEL, SPLIT
from ml_platform.training.windows import search_windows
from ml_platform_tests.components.searching import (
    DAY,
    FITS,
    MODEL,
    MOODY,
    World,
    failures,
    metadata,
    model,
    training_rows,
)
from ml_platform_tests.conftest import NO_LOGS

pytestmark = pytest.mark.usefixtures("mlflow_url")

ALPHAS = [0.001, 0.01, 0.1, 1, 10, 100]


@pytest.fixture
def world(environment: Settings) -> Iterator[World]:
    with dg.instance_for_test(overrides=NO_LOGS) as instance:
        yield World(environment.home, Lake.at(environment), instance)


def linear(*rounds: int) -> dict[str, Any]:
    return {"trainer": "linear", "search": {"alpha": ALPHAS, "max_iter": list(rounds)}}


def moody(search: dict[str, Any], **params: Any) -> dict[str, Any]:
    return {"trainer": MOODY, "params": params, "search": search}


def manifest(world: World) -> dict[str, Any]:
    return json.loads(world.lake.read_files(keys.candidate(MODEL), DAY)[bundle.MANIFEST])


def test_grid_of_18_runs_in_processes_and_its_winner_is_trained_on_the_whole_window(world: World) -> None:
    world.hold(model(linear(50, 100, 200)))
    with world.run_in_processes() as result:
        assert result.success, failures(result)
        report = metadata(result)
    assert (report["complete"], report["failed"], report["reused"]) == (18, 0, 0)
    assert manifest(world)["params"] == json.loads(report["best_params"])
    steps = {event.step_key for event in result.all_events if event.is_step_success}
    assert len([step for step in steps if "__trial[" in str(step)]) == 18


def test_grid_of_36_within_one_process(world: World) -> None:
    world.hold(model(linear(5, 10, 20, 50, 100, 200)))
    result = world.run("trials")
    assert result.success, failures(result)
    report = metadata(result)
    assert (report["complete"], report["method"]) == (36, "grid")
    scores = [one.metrics["average_precision"] for one in outcomes(world.lake, MODEL, DAY)[1].records]
    assert report["best_average_precision"] == max(scores)
    assert report["trials"].count("| c1_") == 36
    assert "data:image/png;base64" in report["values"]


def test_trials_know_nothing_of_the_validation_rows(world: World) -> None:
    """With other labels in the validation rows, every trial has the same figures to the last bit."""
    spec = model(linear(50, 100))
    rows = training_rows(spec)
    is_validation, labels = np.array(rows[SPLIT]) == "validation", np.array(rows[LABEL])
    wrong = pa.array(np.where(is_validation, 1 - labels, labels))
    spoilt = rows.set_column(rows.column_names.index(LABEL), LABEL, wrong)
    figures = []
    for held in (rows, spoilt):
        world.hold(spec, rows=held)
        assert metadata(world.run("trials"))["reused"] == 0
        figures.append([one.metrics for one in outcomes(world.lake, MODEL, DAY)[1].records])
    assert figures[0] == figures[1]


def test_trial_that_fails_at_first_is_tried_again_alone(world: World) -> None:
    world.hold(model(moody({"skill": [0.1, 0.9], "fails": ["", "busy"]}, times=1)))
    result = world.run("trials")
    assert result.success, failures(result)
    assert metadata(result)["complete"] == 4
    assert world.fits == 6  # two of them twice
    assert len([event for event in result.all_events if event.is_step_up_for_retry]) == 2


def test_failed_trials_up_to_a_share_leave_the_run_green(world: World) -> None:
    candidate = moody({"skill": [0.1, 0.5, 0.9], "fails": ["", "no luck"], "max_failed_share": 0.5})
    world.hold(model(candidate))
    result = world.run()
    assert result.success, failures(result)
    assert (metadata(result)["complete"], metadata(result)["failed"]) == (3, 3)
    assert "RuntimeError: no luck" in metadata(result)["trials"]
    assert manifest(world)["params"]["skill"] == 0.9


def test_trial_that_is_out_of_time_has_failed_and_is_not_tried_again(world: World) -> None:
    world.hold(model(moody({"slow": [0, 1], "max_failed_share": 0.5}), resources={"timeout": "1s"}))
    result = world.run("trials")
    assert result.success, failures(result)
    records = outcomes(world.lake, MODEL, DAY)[1].records
    assert [one.status for one in records] == ["complete", "failed"]
    assert "it took longer than 1s (resources.timeout)" in records[1].error
    assert not [event for event in result.all_events if event.is_step_up_for_retry]


def test_mistake_in_a_trial_is_not_tried_again(world: World) -> None:
    world.hold(model({"trainer": "linear", "search": {"alpha": [1.0, 2.0, 3.0, -1.0]}}))
    result = world.run("trials")
    assert result.success, failures(result)
    assert metadata(result)["failed"] == 1
    assert not [event for event in result.all_events if event.is_step_up_for_retry]


def test_too_many_failed_trials_name_their_errors_and_the_next_run_reuses_the_others(world: World) -> None:
    world.hold(model(moody({"skill": [0.1, 0.9], "fails": ["", "no luck"]}, times=3)))
    failed = world.run()
    assert not failed.success
    assert "2 of 4 trials failed (at most 25%)" in failures(failed)
    assert "no luck" in failures(failed)
    fits = world.fits
    again = world.run()  # each has failed three times by now
    assert again.success, failures(again)
    assert metadata(again)["reused"] == 2
    assert world.fits == fits + 2 + 1  # the failed ones, and the winner


def test_search_is_reused_while_everything_that_counts_is_the_same(world: World) -> None:
    spec = model(moody({"skill": {"range": [0.1, 0.9]}, "trials": 4}))
    world.hold(spec)
    assert world.run("trials").success
    longer = model(moody({"skill": {"range": [0.1, 0.9]}, "trials": 6, "max_failed_share": 0.5}))
    world.hold(longer)
    report = metadata(world.run("trials"))
    assert (report["complete"], report["reused"], world.fits) == (6, 4, 6)
    world.hold(longer, seed=4)  # other rows
    assert metadata(world.run("trials"))["reused"] == 0
    world.hold(model(moody({"skill": {"range": [0.1, 0.8]}, "trials": 6})), seed=4)
    assert metadata(world.run("trials"))["reused"] == 0


def test_search_and_training_go_by_what_the_run_of_the_training_set_changed(world: World) -> None:
    spec = model(linear(50))
    world.hold(spec)
    assert metadata(world.run("trials"))["complete"] == len(ALPHAS)
    given = {"training.validation_days": 3, "training.seed": 11}
    rows = training_rows(run := overridden(spec, given))
    world.lake.write_table(keys.training_set(MODEL), DAY, rows, [], {OVERRIDES: json.dumps(given)})
    result = world.run()
    assert result.success, failures(result)
    scored = search_windows(run.training, 7, DAY).validation
    assert metadata(result)["scored_on"] == f"{scored[0]} to {scored[1]}"
    assert metadata(result)["reused"] == 0
    assert manifest(world)["seed"] == 11


def test_candidate_refuses_trials_of_another_search_or_training_set(world: World) -> None:
    world.hold(spec := model(linear(50)))
    assert world.run("trials").success
    world.hold(spec, seed=4)
    refused = world.run("candidate")
    assert "the search was made on another training set. Next: materialize searched/trials" in failures(refused)
    world.hold(model(linear(50, 100)))
    assert "there is no search of candidate 1 as it is now" in failures(world.run("candidate"))


def test_hopeless_trials_are_pruned_and_never_win(world: World) -> None:
    losses = [1.0] * 5 + [9.0, 9.5]
    world.hold(model(moody({"loss": sorted({*losses}), "skill": [0.3, 0.5, 0.6, 0.7, 0.8]}, epochs=6)))
    result = world.run("trials")
    assert result.success, failures(result)
    report = metadata(result)
    assert (report["complete"], report["pruned"]) == (5, 10)
    assert json.loads(report["best_params"]) == {"loss": 1.0, "skill": 0.8}
    over = outcomes(world.lake, MODEL, DAY)[1]
    assert {max(one.losses) for one in over.records if one.status == "pruned"} == {2}


def test_several_candidates_search_side_by_side(world: World) -> None:
    world.hold(model(moody({"skill": [0.1, 0.2]}), {"trainer": "linear"}, moody({"skill": [0.3, 0.9]})))
    result = world.run()
    assert result.success, failures(result)
    report = metadata(result)
    assert (report["c1_best_params"], report["c3_best_params"]) == ('{"skill": 0.2}', '{"skill": 0.9}')
    rows = manifest(world)["leaderboard"]
    assert [row["params"] for row in rows] == [{"skill": 0.2}, {}, {"skill": 0.9}]


def test_every_trial_is_an_mlflow_run_nested_in_that_of_the_training(world: World, environment: Settings) -> None:
    world.hold(model(moody({"skill": [0.3, 0.9], "fails": ["", "no luck"], "max_failed_share": 0.5})))
    result = world.run()
    client = MlflowClient(environment.mlflow_url)
    experiment = client.get_experiment_by_name(MODEL)
    assert experiment is not None
    (parent,) = client.search_runs([experiment.experiment_id], f"tags.dagster_run_id = '{result.run_id}'")
    children = client.search_runs(
        [experiment.experiment_id],
        f"tags.`mlflow.parentRunId` = '{parent.info.run_id}'",
        order_by=["tags.`mlflow.runName`"],
    )
    assert [(run.info.run_name, run.info.status) for run in children] == [
        ("c1_000", "FINISHED"),
        ("c1_001", "FAILED"),
        ("c1_002", "FINISHED"),
        ("c1_003", "FAILED"),
    ]
    assert children[2].data.params["skill"] == "0.9"
    assert children[2].data.metrics["average_precision"] > 0.5
    assert parent.data.params["skill"] == "0.9"


def test_window_too_short_for_trials_is_refused_with_the_field() -> None:
    with pytest.raises(ValueError, match=r"8 days \(window_days\) leave none to fit trials on"):
        model(linear(50), training={"validation_days": 8})


def test_rows_that_cannot_be_searched_stop_the_search_before_its_trials(world: World) -> None:
    spec = model(linear(50))
    rows = training_rows(spec)
    none = pa.array([0] * rows.num_rows)
    world.hold(spec, rows=rows.set_column(rows.column_names.index(LABEL), LABEL, none))
    result = world.run("trials")
    assert "widen training.window_days" in failures(result)
    assert not [event for event in result.all_events if "trial[" in str(event.step_key)]


def test_training_by_itself_includes_the_trials() -> None:
    names = [key.path[1] for key in model_assets(model(linear(50)))]
    assert names == ["training_set", "trials", "candidate", "evaluation", "model_version", "deployment"]
    assert "trials" not in [key.path[1] for key in model_assets(model({"trainer": "linear"}))]


def test_killed_trial_is_tried_again_alone_with_its_own_point_and_one_that_always_dies_is_given_up(
    world: World,
) -> None:
    search = {"method": "random", "skill": {"range": [0.1, 0.9]}, "killed": [0, 1, 9], "trials": 4, "parallel": 1}
    world.hold(model(moody(search)))
    with world.run_in_processes("trials") as result:
        assert result.success, failures(result)
    records = outcomes(world.lake, MODEL, DAY)[1].records
    assert [(one.params["killed"], one.status) for one in records] == [
        (0, "complete"),
        (0, "complete"),
        (9, "failed"),
        (1, "complete"),
    ]
    assert "its process died in try 2" in records[2].error
    again = [str(event.step_key)[-7:] for event in result.all_events if event.is_step_up_for_retry]
    assert sorted(again) == ["c1_002]", "c1_002]", "c1_003]"]
    fitted = (world.home / FITS).read_text().splitlines()
    assert len(fitted) == 2 + 2 + 2
    assert len(set(fitted)) == 4
