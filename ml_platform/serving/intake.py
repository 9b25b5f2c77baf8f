"""Bodies on their way in: each within its limit, and all large ones together within theirs."""

import asyncio
import time
from dataclasses import dataclass, field

from fastapi import HTTPException, Request

from ml_platform.serving.pace import Pace

LARGE_BODY = 64 << 10  # bytes from which on a body is nothing for the event loop
LARGE_PER_SECOND = 128 << 20  # bytes of large bodies together, so that the event loop has time for the others
SHORT = 0.002  # seconds for which it is not worth while to wait


@dataclass
class Body:
    """The body of one request, in the pieces in which it came. A large one counts until it is let go."""

    intake: "Intake"
    parts: list[bytes] = field(default_factory=list)
    size: int = 0

    @property
    def large(self) -> bool:
        return self.size > LARGE_BODY

    @property
    def held(self) -> int:
        """Bytes that count."""
        return self.size if self.large else 0

    def whole(self) -> bytes:
        return self.parts[0] if len(self.parts) == 1 else b"".join(self.parts)

    def take(self, part: bytes) -> None:
        before = self.held
        self.size += len(part)
        self.parts.append(part)
        self.intake.held += self.held - before

    def let_go(self) -> None:
        self.intake.held -= self.held
        self.parts, self.size = [], 0


class Intake:
    def __init__(self, most: int, most_together: int) -> None:
        """Bytes: of one body, and of all large ones that are being received or answered."""
        self.most = most
        self.most_together = most_together
        self.held = 0
        self._pace = Pace(LARGE_PER_SECOND)

    async def receive(self, request: Request) -> Body:
        """The body of a request; whoever gets it lets it go.

        Raises:
            HTTPException: 413 if it is larger than it may be, 503 if there is no room for it now, 415 if it is compressed.
        """
        headers = request.headers
        if (coding := headers.get("content-encoding", "identity")) != "identity":
            raise HTTPException(415, f"content-encoding: is {coding[:100]!r}. Next: send the body as it is")
        announced = headers.get("content-length", "0")
        self._check(int(announced) if announced.isdecimal() and len(announced) < 20 else 0)
        body = Body(self)
        try:
            async for part in request.stream():
                if part:
                    self._check(body.size + len(part), body.held)
                    body.take(part)
                    if body.large and (wait := self._pace.wait(len(part), time.monotonic())) > SHORT:
                        await asyncio.sleep(wait)
        except BaseException:
            body.let_go()
            raise
        return body

    def _check(self, size: int, already: int = 0) -> None:
        if size > self.most:
            raise HTTPException(413, f"request body: is larger than {self.most} bytes. Next: send several requests")
        if size > LARGE_BODY and self.held - already + size > max(self.most_together, self.most):
            problem = f"large bodies of {self.most_together} bytes are being answered already. Next: try again"
            raise HTTPException(503, problem, {"Retry-After": "1"})
