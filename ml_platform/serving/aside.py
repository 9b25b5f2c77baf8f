"""Large bodies are answered in a process of their own, beside the server's.

Nothing else runs in a process of Python while a body of some megabytes is read, and what it becomes may take fifty times its
room. There it costs nobody else an answer. The process loads the versions that it is told to from the server's cache
of bundles, answers one request after the other, and writes a prediction log of its own. To it goes a line of JSON and the
body, and back a line of JSON and the content of the answer. It ends with its input.
"""

import asyncio
import contextlib
import json
import logging
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from fastapi import HTTPException

from ml_platform.core.errors import FeatureError, RequestError
from ml_platform.resources.prediction_log import LogState
from ml_platform.serving.answer import Counts
from ml_platform.serving.intake import Body
from ml_platform.serving.models import Serving
from ml_platform.serving.predicting import Question

LOG = logging.getLogger("ml_platform.serving")
COMMAND = (sys.executable, "-m", "ml_platform.serving.bulk")
MOST_WAITING = 32  # requests
WAIT = 8.0  # seconds for an answer; less than a request has at all
LONGEST = 30.0  # seconds after which the process is ended that does not answer
ENDS_WITHIN = 15.0
ERRORS = {"RequestError": RequestError, "FeatureError": FeatureError}
COUNTED = ("failed", "shadow_skipped", "batch")


@dataclass(frozen=True)
class Reply:
    """The content of an answer as JSON, and who gave it: version and arm, empty where several did."""

    content: bytes
    version: str
    arm: str


class Aside:
    """The process, seen from the server."""

    def __init__(self, counts: Counts, command: Sequence[str] = COMMAND) -> None:
        self.counts = counts
        self.command = command
        self._log = LogState()
        self._lost = 0  # rows of processes that died
        self._process: asyncio.subprocess.Process | None = None
        self._turn = asyncio.Lock()
        self._waiting = 0
        self._exchanges: set[asyncio.Task[Reply]] = set()

    def log(self) -> LogState:
        """How its prediction log does, as far as it has said."""
        return self._log + LogState(self._lost)

    async def start(self) -> None:
        """Start the process ahead of the first large body."""
        async with self._turn:
            await self._running()

    async def answer(self, question: Question, serving: Serving, body: Body) -> Reply:
        """The answer to a request with a large body, which is let go when it has been answered.

        Raises:
            RequestError, FeatureError: as where the body is answered here.
            HTTPException: 503 if there is no answer within `WAIT` seconds, or too many wait already.
        """
        if self._waiting >= MOST_WAITING:
            body.let_go()
            raise _unavailable(f"{MOST_WAITING} requests with large bodies wait already")
        self._waiting += 1
        try:
            async with asyncio.timeout(WAIT):
                try:
                    await self._turn.acquire()
                except BaseException:
                    body.let_go()
                    raise
                # It goes on if nobody waits for it any more: the process cannot be told to stop.
                exchange = asyncio.create_task(self._exchange(question, serving, body))
                self._exchanges.add(exchange)
                exchange.add_done_callback(self._done)
                return await asyncio.shield(exchange)
        except TimeoutError as error:
            raise _unavailable("other requests with large bodies are being answered") from error
        finally:
            self._waiting -= 1

    def _done(self, exchange: asyncio.Task[Reply]) -> None:
        self._exchanges.discard(exchange)
        self._turn.release()
        if not exchange.cancelled():
            exchange.exception()  # which was raised where somebody waited for it

    async def close(self) -> None:
        """Let the process write its log and end."""
        await asyncio.gather(*self._exchanges, return_exceptions=True)
        if self._process is None:
            return
        assert self._process.stdin is not None, "it has a pipe"
        self._process.stdin.close()
        try:
            async with asyncio.timeout(ENDS_WITHIN):
                await self._process.wait()
        except TimeoutError:
            await self._end("it does not end")

    async def _running(self) -> asyncio.subprocess.Process:
        if self._process is None or self._process.returncode is not None:
            pipe = asyncio.subprocess.PIPE
            self._process = await asyncio.create_subprocess_exec(*self.command, stdin=pipe, stdout=pipe, limit=1 << 20)
        return self._process

    async def _exchange(self, question: Question, serving: Serving, body: Body) -> Reply:
        asked = {
            "question": asdict(question),
            "model": serving.champion.version.model,
            "traffic": serving.actual.to_json(),
            "size": body.size,
        }
        try:
            async with asyncio.timeout(LONGEST):
                process = await self._running()
                assert process.stdin is not None, "it has pipes"
                assert process.stdout is not None, "it has pipes"
                process.stdin.write(json.dumps(asked).encode() + b"\n")
                for part in body.parts:
                    process.stdin.write(part)
                    await process.stdin.drain()
                said = json.loads(await process.stdout.readline())
                content = await process.stdout.readexactly(said["size"])
        except (OSError, TimeoutError, ValueError, KeyError, TypeError, asyncio.IncompleteReadError) as error:
            await self._end(f"{type(error).__name__}: {error}")
            raise _unavailable("the process that answers large bodies has ended") from error
        finally:
            body.let_go()
        self._log = LogState(**said["log"])
        for name, *of in said["counts"]:
            if name in COUNTED:
                getattr(self.counts, name)(*of)
        return _reply(said, content)

    async def _end(self, why: str) -> None:
        """End the process; what its log had in memory is lost, and counted."""
        process, self._process = self._process, None
        if process is None:
            return
        LOG.error("the process that answers large bodies is ended, with %d rows of its log: %s", self._log.waiting, why)
        self._lost += self._log.lost + self._log.waiting
        self._log = LogState()
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


def _reply(said: dict[str, Any], content: bytes) -> Reply:
    """What the process said, or the error that it met."""
    if "error" not in said:
        return Reply(content, said["version"], said["arm"])
    kind, *words = said["error"]
    if kind in ERRORS:
        raise ERRORS[kind](*words)
    if kind == "unavailable":
        raise _unavailable(words[0])
    raise RuntimeError(f"in the process that answers large bodies: {kind}: {words[0]}")


def _unavailable(problem: str) -> HTTPException:
    return HTTPException(503, f"{problem}. Next: try again", {"Retry-After": "1"})
