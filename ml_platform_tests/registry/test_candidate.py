"""Candidates side by side: the best wins, what fails is noted."""

import json
from datetime import UTC, date, datetime
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pytest

from ml_platform.core.catalog import Catalog
from ml_platform.core.errors import BundleError, Interrupted, SpecError, TrainingError
from ml_platform.core.spec import CandidateSpec, FeatureViewSpec, ModelSpec
from ml_platform.core.tasks import METRICS, Task
from ml_platform.registry import bundle
from ml_platform.registry.candidate import Prepared, Trained, prepare, train_candidate
from ml_platform.registry.reproduce import differences, refit
from ml_platform.training.cold_start import with_cold_starts
from ml_platform.training.training_set import LABEL, SPLIT, part_of

VIEW = FeatureViewSpec.model_validate(
    {
        "name": "size",
        "kind": "request",
        "features": {"amount": {"expression": "tx_amount"}, "twice": {"expression": "tx_amount * 2"}},
    }
)
HERE = f"{__name__}.Stub"


class Stub:
    """A trainer that does as its params say: fail, stop, or score every row alike."""

    def __init__(self, score: float) -> None:
        self.score = score

    @classmethod
    def fit(cls, params: Any, train: Any, validation: Any, context: Any) -> Self:
        if "fails" in params:
            raise ValueError(params["fails"])
        if "interrupted" in params:
            raise Interrupted("m/candidate", "asked to stop", "it goes on")
        context.on_epoch(1, {"validation_loss": 1.0, **params.get("figures", {})})
        return cls(params["score"])

    def predict(self, x: np.ndarray) -> np.ndarray:
        return np.full(len(x), self.score)

    def save(self) -> dict[str, bytes]:
        return {"model.json": json.dumps(self.score).encode()}

    @classmethod
    def load(cls, files: Any) -> Self:
        return cls(json.loads(files["model.json"]))


def stub(**params: Any) -> CandidateSpec:
    return CandidateSpec(trainer=HERE, params=params)


def table(task: Task) -> pa.Table:
    amounts = np.random.default_rng(3).uniform(1, 9, 400)
    labels = {
        "binary_classification": amounts > 5,
        "multiclass_classification": np.digitize(amounts, [3.0, 6.0]),
        "regression": amounts * 3,
    }[task]
    times = pa.array([datetime(2018, 5, 1, tzinfo=UTC)] * 400, pa.timestamp("us", tz="UTC"))
    split = ["train"] * 300 + ["validation"] * 100
    return pa.table({"tx_amount": amounts, "tx_datetime": times, LABEL: labels, SPLIT: split})


def trained(
    catalog: Catalog,
    *candidates: CandidateSpec,
    task: Task = "binary_classification",
    heard: Any = None,
    may_pass: Any = lambda error: False,
    **training: Any,
) -> Trained:
    fraud = catalog.models["fraud_detection"]
    spec = ModelSpec.model_validate(
        {**fraud.model_dump(exclude={"gates"}), "task": task, "training": training, "candidates": candidates}
    )
    told = heard if heard is not None else {}
    rows = catalog.sources["transactions"]
    return train_candidate(
        spec,
        date(2018, 5, 31),
        rows,
        [],
        [VIEW],
        table(task),
        "hash",
        [],
        lambda _, figures: told.update(figures),
        may_pass=may_pass,
    )


def statuses(result: Trained) -> list[str]:
    return [entry.status for entry in result.leaderboard]


def test_best_by_the_metric_is_selected_wherever_it_stands(catalog: Catalog) -> None:
    linear = CandidateSpec(trainer="linear")
    assert statuses(trained(catalog, stub(score=0.5), linear)) == ["trained", "selected"]
    assert statuses(trained(catalog, linear, stub(score=0.5))) == ["selected", "trained"]


def test_another_metric_selects_another_and_of_losses_the_least_is_best(catalog: Catalog) -> None:
    candidates = stub(score=0.99), stub(score=0.4)
    assert statuses(trained(catalog, *candidates, select_by="recall")) == ["selected", "trained"]
    assert statuses(trained(catalog, *candidates, select_by="log_loss")) == ["trained", "selected"]


def test_first_of_equals_is_selected(catalog: Catalog) -> None:
    assert statuses(trained(catalog, stub(score=0.3), stub(score=0.3))) == ["selected", "trained"]


def test_what_fails_or_has_no_figure_is_noted_and_does_not_sink_the_others(catalog: Catalog) -> None:
    unknown = CandidateSpec(trainer="linear", params={"alhpa": 1})
    candidates = stub(fails="no memory"), stub(score=float("nan")), unknown, stub(score=0.5)
    result = trained(catalog, *candidates)
    assert statuses(result) == ["failed", "failed", "failed", "selected"]
    errors = [entry.error for entry in result.leaderboard]
    assert errors[0] == "ValueError: no memory"
    assert "average_precision has no value" in errors[1]
    assert "mend candidates.params.alhpa" in errors[2]
    assert json.loads(result.files[bundle.MANIFEST])["params"] == {"score": 0.5}


def test_what_may_pass_is_raised_and_decides_nothing(catalog: Catalog) -> None:
    with pytest.raises(ValueError, match="a lost pod"):
        trained(catalog, stub(score=0.5), stub(fails="a lost pod"), may_pass=lambda error: "pod" in str(error))


def test_all_failing_names_each(catalog: Catalog) -> None:
    with pytest.raises(TrainingError, match=r"all 2 candidates failed: 1_.*Stub: ValueError: one; 2_.*Stub: .*two"):
        trained(catalog, stub(fails="one"), stub(fails="two"))


def test_only_candidate_raises_its_own_error(catalog: Catalog) -> None:
    with pytest.raises(SpecError, match="alhpa"):
        trained(catalog, CandidateSpec(trainer="linear", params={"alhpa": 1}))


def test_interruption_is_no_failure_of_the_candidate(catalog: Catalog) -> None:
    with pytest.raises(Interrupted):
        trained(catalog, stub(interrupted=True), stub(score=0.5))


def test_leaderboard_is_in_the_manifest_and_the_card_and_the_bundle_is_the_same_again(catalog: Catalog) -> None:
    first, again = (trained(catalog, stub(fails="no memory"), stub(score=0.5)) for _ in range(2))
    assert first.files == again.files
    rows = json.loads(first.files[bundle.MANIFEST])["leaderboard"]
    assert [(row["candidate"], row["status"]) for row in rows] == [(f"1_{HERE}", "failed"), (f"2_{HERE}", "selected")]
    assert "ValueError: no memory" in first.files[bundle.MODEL_CARD].decode()


def test_figures_of_several_candidates_do_not_collide(catalog: Catalog) -> None:
    heard: dict[str, float] = {}
    trained(catalog, stub(score=0.5), stub(score=0.4), heard=heard)
    assert set(heard) == {f"1_{HERE}_validation_loss", f"2_{HERE}_validation_loss"}
    heard.clear()
    trained(catalog, stub(score=0.5), heard=heard)
    assert set(heard) == {"validation_loss"}


@pytest.mark.parametrize("task", METRICS)
@pytest.mark.parametrize("trainer", ["linear", "forest", "xgboost", "lightgbm"])
def test_bundle_of_every_family_and_task_scores_as_when_it_was_trained(
    catalog: Catalog, trainer: str, task: Task
) -> None:
    result = trained(catalog, CandidateSpec(trainer=trainer), task=task)
    loaded = bundle.unpack(result.files, "m")
    scores = loaded.score({"tx_amount": np.array([2.0, 4.5, 8.0])})
    assert scores.shape == ((3, 3) if task == "multiclass_classification" else (3,))
    assert np.isfinite(scores).all()
    assert set(loaded.metrics) == set(METRICS[task])
    assert loaded.manifest["trainer"] == trainer


def test_bundle_remembers_a_trainer_of_ones_own(catalog: Catalog) -> None:
    files = trained(catalog, own := stub(score=0.25)).files
    with pytest.raises(BundleError, match="is none that this process may load"):
        bundle.unpack(files, "m")
    loaded = bundle.unpack(files, "m", own.trainers)
    assert loaded.score({"tx_amount": np.ones(2)}).tolist() == [0.25, 0.25]


def test_memory_that_ran_out_is_noted_in_the_leaderboard(catalog: Catalog) -> None:
    halved = stub(score=0.2, figures={"halvings": 2.0, "part_rows": 64.0})
    notes = [entry.note for entry in trained(catalog, stub(score=0.2), halved).leaderboard]
    assert notes == ["", "memory ran out: 64 rows at once, and gradients added up to the same batch"]


# --- cold starts ------------------------------------------------------------------------------------------------------

CARDS = FeatureViewSpec.model_validate(
    {
        "name": "cards",
        "entity": "customer_id",
        "function": "a.b",
        "inputs": {"transactions": {"window_days": 1}},
        "is_known": True,
        "features": {"usual": {"default": -4.0}},
    }
)
TIMES = FeatureViewSpec.model_validate(
    {"name": "times", "kind": "request", "features": {"to_usual": {"expression": "tx_amount / usual"}}}
)


def looked_up(catalog: Catalog, share: float | None) -> tuple[ModelSpec, pa.Table]:
    """A model with a snapshot view, and its training set, in which everybody is known."""
    rows = table("binary_classification")
    rows = rows.append_column("usual", pa.array(np.random.default_rng(4).uniform(1, 9, len(rows))))
    rows = rows.append_column("cards_is_known", pa.array(np.ones(len(rows))))
    rows = rows.append_column("transaction_id", pa.array(np.arange(len(rows))))
    fraud = catalog.models["fraud_detection"].model_dump(exclude={"gates"})
    training = {} if share is None else {"cold_start_share": share}
    linear = [{"trainer": "linear"}]
    return ModelSpec.model_validate({**fraud, "training": training, "candidates": linear}), rows


def prepared(catalog: Catalog, share: float | None) -> Prepared:
    spec, rows = looked_up(catalog, share)
    return prepare(spec, catalog.sources["transactions"], rows, [CARDS], [TIMES], "m")


def unknown(made: Prepared, part: str) -> int:
    """Rows of a part that say: nobody knows this card."""
    position = made.transforms.names.index("cards_is_known")
    x = getattr(made, part).x[:, position]
    return int((x == np.float32(made.transforms.describe({})[position].default)).sum())


def test_a_share_of_the_rows_to_fit_on_are_cold_starts_and_none_of_those_to_judge_by(catalog: Catalog) -> None:
    made = prepared(catalog, 0.2)
    assert 30 < unknown(made, "train") < 90
    assert made.cold_starts == {"customer_id": unknown(made, "train")}
    assert unknown(made, "validation") == 0
    assert unknown(prepared(catalog, 0.0), "train") == 0
    assert prepared(catalog, 0.0).cold_starts == {}
    assert prepared(catalog, None).cold_starts["customer_id"] > 0  # without a word about it too


def test_transforms_are_fitted_on_what_the_fit_is_shown(catalog: Catalog) -> None:
    _, rows = looked_up(catalog, 0.2)
    made, train = prepared(catalog, 0.2), part_of(rows, "train")
    shown, _ = with_cold_starts(train, [CARDS], ["transaction_id", "tx_datetime"], 0.2, 7)
    assert made.transforms.names == ("usual", "cards_is_known", "to_usual")
    means = [shown["usual"].mean(), shown["cards_is_known"].mean(), (shown["tx_amount"] / shown["usual"]).mean()]
    assert made.transforms.mean == pytest.approx(means)
    assert (made.train.x == made.transforms.apply(shown)).all()


def test_manifest_says_how_many_cold_starts_there_were_and_a_refit_has_the_same(catalog: Catalog) -> None:
    spec, rows = looked_up(catalog, 0.2)
    source, views = catalog.sources["transactions"], ([CARDS], [TIMES])
    files = train_candidate(spec, date(2018, 5, 31), source, *views, rows, "hash", [], lambda *_: None).files
    manifest = json.loads(files[bundle.MANIFEST])
    assert manifest["cold_starts"] == {"share": 0.2, "rows": prepared(catalog, 0.2).cold_starts}
    shuffled = rows.take(pa.array(np.argsort(rows["transaction_id"].to_numpy() < 300, kind="stable")[::-1].copy()))
    assert differences(files, refit(bundle.unpack(files, "m"), source, *views, rows)) == {}
    assert (prepare(spec, source, shuffled, *views, "m").cold_starts) == manifest["cold_starts"]["rows"]


def test_version_of_before_there_were_cold_starts_is_refitted_without(catalog: Catalog) -> None:
    spec, rows = looked_up(catalog, 0.0)
    source, views = catalog.sources["transactions"], ([CARDS], [TIMES])
    files = train_candidate(spec, date(2018, 5, 31), source, *views, rows, "hash", [], lambda *_: None).files
    manifest = json.loads(files[bundle.MANIFEST])
    text = files[bundle.SPEC].replace(b"  cold_start_share: 0.0\n", b"")
    assert text != files[bundle.SPEC]
    del manifest["cold_starts"]
    old = {**files, bundle.MANIFEST: json.dumps(manifest).encode(), bundle.SPEC: text}
    assert differences(files, refit(bundle.unpack(old, "m"), source, *views, rows)) == {}
