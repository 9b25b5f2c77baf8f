"""What docs/migrating.md says of Dagster is so: every snippet of the page runs, and does what the page says."""

import itertools
import re
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dagster as dg
import pytest

PAGE = (Path(__file__).parents[1] / "docs" / "migrating.md").read_text()
SUCCESS, FAILED, SKIPPED = "success", "failed", "skipped"
PAIRS = list(itertools.product((SUCCESS, FAILED, SKIPPED), repeat=2))
TITLES = re.findall(r"^##+ (.+)$", PAGE, re.MULTILINE)
# As Airflow defines them, of what became of two upstream tasks.
HOLDS: dict[str, Callable[[set[str]], bool]] = {
    "all_success": lambda of: of == {SUCCESS},
    "all_failed": lambda of: of == {FAILED},
    "all_done": lambda of: True,
    "one_success": lambda of: SUCCESS in of,
    "one_failed": lambda of: FAILED in of,
    "none_failed": lambda of: of <= {SUCCESS, SKIPPED},
    "none_skipped": lambda of: of <= {SUCCESS, FAILED},
    "none_failed_min_one_success": lambda of: of <= {SUCCESS, SKIPPED} and SUCCESS in of,
    "always": lambda of: True,
}


@cache
def section(title: str) -> SimpleNamespace:
    """What the snippets of a section define; those of trigger rules go on from each other."""
    names: dict[str, Any] = {"__name__": f"page_{TITLES.index(title)}"}
    _, _, rest = PAGE.partition(f"# {title}\n")
    body = re.split(r"^##+ ", rest, maxsplit=1, flags=re.MULTILINE)[0]
    if title == "none_failed_min_one_success":
        names |= vars(section("all_success"))
    for code in re.findall(r"```python\n(.*?)```", body, re.DOTALL):
        exec(compile(code, f"docs/migrating.md, {title}", "exec"), names)
    return SimpleNamespace(**names)


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


def made(result: dg.ExecuteInProcessResult) -> set[str]:
    """The steps that gave something."""
    return {event.step_key for event in result.all_events if event.is_successful_output and event.step_key}


@pytest.mark.parametrize("title", TITLES)
def test_every_snippet_runs(title: str) -> None:
    section(title)


def test_no_snippet_is_left_out() -> None:
    assert len(TITLES) == len(set(TITLES))
    assert PAGE.count("```python") == sum(
        re.split(r"^##+ ", PAGE.partition(f"# {title}\n")[2], maxsplit=1, flags=re.MULTILINE)[0].count("```python")
        for title in TITLES
    )


def test_every_classic_concept_has_a_line() -> None:
    rows = {line.split("|")[1].strip() for line in PAGE.splitlines() if line.startswith("| ")}
    assert {f"`{rule}`" for rule in HOLDS} <= rows
    text = " ".join(rows).lower()
    for word in ("xcom", "pools", "sensors", "connections", "variables", "slas", "branching", "task groups", "mapping"):
        assert word in text
    for word in ("backfill", "component", "experiment", "`ingest`", "`split`", "`transform`", "`train`", "`register`"):
        assert word in text


# --- trigger rules ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: "-".join(pair))
def test_any_rule_starts_the_next_job_exactly_where_airflow_would(
    pair: tuple[str, str], instance: dg.DagsterInstance
) -> None:
    page = section("Any rule")
    steps = ("load_orders", "load_refunds")
    config = {"ops": {step: {"config": {"became": became}} for step, became in zip(steps, pair, strict=True)}}
    ended = page.load.execute_in_process(run_config=config, instance=instance, raise_on_error=False)
    run = instance.get_run_by_id(ended.run_id)
    assert run
    assert page.became(instance, run.run_id, steps) == Counter(pair)
    for rule, holds in HOLDS.items():
        sensors = page.after(page.load, steps, rule, page.report)
        started = [request for sensor in sensors for request in requests(sensor, run, instance)]
        assert len(started) == holds({*pair}), rule
        for request in started:
            assert request.run_key == run.run_id


def requests(sensor: Any, run: dg.DagsterRun, instance: dg.DagsterInstance) -> list[dg.RunRequest]:
    """What a run-status sensor asks for, if its status is that of the run."""
    event = next(
        entry.dagster_event
        for entry in reversed(instance.all_logs(run.run_id))
        if entry.dagster_event and entry.dagster_event.event_type_value in ("PIPELINE_SUCCESS", "PIPELINE_FAILURE")
    )
    wanted = {"PIPELINE_SUCCESS": "success", "PIPELINE_FAILURE": "failure"}[event.event_type_value]
    if not sensor.name.endswith(wanted):
        return []
    context = dg.build_run_status_sensor_context(
        sensor_name=sensor.name, dagster_instance=instance, dagster_run=run, dagster_event=event
    )
    found = sensor(context)
    return [found] if isinstance(found, dg.RunRequest) else []


def test_step_that_never_began_counts_as_failed(instance: dg.DagsterInstance) -> None:
    page = section("all_success")
    config = {"ops": {"one": {"config": {"became": FAILED}}, "other": {"config": {"became": SUCCESS}}}}
    ended = page.all_success.execute_in_process(run_config=config, instance=instance, raise_on_error=False)
    assert section("Any rule").became(instance, ended.run_id, ["both"]) == Counter([FAILED])


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: "-".join(pair))
@pytest.mark.parametrize(("rule", "step"), [("all_success", "both"), ("none_failed_min_one_success", "any_of_them")])
def test_rules_within_a_run_need_nothing_but_the_graph(rule: str, step: str, pair: tuple[str, str]) -> None:
    job = getattr(section(rule), rule)
    config = {"ops": {one: {"config": {"became": became}} for one, became in zip(("one", "other"), pair, strict=True)}}
    result = job.execute_in_process(run_config=config, raise_on_error=False)
    assert (step in made(result)) == HOLDS[rule]({*pair})


def test_one_success_across_runs_follows_whichever_was_made(instance: dg.DagsterInstance) -> None:
    page = section("one_success, across runs")
    defs, total = dg.Definitions([page.web, page.shop, page.total]), dg.AssetKey("total")
    dg.materialize([page.web, page.shop], instance=instance)
    tick = dg.evaluate_automation_conditions(defs, instance)
    assert dg.evaluate_automation_conditions(defs, instance, cursor=tick.cursor).get_num_requested(total) == 0
    dg.materialize([page.shop], instance=instance)
    after = dg.evaluate_automation_conditions(defs, instance, cursor=tick.cursor)
    assert after.get_num_requested(total) == 1
    assert dg.evaluate_automation_conditions(defs, instance, cursor=after.cursor).get_num_requested(total) == 0


def test_one_failed_and_all_failed_across_runs_are_asked_for_once(instance: dg.DagsterInstance) -> None:
    page = section("one_failed, all_failed, across runs")
    defs = dg.Definitions([page.first, page.second, page.one_failed, page.all_failed])

    def run(asset: dg.AssetsDefinition, fails: bool) -> None:
        config = {"ops": {asset.op.name: {"config": {"fails": fails}}}}
        dg.materialize([asset], instance=instance, run_config=config, raise_on_error=False)

    def tick(cursor: Any) -> tuple[Any, set[str]]:
        result = dg.evaluate_automation_conditions(defs, instance, cursor=cursor)
        asked = {name for name in ("one_failed", "all_failed") if result.get_num_requested(dg.AssetKey(name))}
        return result.cursor, asked

    run(page.first, fails=False)
    run(page.second, fails=False)
    cursor, asked = tick(None)
    assert asked == set()
    run(page.first, fails=True)
    cursor, asked = tick(cursor)
    assert asked == {"one_failed"}
    cursor, asked = tick(cursor)
    assert asked == set()
    run(page.second, fails=True)
    cursor, asked = tick(cursor)
    assert asked == {"all_failed"}


# --- at the end -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fails", [False, True])
def test_hooks_tell_and_what_was_used_is_cleaned_up_after_success_and_failure(
    fails: bool, tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    page, messages = section("At the end, whatever happened"), list[str]()
    page.CLEANED.clear()
    result = page.nightly_export.execute_in_process(
        run_config={"ops": {"export": {"config": {"fails": fails}}}},
        resources={"workspace": page.Workspace(folder=str(tmp_path / "work")), "messages": messages},
        instance=instance,
        raise_on_error=False,
    )
    assert result.success is not fails
    assert messages == ["export failed: the disk is full" if fails else "export is done"]
    assert not (tmp_path / "work").exists()
    run = instance.get_run_by_id(result.run_id)
    assert run
    for sensor in page.sensors:
        requests(sensor, run, instance)
    assert [f"nightly_export: {'FAILURE' if fails else 'SUCCESS'}"] == page.CLEANED


# --- the other concepts -----------------------------------------------------------------------------------------------


def test_tasks_and_dags(instance: dg.DagsterInstance) -> None:
    page = section("Tasks and DAGs")
    defs = dg.Definitions([page.orders, page.revenue], [page.at_two], jobs=[page.nightly])
    result = defs.resolve_job_def("nightly").execute_in_process(partition_key="2024-01-01", instance=instance)
    assert result.output_for_node("revenue") == 29.5


def test_xcom(instance: dg.DagsterInstance) -> None:
    page = section("XCom")
    result = dg.materialize([page.customers, page.letters], instance=instance)
    assert result.output_for_node("letters") == "3 letters, 3 customers"


def test_pools(instance: dg.DagsterInstance) -> None:
    page, storage = section("Pools"), instance.event_log_storage
    storage.set_concurrency_slots("database", 1)
    assert page.query.pool == "database"
    assert storage.claim_concurrency_slot("database", "another run", "query").is_claimed
    assert not storage.claim_concurrency_slot("database", "a run", "query").is_claimed
    for run in ("another run", "a run"):
        storage.free_concurrency_slots_for_run(run)
    assert page.queries.execute_in_process(instance=instance).success


def test_sensors(instance: dg.DagsterInstance) -> None:
    page = section("Sensors")
    page.TICKETS[:] = [7, 8]
    context = dg.build_sensor_context(instance=instance)
    asked = list(page.ticket_sensor(context))
    assert [request.run_key for request in asked] == ["7", "8"]
    assert page.answers.execute_in_process(run_config=asked[1].run_config).output_for_node("answer") == 8
    assert not list(page.ticket_sensor(dg.build_sensor_context(instance=instance, cursor=context.cursor)))


def test_connections(monkeypatch: pytest.MonkeyPatch, instance: dg.DagsterInstance) -> None:
    page = section("Connections")
    monkeypatch.setenv("SHOP_PASSWORD", "secret")
    result = page.defs.resolve_implicit_global_asset_job_def().execute_in_process(instance=instance)
    assert result.output_for_node("prices") == "http://shop/prices as s..."


def test_variables_and_params() -> None:
    page = section("Variables and params")
    assert dg.materialize([page.letter]).output_for_node("letter") == ["Dear customer"]
    config = {"ops": {"letter": {"config": {"greeting": "Hello", "copies": 2}}}}
    assert dg.materialize([page.letter], run_config=config).output_for_node("letter") == ["Hello customer"] * 2
    with pytest.raises(dg.DagsterInvalidConfigError):
        dg.materialize([page.letter], run_config={"ops": {"letter": {"config": {"copies": "many"}}}})


def test_slas() -> None:
    page = section("SLAs")
    defs = dg.Definitions([page.balance], jobs=[page.month_end])
    assert isinstance(next(iter(page.balance.specs)).freshness_policy, dg.FreshnessPolicy)
    assert defs.resolve_job_def("month_end").tags["dagster/max_runtime"] == "3600"


@pytest.mark.parametrize(("rows", "taken"), [(10, {"small", "in_memory"}), (10_000, {"large", "on_a_cluster"})])
def test_branching(rows: int, taken: set[str]) -> None:
    page = section("Branching")
    result = dg.materialize([page.by_size, page.in_memory, page.on_a_cluster], tags={"rows": str(rows)})
    made_of = [event.asset_key for event in result.get_asset_materialization_events()]
    assert {key.to_user_string() for key in made_of if key} == taken


def test_task_groups(instance: dg.DagsterInstance) -> None:
    page = section("Task groups")
    defs = dg.Definitions([page.invoices, page.reminders, page.dashboard], jobs=[page.billing])
    result = defs.resolve_job_def("billing").execute_in_process(instance=instance)
    assert made(result) == {"invoices", "reminders"}


def test_dynamic_task_mapping() -> None:
    assert section("Dynamic task mapping").sizes.execute_in_process().output_for_node("total") == 6


def test_backfill(instance: dg.DagsterInstance) -> None:
    tags = {"dagster/asset_partition_range_start": "2024-01-01", "dagster/asset_partition_range_end": "2024-01-03"}
    result = dg.materialize([section("Backfill").visits], tags=tags, instance=instance)
    days = [event.partition for event in result.get_asset_materialization_events()]
    assert days == ["2024-01-01", "2024-01-02", "2024-01-03"]


def test_kubeflow_step_is_not_run_again_where_its_input_has_the_content_that_it_had(
    instance: dg.DagsterInstance,
) -> None:
    page, counted = section("Kubeflow Pipelines"), dg.AssetKey("counted")
    defs = dg.Definitions([page.cleaned, page.counted])
    assert page.cleaned.op.tags["dagster-k8s/config"]
    dg.materialize([page.cleaned, page.counted], instance=instance)
    tick = dg.evaluate_automation_conditions(defs, instance)
    dg.materialize([page.cleaned], instance=instance)
    again = dg.evaluate_automation_conditions(defs, instance, cursor=tick.cursor)
    assert again.get_num_requested(counted) == 0
    other = dg.AssetMaterialization("cleaned", tags={"dagster/data_version": "other"})
    instance.report_runless_asset_event(other)
    assert dg.evaluate_automation_conditions(defs, instance, cursor=again.cursor).get_num_requested(counted) == 1


def test_step_of_a_recipe_is_run_by_itself(instance: dg.DagsterInstance) -> None:
    page = section("MLflow Recipes")
    assert page.run_step("ingested", instance).success
    result = page.run_step("transformed", instance)
    assert made(result) == {"transformed"}
    assert result.output_for_node("transformed") == [-2.0, -1.0, 3.0]
