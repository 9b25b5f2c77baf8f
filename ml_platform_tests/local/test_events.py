from collections import Counter
from typing import Any

from ml_platform.local.events import UNREACHABLE, line, reload_what_is_gone

URL = "http://dagster"


def run(status: str, **fields: Any) -> dict[str, Any]:
    tags = [{"key": key, "value": value} for key, value in fields.pop("tags", {}).items()]
    paths = [{"path": ["transactions", "raw"]}]
    return {
        "runId": "abc",
        "status": status,
        "startTime": 10.0,
        "endTime": 52.4,
        "tags": tags,
        "assetSelection": paths,
        **fields,
    }


def test_run_in_words() -> None:
    tags = {"dagster/asset_partition_range_start": "2018-04-01", "dagster/asset_partition_range_end": "2018-04-20"}
    assert line(run("SUCCESS", tags=tags), URL).endswith("transactions/raw [2018-04-01 to 2018-04-20] made in 42 s")
    failed = line(run("FAILURE", tags={"dagster/partition": "2018-04-01"}), URL)
    assert failed.endswith("transactions/raw [2018-04-01] FAILED after 42 s: http://dagster/runs/abc")
    assert line(run("CANCELED", startTime=None), URL).endswith("transactions/raw cancelled")


class Api:
    """A workspace with one location, and what was asked of it."""

    error: str | None = None

    def __init__(self) -> None:
        self.reloaded: list[str] = []

    def query(self, text: str, **variables: Any) -> dict[str, Any]:
        if text.startswith("mutation"):
            self.reloaded.append(variables["name"])
            return {}
        entry = {"name": "mine", "locationOrLoadError": {"className": self.error} if self.error else {}}
        return {"workspaceOrError": {"locationEntries": [entry]}}


def test_code_server_that_is_gone_is_started_again_and_one_with_a_mistake_is_not() -> None:
    api, told, gone = Api(), [], Counter[str]()
    for error, looks in (("SpecError", 9), (UNREACHABLE, 2), (None, 1), (UNREACHABLE, 3)):
        api.error = error
        for _ in range(looks):
            assert not api.reloaded
            gone = reload_what_is_gone(api, gone, told.append)  # type: ignore[arg-type]
    assert api.reloaded == ["mine"]
    assert told == ["the code server of mine is gone, and is started again"]
