"""What Dagster has of one partition: which run made it, its metadata, and the results of its checks."""

import json
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

from ml_platform.core.errors import StackError
from ml_platform.resources.dagster_api import DagsterApi

# Where each kind of metadata entry has its value; whole numbers of more than 32 bits and NaN are there as text only.
_VALUES = ("text", "mdStr", "url", "path", "floatValue", "intValue", "boolValue", "intRepr", "floatRepr")
_ENTRIES = """metadataEntries { label ... on TextMetadataEntry { text } ... on MarkdownMetadataEntry { mdStr }
    ... on UrlMetadataEntry { url } ... on PathMetadataEntry { path } ... on JsonMetadataEntry { jsonString }
    ... on FloatMetadataEntry { floatValue floatRepr } ... on IntMetadataEntry { intValue intRepr }
    ... on BoolMetadataEntry { boolValue } ... on TimestampMetadataEntry { timestamp } }"""
_MADE = """query($key: AssetKeyInput!, $partitions: [String!]) { assetNodeOrError(assetKey: $key) { ... on AssetNode {
    assetMaterializations(partitions: $partitions, limit: 1) { runId timestamp %s }
    assetChecksOrError { ... on AssetChecks { checks { name } } } } } }"""
_JUDGED = """%s: assetCheckExecutions(assetKey: $key, checkName: "%s", partition: $partition, limit: 1) {
    runId status timestamp evaluation { severity description %s } }"""


@dataclass(frozen=True)
class Judgement:
    """The newest result of a check; `outcome` is passed, failed, warned, or what became of a check without a result."""

    check: str
    outcome: str
    description: str
    at: datetime | None
    run_id: str
    metadata: dict[str, Any]


@dataclass(frozen=True)
class Known:
    """The newest materialization, if there is one (`at` is None otherwise), and the checks that have a result.

    What a sensor reported was made in no run.
    """

    run_id: str
    at: datetime | None
    metadata: dict[str, Any]
    checks: tuple[Judgement, ...]


def known_of(api: DagsterApi, key: str, day: date | None) -> Known:
    """What Dagster has of an asset's partition, or of an asset without partitions.

    Raises:
        StackError: if nobody answers, or the asset is not known there.
    """
    path = {"path": key.split("/")}
    node = api.query(_MADE % _ENTRIES, key=path, partitions=[day.isoformat()] if day else None)["assetNodeOrError"]
    if "assetMaterializations" not in node:
        problem = f"{api.url} does not know {key}; maybe the code location is not loaded"
        raise StackError("dagster", problem, f"look at {api.url}")
    names = [check["name"] for check in node["assetChecksOrError"].get("checks", ())]
    # Without a partition, "" asks for results that are of none.
    found = api.query(_judgements(names), key=path, partition=day.isoformat() if day else "") if names else {}
    checks = tuple(_judgement(name, one[0]) for name, one in zip(names, found.values(), strict=True) if one)
    made = next(iter(node["assetMaterializations"]), None)
    if made is None:
        return Known("", None, {}, checks)
    return Known(made["runId"], _moment(float(made["timestamp"]) / 1_000), _metadata(made), checks)


def _judgements(names: list[str]) -> str:
    asked = "\n".join(_JUDGED % (f"check_{number}", name, _ENTRIES) for number, name in enumerate(names))
    return f"query($key: AssetKeyInput!, $partition: String) {{ {asked} }}"


def _judgement(name: str, found: dict[str, Any]) -> Judgement:
    evaluation, outcome = found["evaluation"] or {}, found["status"].lower().replace("_", " ")
    if outcome == "succeeded":
        outcome = "passed"
    elif outcome == "failed" and evaluation.get("severity") == "WARN":
        outcome = "warned"
    at = _moment(found["timestamp"]) if found["timestamp"] else None
    return Judgement(name, outcome, evaluation.get("description") or "", at, found["runId"], _metadata(evaluation))


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def _metadata(found: dict[str, Any]) -> dict[str, Any]:
    entries = {entry["label"]: _value(entry) for entry in found.get("metadataEntries", ())}
    return {label: value for label, value in entries.items() if value is not None}


def _value(entry: dict[str, Any]) -> Any:
    if "jsonString" in entry:
        return json.loads(entry["jsonString"])
    if "timestamp" in entry:
        return _moment(entry["timestamp"]).isoformat()
    return next((entry[name] for name in _VALUES if entry.get(name) is not None), None)
