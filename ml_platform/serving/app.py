"""The model server's HTTP interface.

GET  /health                  the process lives
GET  /ready                   it has heard of the champions and can answer
GET  /version                 of the code
GET  /models, /models/{name}  what is served, what was refused, what a request must have
POST /models/{name}/predict   {"entities": [...]} looks features up; {"rows": [...]} brings them
"""

import asyncio
import contextlib
import logging
import math
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Annotated, Any

from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field, model_validator

from ml_platform.core import digest
from ml_platform.core.errors import FeatureError, PlatformError, RequestError
from ml_platform.core.settings import Settings, load_settings
from ml_platform.resources.online_store import OnlineStore, online_store_at
from ml_platform.resources.registry import Registry
from ml_platform.serving.models import Served, ServedModels
from ml_platform.serving.requests import from_entities, from_rows

log = logging.getLogger("ml_platform.serving")

MAX_ROWS = 10_000
SYNCHRONIZE_EVERY = 2.0  # seconds between looks at the registry: how long a new champion waits at most

Rows = Annotated[list[dict[str, Any]], Field(min_length=1, max_length=MAX_ROWS)]


class PredictRequest(BaseModel):
    """Rows to score. `entities`: ids and request columns, features are looked up. `rows`: request columns and features."""

    model_config = ConfigDict(extra="forbid")
    entities: Rows | None = None
    rows: Rows | None = None

    @model_validator(mode="after")
    def _one_of_two(self) -> "PredictRequest":
        if (self.entities is None) == (self.rows is None):
            raise ValueError("give either `entities` or `rows`")
        return self


class PredictResponse(BaseModel):
    """Scores in the order of the rows, and for each view that was looked up the moment that its features are as of.

    A score is the probability of the label 1, a value, or a list with one probability per class.
    """

    model: str
    version: str
    scores: list[float] | list[list[float]]
    as_of: dict[str, datetime] | None = None


def create_app(settings: Settings | None = None) -> FastAPI:
    settings = settings or load_settings()
    models = ServedModels(Registry.at(settings))
    store = online_store_at(settings)

    async def follow_registry() -> None:
        while True:
            try:
                await asyncio.to_thread(models.synchronize)
            except PlatformError as error:
                log.warning("%s", error)
            except Exception:  # whatever it is, the loop must live: without it no new champion is ever served
                log.exception("cannot follow the registry")
            await asyncio.sleep(SYNCHRONIZE_EVERY)

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        follower = asyncio.create_task(follow_registry())
        yield
        follower.cancel()

    app = FastAPI(title="ml_platform model server", version=digest.code_version(), lifespan=lifespan)
    app.state.models = models

    @app.exception_handler(PlatformError)
    def _explain(_: Request, error: PlatformError) -> JSONResponse:
        status = {RequestError: 422, FeatureError: 503}.get(type(error), 500)
        return JSONResponse({"detail": str(error)}, status)

    @app.get("/health")
    def health() -> dict[str, str]:
        return {"status": "alive"}

    @app.get("/ready")
    def ready() -> JSONResponse:
        content = {"ready": models.synchronized, "models": sorted(models.served), "refused": sorted(models.refused)}
        return JSONResponse(content, 200 if content["ready"] else 503)

    @app.get("/version")
    def version() -> dict[str, Any]:
        return {
            "code": digest.code_version(),
            "models": {name: served.version.number for name, served in sorted(models.served.items())},
        }

    @app.get("/models")
    def list_models() -> list[dict[str, Any]]:
        return [_described(models, name) for name in sorted({*models.served, *models.refused})]

    @app.get("/models/{name}")
    def show_model(name: str) -> dict[str, Any]:
        if name not in models.served and name not in models.refused:
            raise HTTPException(404, _unknown(name, models))
        return _described(models, name)

    @app.post("/models/{name}/predict")
    def predict(name: str, request: PredictRequest) -> PredictResponse:
        served = models.served.get(name)
        if served is None:
            raise HTTPException(404, _unknown(name, models))
        return _answer(served, request, store)

    return app


def _answer(served: Served, request: PredictRequest, store: OnlineStore) -> PredictResponse:
    schema = served.bundle.schema
    if request.entities is not None:
        columns, as_of = from_entities(schema, request.entities, store)
    else:
        columns, as_of = from_rows(schema, request.rows or []), None
    scores = served.bundle.score(columns).tolist()
    return PredictResponse(model=served.version.model, version=served.version.number, scores=scores, as_of=as_of)


def _described(models: ServedModels, name: str) -> dict[str, Any]:
    served, refused = models.served.get(name), models.refused.get(name)
    description: dict[str, Any] = {"model": name, "version": None}
    if served:
        schema = served.bundle.schema
        description |= {
            "version": served.version.number,
            "digest": served.version.digest,
            "training_date": served.version.training_date,
            "since": served.since,
            # JSON has no NaN, which a figure without a value is.
            "metrics": {name: v if math.isfinite(v) else None for name, v in served.bundle.metrics.items()},
            "input": {"entities": schema.entities, "request": schema.request, "features": schema.features},
        }
    if refused:
        description["refused"] = {"version": refused.version.number, "reason": refused.reason}
    return description


def _unknown(name: str, models: ServedModels) -> str:
    served = ", ".join(sorted(models.served)) or "none yet: train and deploy one"
    return f"no model {name!r} is served; there are: {served}"
