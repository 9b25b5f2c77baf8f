"""Process main of what answers large bodies (aside.py): `python -m ml_platform.serving.bulk`."""

import asyncio
import contextlib
import json
import logging
import os
import resource
import signal
import sys
from dataclasses import asdict
from typing import IO, Any

import pydantic_core

from ml_platform.core.errors import FeatureError, RegistryError, RequestError
from ml_platform.core.records import of
from ml_platform.core.settings import Settings, load_settings
from ml_platform.resources.lake import Lake
from ml_platform.resources.prediction_log import PredictionLog
from ml_platform.rollout.traffic import Traffic
from ml_platform.serving.answer import Desk
from ml_platform.serving.models import ServedModels
from ml_platform.serving.predicting import Question
from ml_platform.serving.probation import allocated
from ml_platform.serving.process import prepare
from ml_platform.serving.requests import parsed

LOG = logging.getLogger("ml_platform.serving")
MEMORY = 1 << 30  # bytes that one request may allocate
NICENESS = 10  # beside the server, which answers all others


class Remembered:
    """What is counted, until the server is told."""

    def __init__(self) -> None:
        self.events: list[tuple[Any, ...]] = []

    def failed(self, model: str, version: str, arm: str, rows: int) -> None:
        self.events.append(("failed", model, version, arm, rows))

    def shadow_skipped(self, model: str, rows: int) -> None:
        self.events.append(("shadow_skipped", model, rows))

    def batch(self, model: str, rows: int) -> None:
        self.events.append(("batch", model, rows))

    def told(self) -> list[tuple[Any, ...]]:
        events, self.events = self.events, []
        return events


class Bulk:
    def __init__(self, settings: Settings) -> None:
        self.counts = Remembered()
        self.models = ServedModels.at(settings, self.counts.batch)
        spool = settings.home / "prediction_log"
        self.log = PredictionLog(Lake.at(settings), spool, most_spooled=settings.prediction_log_spool)
        self.desk = Desk(self.log, self.counts)

    async def run(self, asked: asyncio.StreamReader, answers: IO[bytes]) -> None:
        """Answer until there is nothing more to come."""
        self.log.start()
        while line := await asked.readline():
            about = json.loads(line)
            said, content = await self._answer(about, await asked.readexactly(about["size"]))
            said |= {"size": len(content), "log": asdict(self.log.state()), "counts": self.counts.told()}
            answers.write(json.dumps(said).encode() + b"\n" + content)
            answers.flush()
        await self.desk.finish()
        await asyncio.to_thread(self.log.close)

    async def _answer(self, about: dict[str, Any], body: bytes) -> tuple[dict[str, Any], bytes]:
        try:
            serving = self.models.take(about["model"], of(Traffic, about["traffic"]))
            _limit(allocated() + MEMORY)
            content = await Question(**about["question"]).answered(self.desk, serving, parsed(body))
        except (RequestError, FeatureError) as error:
            return {"error": [type(error).__name__, error.subject, error.problem, error.next_step]}, b""
        except RegistryError as error:
            return {"error": ["unavailable", str(error)]}, b""
        except MemoryError:
            problem = f"needs more than {MEMORY >> 20} MB of memory"
            return {"error": ["RequestError", "request body", problem, "send several requests"]}, b""
        except Exception as error:  # the server tells the client that it is a fault
            LOG.exception("a large body cannot be answered")
            return {"error": [type(error).__name__, str(error)[:500]]}, b""
        finally:
            _limit(resource.RLIM_INFINITY)
        return {"version": content["version"] or "", "arm": content["arm"] or "both"}, pydantic_core.to_json(content)


def _limit(memory: int) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    with contextlib.suppress(ValueError):  # whoever started the server has set a lower one
        resource.setrlimit(resource.RLIMIT_DATA, (memory, hard))


async def _serve(answers: IO[bytes]) -> None:
    asked = asyncio.StreamReader(limit=1 << 20)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(asked), sys.stdin)
    await Bulk(load_settings()).run(asked, answers)


def main() -> None:
    prepare()
    # Who stops the server stops this too, but not before it has answered and written its log.
    for one in (signal.SIGINT, signal.SIGTERM):
        signal.signal(one, signal.SIG_IGN)
    os.nice(NICENESS)
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever a library prints is no answer
    asyncio.run(_serve(answers))


if __name__ == "__main__":
    main()
