"""What every request passes before and after its endpoint: key, id, time limit, log and metrics."""

import asyncio
import json
import logging
import os
import re
import secrets
import time
from collections.abc import Mapping

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ml_platform.serving.metrics import Metrics

LOG = logging.getLogger("ml_platform.serving.requests")
TIMEOUT = 10.0  # seconds for a request, from its first byte
SLOW = 1.0  # seconds from which on a request is in the log though it went well
OPEN = ("/health", "/ready", "/metrics")  # asked by machines that have no key, and tell no data
REQUEST_ID = re.compile(rb"[\w.:/+=-]{1,128}")


class Guard:
    def __init__(self, app: ASGIApp, api_key: str | None, metrics: Metrics) -> None:
        self.app = app
        self.api_key = api_key.encode() if api_key else None
        self.metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close"})  # nothing is spoken here but HTTP
            return
        began = scope["began"] = time.perf_counter()
        headers = dict(scope["headers"])
        given = headers.get(b"x-request-id", b"")
        request_id = given if REQUEST_ID.fullmatch(given) else os.urandom(12).hex().encode()
        scope["request_id"] = request_id.decode()
        status, owing = 0, False

        async def hear() -> Message:
            nonlocal owing
            owing = True
            message = await receive()
            owing = False
            return message

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), (b"x-request-id", request_id)]
            await send(message)

        failure: Exception | None = None
        try:
            if not self._may_pass(scope["path"], headers):
                await refuse(answer, 401, "give the API key: `Authorization: Bearer <key>` or `X-API-Key: <key>`")
            else:
                async with asyncio.timeout(TIMEOUT):
                    await self.app(scope, hear, answer)
        except TimeoutError:
            if not status and owing:
                await refuse(answer, 408, f"request body: was not there within {TIMEOUT:g} s")
            elif not status:
                await refuse(answer, 504, f"there was no answer within {TIMEOUT:g} s")
        except ClientDisconnect:
            status = status or 499  # nobody is there to be answered
        except Exception as error:  # noqa: BLE001  # it is in the log, and the client is told where to look
            failure = error
            if not status:
                await refuse(
                    answer, 500, f"this is a fault of the server; its log has it as request {scope['request_id']}"
                )
        self._note(scope, status, time.perf_counter() - began, failure)

    def _may_pass(self, path: str, headers: Mapping[bytes, bytes]) -> bool:
        if self.api_key is None or path in OPEN:
            return True
        bearer = headers.get(b"authorization", b"")
        given = bearer[7:] if bearer[:7].lower() == b"bearer " else headers.get(b"x-api-key", b"")
        return secrets.compare_digest(given, self.api_key)

    def _note(self, scope: Scope, status: int, seconds: float, failure: Exception | None) -> None:
        model, version, arm = scope.get("answered_by", (None, "", ""))
        if model is not None:
            self.metrics.requests.labels(model, version, arm, status).inc()
            self.metrics.seconds.labels(model, arm).observe(seconds)
        level = logging.ERROR if failure or status >= 500 else logging.INFO
        if (status < 400 and seconds < SLOW and not failure) and not LOG.isEnabledFor(level := logging.DEBUG):
            return
        about = {
            "request_id": scope["request_id"],
            "method": scope["method"],
            "path": scope["path"],
            "status": status,
            "milliseconds": round(seconds * 1_000, 3),
            **({"model": model, "version": version, "arm": arm} if model is not None else {}),
        }
        LOG.log(level, "%s %s %d", scope["method"], scope["path"], status, extra={"about": about}, exc_info=failure)


async def refuse(send: Send, status: int, detail: str) -> None:
    headers = [(b"content-type", b"application/json")]
    if status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": json.dumps({"detail": detail}).encode()})
