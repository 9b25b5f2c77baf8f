"""Thirty new champions while requests come in, and the share of a canary."""

import json
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks.figure import Figure
from benchmarks.load import Load, load
from benchmarks.served import MODEL, bodies_by_id, serving
from ml_platform.registry.versions import Version
from ml_platform.resources.model_server import ModelServer
from ml_platform.rollout.traffic import Traffic

SWAPS = 30
RATE = 300
SHARE, ENTITIES = 0.1, 100_000


def hot_swap() -> Iterator[Figure]:
    with tempfile.TemporaryDirectory() as folder, serving(Path(folder)) as world:
        versions = [world.register(seed) for seed in range(1, SWAPS + 1)]
        swapped: list[Version] = []

        def swap() -> None:
            for version in versions:
                world.promote(version)
                ModelServer.at(world.settings).wait_until_served(version)
                swapped.append(version)

        answered: set[str] = set()
        under_load = Load()
        swapping = threading.Thread(target=swap)
        swapping.start()
        while swapping.is_alive():
            part = load(
                world.url,
                f"/models/{MODEL}/predict",
                bodies_by_id(),
                5,
                RATE,
                answered=lambda body: answered.add(json.loads(body)["version"]),
            )
            under_load.milliseconds += part.milliseconds
            under_load.failures += part.failures
    yield Figure("hot_swap.swaps", len(swapped), "versions", SWAPS, at_least=True)
    yield Figure("hot_swap.versions_that_answered", len(answered), "versions", SWAPS, at_least=True)
    yield Figure("hot_swap.requests", len(under_load.milliseconds), "requests")
    yield Figure("hot_swap.failed_requests", len(under_load.failures), "requests", 0)
    yield Figure("hot_swap.p99", float(np.percentile(under_load.milliseconds, 99)), "ms")
    traffic = Traffic(versions[0], versions[1], SHARE, salt="benchmark")
    share = sum(traffic.arm(str(entity)) == "challenger" for entity in range(ENTITIES)) / ENTITIES
    yield Figure("hot_swap.canary_share_error", abs(share - SHARE), "of all entities", 0.01)
