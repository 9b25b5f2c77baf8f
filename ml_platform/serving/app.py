"""The model server's HTTP interface.

GET  /health                       the process lives
GET  /ready                        it knows who answers, and can
GET  /metrics                      for Prometheus
GET  /version                      of the code, and of every model
GET  /models, /models/{name}       what is served, what was refused, what a request must have
POST /models/{name}/predict        {"entities": [...]} looks features up; {"rows": [...]} brings them
POST /models/{name}/invocations    the same in MLflow's forms; at /invocations if there is one model, or with ?model=<name>
"""

import asyncio
import contextlib
import logging
import math
import threading
from collections.abc import AsyncIterator
from typing import Any

import pydantic_core
from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.responses import JSONResponse, PlainTextResponse
from starlette.routing import Route

from ml_platform.core import digest
from ml_platform.core.catalog import catalog_at
from ml_platform.core.errors import FeatureError, PlatformError, RequestError
from ml_platform.core.settings import Settings, load_settings
from ml_platform.resources.lake import Lake
from ml_platform.resources.online_store import online_store_at
from ml_platform.resources.prediction_log import PredictionLog
from ml_platform.resources.registry import Registry
from ml_platform.serving.answer import Answer, Asked, Desk
from ml_platform.serving.cache import BundleCache
from ml_platform.serving.guard import Guard, body_of
from ml_platform.serving.invocations import rows_of_invocation
from ml_platform.serving.metrics import Metrics
from ml_platform.serving.models import Refused, Served, ServedModels, Serving
from ml_platform.serving.openapi import document
from ml_platform.serving.requests import parsed, rows_of

LOG = logging.getLogger("ml_platform.serving")
SYNCHRONIZE_EVERY = 2.0  # seconds between looks at the registry: how long a new champion waits at most
LARGE_BODY = 64 << 10  # bytes from which on a body is read beside the event loop
STATUS = {RequestError: 422, FeatureError: 503}


def create_app(settings: Settings | None = None) -> FastAPI:
    settings = settings or load_settings()
    metrics = Metrics()
    cache = BundleCache(settings.home / "bundles")
    models = ServedModels(
        Registry.at(settings), online_store_at(settings), cache, plugins=_plugins(settings), on_batch=metrics.batch
    )
    log = PredictionLog(Lake.at(settings), settings.home / "prediction_log")
    metrics.watch(models, lambda: log.lost)
    desk = Desk(log, metrics)

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        stop = threading.Event()
        # Not of asyncio's pool, whose threads are waited for at the end: a registry may keep one waiting for a minute.
        threading.Thread(target=models.follow, args=(SYNCHRONIZE_EVERY, stop), name="follower", daemon=True).start()
        log.start()
        yield
        stop.set()
        await desk.finish()
        await asyncio.to_thread(log.close)

    app = FastAPI(title="ml_platform model server", version=digest.code_version(), lifespan=lifespan)
    app.state.models = models
    api_key = settings.api_key.get_secret_value() if settings.api_key else None
    app.add_middleware(Guard, api_key=api_key, metrics=metrics)
    app.openapi = lambda: document(app, models, bool(api_key))

    @app.exception_handler(PlatformError)
    async def _explain(_: Request, error: PlatformError) -> JSONResponse:
        status = STATUS.get(type(error), 500)
        if status >= 500:
            LOG.error("%s", error)
        return JSONResponse({"detail": str(error)}, status)

    _add_reading(app, models, metrics)
    _add_predicting(app, models, desk)
    return app


def _plugins(settings: Settings) -> frozenset[str]:
    """The trainers of one's own that the server's project declares; no bundle may bring others."""
    try:
        return catalog_at(settings).plugins
    except PlatformError as error:
        LOG.error("no trainers of the project can be loaded, only built-in ones: %s", error)
        return frozenset()


def _add_reading(app: FastAPI, models: ServedModels, metrics: Metrics) -> None:
    """What can be asked about the server."""

    @app.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "alive"}

    @app.get("/ready", responses={503: {"description": "It does not know yet who answers"}})
    async def ready() -> JSONResponse:
        refused = sorted({version.model for version in models.refused})
        content = {
            "ready": models.synchronized,
            "models": sorted(models.served),
            "refused": refused,
            "kept": sorted(models.kept),
            "registry_answered_seconds_ago": _since(models),
        }
        return JSONResponse(content, 200 if content["ready"] else 503)

    @app.get("/metrics", response_class=PlainTextResponse)
    async def show_metrics() -> Response:
        return PlainTextResponse(metrics.text())

    @app.get("/version")
    async def version() -> dict[str, Any]:
        serving = {name: one.champion.version.number for name, one in sorted(models.served.items())}
        return {"code": digest.code_version(), "models": serving}

    @app.get("/models")
    async def list_models() -> list[dict[str, Any]]:
        return [_described(models, name) for name in _known(models)]

    @app.get("/models/{name}", responses={404: {"description": "No such model is served"}})
    async def show_model(name: str) -> dict[str, Any]:
        if name not in _known(models):
            raise HTTPException(404, _unknown(name, models))
        return _described(models, name)


def _since(models: ServedModels) -> float | None:
    """Seconds since the registry last answered; None if it has not yet."""
    return None if models.looked_at is None else round(models.clock() - models.looked_at, 1)


def _add_predicting(app: FastAPI, models: ServedModels, desk: Desk) -> None:
    """The request path: plain routes, since what FastAPI does for an endpoint takes as long as a small model."""

    async def predict(request: Request) -> Response:
        serving = _serving(request, models, request.path_params["name"])
        content = await _content(request)
        if len(content) != 1 or (kind := next(iter(content))) not in ("entities", "rows"):
            raise RequestError("request body", "must have either `entities` or `rows`, and nothing else", "see /docs")
        rows, request_id = rows_of(content[kind], kind), request.scope["request_id"]
        asked = Asked(rows, kind == "entities", request_id, _arm(request))
        answer = await desk.answer(serving, asked)
        return await _response(request, _prediction(serving, answer))

    async def invocations(request: Request) -> Response:
        name = request.path_params.get("name") or request.query_params.get("model") or _only_model(models)
        serving = _serving(request, models, name)
        content = await _content(request)
        rows = rows_of_invocation(content, serving.champion.checker.order)
        answer = await desk.answer(serving, Asked(rows, None, request.scope["request_id"], _arm(request)))
        return await _response(request, {"predictions": answer.scores, **_by(answer)})

    # First of all routes, since they are tried in turn.
    app.router.routes[:0] = [
        Route("/models/{name}/predict", predict, methods=["POST"], include_in_schema=False),
        Route("/models/{name}/invocations", invocations, methods=["POST"], include_in_schema=False),
        Route("/invocations", invocations, methods=["POST"], include_in_schema=False),
    ]


def _serving(request: Request, models: ServedModels, name: str) -> Serving:
    serving = models.served.get(name)
    if serving is None:
        raise HTTPException(404, _unknown(name, models))
    request.scope["answered_by"] = name, "", ""
    return serving


def _only_model(models: ServedModels) -> str:
    if len(models.served) == 1:
        return next(iter(models.served))
    served = ", ".join(sorted(models.served)) or "none"
    raise RequestError("parameter 'model'", f"is missing, and the served models are {served}", "add ?model=<name>")


def _arm(request: Request) -> Any:
    arm = request.query_params.get("arm") if request.scope["query_string"] else None
    if arm not in (None, "champion", "challenger"):
        raise RequestError("parameter 'arm'", f"is {arm[:40]!r}, not champion or challenger", "leave it out")
    return arm


async def _content(request: Request) -> dict[str, Any]:
    type_ = request.headers.get("content-type", "application/json")
    if not type_.lower().startswith("application/json"):
        raise HTTPException(415, f"content-type: is {type_[:100]!r}. Next: send application/json")
    body = await body_of(request)
    return parsed(body) if len(body) < LARGE_BODY else await asyncio.to_thread(parsed, body)


async def _response(request: Request, content: dict[str, Any]) -> Response:
    request.scope["answered_by"] = (
        request.scope["answered_by"][0],
        content["version"] or "",
        content["arm"] or "both",
    )
    return Response(pydantic_core.to_json(content), media_type="application/json")


def _prediction(serving: Serving, answer: Answer) -> dict[str, Any]:
    model = serving.champion.version.model
    return {"model": model, **_by(answer), "scores": answer.scores, "as_of": answer.as_of or None}


def _by(answer: Answer) -> dict[str, Any]:
    """Who answered: version and arm of all rows, or of every row where they differ."""
    if len(set(answer.arms)) == 1:
        return {"version": answer.by[0].version.number, "arm": answer.arms[0]}
    each = [{"version": by.version.number, "arm": arm} for by, arm in zip(answer.by, answer.arms, strict=True)]
    return {"version": None, "arm": None, "answered_by": each}


def _known(models: ServedModels) -> list[str]:
    return sorted({*models.served, *(version.model for version in models.refused)})


def _described(models: ServedModels, name: str) -> dict[str, Any]:
    serving, wanted = models.served.get(name), models.wanted.get(name)
    description: dict[str, Any] = {"model": name, "version": None, "challenger": None}
    if name in models.kept:
        description["kept"] = models.kept[name]
    if serving:
        schema = serving.champion.bundle.schema
        description |= _version(serving.champion) | {
            # JSON has no NaN, which a figure without a value is.
            "metrics": {
                name: value if math.isfinite(value) else None for name, value in serving.champion.bundle.metrics.items()
            },
            "input": {"entities": schema.entities, "request": schema.request, "features": schema.features},
        }
        if serving.challenger:
            traffic = {"share": serving.traffic.share, "shadow": serving.traffic.shadow}
            description["challenger"] = _version(serving.challenger) | traffic
    if wanted and wanted.champion and (refused := models.refused.get(wanted.champion)):
        description["refused"] = _refusal(refused)
    if wanted and wanted.challenger and (refused := models.refused.get(wanted.challenger)):
        description["challenger"] = {"version": None, "refused": _refusal(refused)}
    return description


def _refusal(refused: Refused) -> dict[str, str]:
    return {"version": refused.version.number, "reason": refused.reason}


def _version(served: Served) -> dict[str, Any]:
    version = served.version
    return {
        "version": version.number,
        "digest": version.digest,
        "training_date": version.training_date,
        "since": served.since,
    }


def _unknown(name: str, models: ServedModels) -> str:
    served = ", ".join(sorted(models.served)) or "none yet: train and deploy one"
    return f"no model {name[:100]!r} is served; there are: {served}"
