"""What every request passes before and after its endpoint: key, id, time limit, log and metrics. And the limit of bodies."""

import asyncio
import json
import logging
import os
import re
import secrets
import time
from collections.abc import Mapping

from fastapi import HTTPException, Request
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ml_platform.serving.metrics import Metrics

LOG = logging.getLogger("ml_platform.serving.requests")
TIMEOUT = 10.0  # seconds for a request, from its first byte
MAX_BODY = 32 << 20  # bytes
SLOW = 1.0  # seconds from which on a request is in the log though it went well
OPEN = ("/health", "/ready", "/metrics")  # asked by machines that have no key, and tell no data
REQUEST_ID = re.compile(rb"[\w.:/+=-]{1,128}")


class Guard:
    def __init__(self, app: ASGIApp, api_key: str | None, metrics: Metrics) -> None:
        self.app = app
        self.api_key = api_key.encode() if api_key else None
        self.metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began = time.perf_counter()
        headers = dict(scope["headers"])
        given = headers.get(b"x-request-id", b"")
        request_id = given if REQUEST_ID.fullmatch(given) else os.urandom(12).hex().encode()
        scope["request_id"] = request_id.decode()
        status = 0

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
                    await self.app(scope, receive, answer)
        except TimeoutError:
            if not status:
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


async def body_of(request: Request) -> bytes:
    """The body of a request, never more than `MAX_BODY` of it.

    Raises:
        HTTPException: 413 if it is larger.
    """
    announced = request.headers.get("content-length", "0")
    parts: list[bytes] = []
    size = int(announced) if announced.isdecimal() and len(announced) < 20 else 0
    if size <= MAX_BODY:
        size = 0
        async for part in request.stream():
            size += len(part)
            if size > MAX_BODY:
                break
            parts.append(part)
    if size > MAX_BODY:
        raise HTTPException(413, f"request body: is larger than {MAX_BODY} bytes. Next: send several requests")
    return parts[0] if len(parts) == 1 else b"".join(parts)
