"""The OpenAPI document: the server's own paths, and for every served model its typed request and answer."""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from ml_platform.registry.bundle import Bundle, InputSchema
from ml_platform.serving.models import ServedModels
from ml_platform.serving.requests import MAX_ROWS

Schema = dict[str, Any]
TYPES: dict[str, Schema] = {
    "timestamp": {"type": "string", "format": "date-time"},
    "bool": {"type": "boolean"},
    "string": {"type": "string"},
    "int64": {"type": "integer", "format": "int64", "minimum": 1 - 2**63, "maximum": 2**63 - 1},
}
NUMBER: Schema = {"type": "number"}
ERRORS = {
    400: "The request is no HTTP/1.1",
    401: "No API key, or a wrong one",
    404: "The model is not served any more",
    408: "The request did not come in time",
    413: "The body is too large",
    414: "The URL is too long",
    415: "The body is no JSON by its content type, or is compressed",
    422: "The request is not what the model needs; `detail` names row and field, or the key that is there twice",
    431: "The headers are too large or too many",
    503: "Features cannot be looked up, or there is no room for a large body or another connection now",
    504: "There was no answer in time",
}


def document(app: FastAPI, models: ServedModels, needs_key: bool) -> Schema:
    """The document as of now: it changes when a model is swapped."""
    found = get_openapi(title=app.title, version=app.version, description=__doc__, routes=app.routes)
    schemas = found.setdefault("components", {}).setdefault("schemas", {})
    schemas["Refusal"] = _object({"detail": {"type": "string"}}, ["detail"])
    for name, serving in sorted(models.served.items()):
        bundle = serving.champion.bundle
        schemas |= _schemas(name, bundle, models.most_characters)
        for kind, request, response in (("predict", "Rows", "Scores"), ("invocations", "Invocation", "Predictions")):
            found["paths"][f"/models/{name}/{kind}"] = {
                "post": _operation(name, kind, request, response, bool(serving.challenger))
            }
    if needs_key:
        found["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        found["security"] = [{"key": []}]
    return found


def _operation(name: str, kind: str, request: str, response: str, challenged: bool) -> Schema:
    return {
        "operationId": f"{kind}_{name}",
        "summary": f"{name}: {kind}",
        "tags": [name],
        "parameters": [
            {
                "name": "arm",
                "in": "query",
                "schema": {"enum": ["champion", "challenger"] if challenged else ["champion"]},
                "description": "Who shall answer, whatever the traffic"
                + ("" if challenged else ". There is no challenger now: it would be 422"),
            }
        ],
        "requestBody": {"required": True, "content": _json(f"{name}.{request}")},
        "responses": {
            "200": {"description": "One score per row", "content": _json(f"{name}.{response}")},
            **{str(code): {"description": why, "content": _json("Refusal")} for code, why in ERRORS.items()},
        },
    }


def _schemas(name: str, bundle: Bundle, most_characters: int) -> dict[str, Schema]:
    schema = bundle.schema
    given = _given(schema, most_characters)
    full = _full_row(schema, given)
    rows: Schema = {"rows": _list(full)}
    if schema.views and not schema.rolling:
        rows["entities"] = _list(_object(given, [*dict.fromkeys([*schema.entities, *schema.request])]))
    score: Schema = {"multiclass_classification": {"type": "array", "items": NUMBER}}.get(bundle.spec.task, NUMBER)
    if bundle.spec.task == "binary_classification":
        score = {**NUMBER, "minimum": 0, "maximum": 1}
    scores = {"type": "array", "items": score}
    by = _object({"version": {"type": "string"}, "arm": {"enum": ["champion", "challenger"]}}, ["version", "arm"])
    answered = {
        "version": {"type": ["string", "null"], "description": "null if rows were answered by both"},
        "arm": {"enum": ["champion", "challenger", None]},
        "answered_by": {"type": "array", "items": by, "description": "by row, if rows were answered by both"},
    }
    looked_up = {
        "as_of": {"type": ["object", "null"], "additionalProperties": {"type": "string", "format": "date-time"}},
        "age_seconds": {"type": ["object", "null"], "additionalProperties": NUMBER},
        "known": {
            "type": ["array", "null"],
            "items": {"type": "array", "items": {"enum": [view.name for view in schema.views]}},
            "description": "by row, the views that knew the entity; null if nothing was looked up",
        },
    }
    return {
        f"{name}.Rows": {"oneOf": [_object({key: value}, [key]) for key, value in rows.items()]},
        f"{name}.Invocation": {
            "oneOf": [_object({form: _list(full)}, [form]) for form in ("dataframe_records", "instances")]
            + [_object({"dataframe_split": _split()}, ["dataframe_split"])]
            + [_object({"inputs": {"type": ["object", "array"]}}, ["inputs"])]
        },
        f"{name}.Scores": _object(
            {"model": {"const": name}, **answered, "scores": scores, **looked_up},
            ["model", "version", "arm", "scores", *looked_up],
        ),
        f"{name}.Predictions": _object(
            {"predictions": scores, **answered, **looked_up}, ["predictions", "version", "arm", *looked_up]
        ),
    }


def _given(schema: InputSchema, most_characters: int) -> dict[str, Schema]:
    """What only a request can say: ids, request columns, and the key."""
    types = TYPES | {"string": {**TYPES["string"], "maxLength": most_characters}}
    ids = {view.entity: _or_null(types["string" if view.entity_type == "string" else "int64"]) for view in schema.views}
    # An integer column is a number to the model, whatever it was in the source.
    request = {name: types.get(type_, NUMBER) if type_ != "int64" else NUMBER for name, type_ in schema.request.items()}
    request |= {name: _or_null(request[name]) for name in schema.nullable}
    key = {name: _or_null(types.get(type_, NUMBER)) for name, type_ in schema.key.items()}
    return {**key, **ids, **request}


def _full_row(schema: InputSchema, given: dict[str, Schema]) -> Schema:
    features = {name: {**_or_null(NUMBER), "default": default} for name, default in schema.features.items()}
    return _object({**features, **given}, [*{**schema.features, **schema.request}])


def _split() -> Schema:
    properties = {"columns": {"type": "array", "items": {"type": "string"}}, "data": {"type": "array"}, "index": {}}
    return _object(properties, ["columns", "data"])


def _object(properties: dict[str, Schema], required: list[str]) -> Schema:
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


def _list(items: Schema) -> Schema:
    return {"type": "array", "items": items, "minItems": 1, "maxItems": MAX_ROWS}


def _or_null(schema: Schema) -> Schema:
    return {**schema, "type": [schema["type"], "null"]}


def _json(name: str) -> Schema:
    return {"application/json": {"schema": {"$ref": f"#/components/schemas/{name}"}}}
