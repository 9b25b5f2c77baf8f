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
from collections.abc import AsyncIterator, Callable
from dataclasses import asdict
from typing import Any

import pydantic_core
from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.responses import JSONResponse, PlainTextResponse
from fastapi_offline import FastAPIOffline
from starlette.routing import Route

from ml_platform.core import digest
from ml_platform.core.errors import FeatureError, PlatformError, RequestError
from ml_platform.core.settings import Settings, load_settings
from ml_platform.resources.lake import Lake
from ml_platform.resources.prediction_log import LogState, PredictionLog
from ml_platform.serving.answer import Desk
from ml_platform.serving.aside import Aside
from ml_platform.serving.guard import Guard
from ml_platform.serving.intake import Body, Intake
from ml_platform.serving.metrics import Metrics
from ml_platform.serving.models import Refused, Served, ServedModels, Serving
from ml_platform.serving.openapi import document
from ml_platform.serving.predicting import Form, Question
from ml_platform.serving.requests import parsed

LOG = logging.getLogger("ml_platform.serving")
SYNCHRONIZE_EVERY = 2.0  # seconds between looks at the registry: how long a new champion waits at most
STATUS = {RequestError: 422, FeatureError: 503}


def create_app(settings: Settings | None = None, metrics: Metrics | None = None, aside: Aside | None = None) -> FastAPI:
    """The application. Without the process `aside`, large bodies are answered in this one, where they keep others waiting."""
    settings, metrics = settings or load_settings(), metrics or Metrics()
    models = ServedModels.at(settings, metrics.batch)
    spool = settings.home / "prediction_log"
    log = PredictionLog(Lake.at(settings), spool, most_spooled=settings.prediction_log_spool)

    def logged() -> LogState:
        return log.state() + aside.log() if aside else log.state()

    desk = Desk(log, metrics)
    intake = Intake(settings.model_server_body, settings.model_server_bodies)
    metrics.watch(models, logged, lambda: intake.held)

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        stop = threading.Event()
        # Not of asyncio's pool, whose threads are waited for at the end: a registry may keep one waiting for a minute.
        threading.Thread(target=models.follow, args=(SYNCHRONIZE_EVERY, stop), name="follower", daemon=True).start()
        log.start()
        if aside:
            await aside.start()
        yield
        stop.set()
        await desk.finish()
        if aside:
            await aside.close()
        await asyncio.to_thread(log.close)

    # As FastAPI, but what its pages show comes from here, and not from elsewhere in the world.
    app = FastAPIOffline(title="ml_platform model server", version=digest.code_version(), lifespan=lifespan)
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

    _add_reading(app, models, metrics, logged)
    _add_predicting(app, models, Predictions(desk, intake, aside))
    return app


def _add_reading(app: FastAPI, models: ServedModels, metrics: Metrics, logged: Callable[[], LogState]) -> None:
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
            "prediction_log": asdict(logged()),
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


class Predictions:
    """Answers to requests for predictions: small bodies here, large ones aside."""

    def __init__(self, desk: Desk, intake: Intake, aside: Aside | None) -> None:
        self.desk = desk
        self.intake = intake
        self.aside = aside

    async def answer(self, request: Request, serving: Serving, form: Form) -> Response:
        scope = request.scope
        question = Question(form, scope["request_id"], scope["began"], _arm(request))
        type_ = request.headers.get("content-type", "application/json")
        if not type_.lower().startswith("application/json"):
            raise HTTPException(415, f"content-type: is {type_[:100]!r}. Next: send application/json")
        body = await self.intake.receive(request)
        if body.large and self.aside:
            reply = await self.aside.answer(question, serving, body)
            content, version, arm = reply.content, reply.version, reply.arm
        else:
            told = await question.answered(self.desk, serving, await self._read(body))
            content, version, arm = pydantic_core.to_json(told), told["version"] or "", told["arm"] or "both"
        scope["answered_by"] = scope["answered_by"][0], version, arm
        return Response(content, media_type="application/json")

    @staticmethod
    async def _read(body: Body) -> dict[str, Any]:
        try:
            return await asyncio.to_thread(parsed, body.whole()) if body.large else parsed(body.whole())
        finally:
            body.let_go()


def _add_predicting(app: FastAPI, models: ServedModels, predictions: Predictions) -> None:
    """The request path: plain routes, since what FastAPI does for an endpoint takes as long as a small model."""

    async def predict(request: Request) -> Response:
        return await predictions.answer(request, _serving(request, models, request.path_params["name"]), "predict")

    async def invocations(request: Request) -> Response:
        name = request.path_params.get("name") or request.query_params.get("model") or _only_model(models)
        return await predictions.answer(request, _serving(request, models, name), "invocations")

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
            "input": {
                "entities": schema.entities,
                "request": schema.request,
                "features": schema.features,
                "key": schema.key,
                "nullable": schema.nullable,
            },
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
