"""The demo: land files, watch the sensors do the rest, ask the deployed model, and say whether all of it came true.

Nothing here materializes anything: it plays producer and client, and looks at what the platform made of it.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import date
from functools import cache

from rich.console import Console

from ml_platform.core import keys
from ml_platform.core.days import ONE_DAY
from ml_platform.core.errors import PlatformError, StackError
from ml_platform.core.settings import Settings
from ml_platform.data.landing import fingerprint
from ml_platform.local import stack
from ml_platform.local.producer import DailyFile, land
from ml_platform.local.story import Outcome, World, ask, describe, show
from ml_platform.local.watch import Patience, display, doing, failed_runs, stuck
from ml_platform.monitoring.retrain import Train
from ml_platform.resources.ledger import ARRIVAL
from ml_platform.resources.lineage import training_decision, view_is_current
from ml_platform.resources.verdict import verdict


def tell(settings: Settings, model: str, files: Sequence[DailyFile], console: Console) -> bool:
    """Run the demo; True if everything that it promises came true."""
    began = time.monotonic()
    outcome, world = Outcome(), World.at(settings, model)
    with running_stack(settings, console):
        try:
            arrived = watch_until_deployed(world, files, outcome, console)
            if arrived:
                ask(world, files, outcome)
        except PlatformError as error:
            outcome.failures.append(str(error))
    outcome.say("took", f"{time.monotonic() - began:.0f} s")
    show(outcome, settings, console)
    return not outcome.failures


# --- the stack --------------------------------------------------------------------------------------------------------


@contextmanager
def running_stack(settings: Settings, console: Console) -> Iterator[None]:
    """The stack: the one that is already running, or one that is started for the demo and stopped after it."""
    wanted = stack.parts(settings)
    if all(stack.is_healthy(part) for part in wanted):
        console.print("using the stack that is already running")
        yield
        return
    stack.check_ports(wanted)
    settings.home.mkdir(parents=True, exist_ok=True)
    log = settings.home / "logs" / "stack.log"
    log.parent.mkdir(exist_ok=True)
    environment = {**os.environ, **stack.variables(settings)}
    with log.open("w") as output, console.status(f"starting the stack (its log: {log})"):
        process = subprocess.Popen(
            [sys.executable, "-m", "ml_platform.cli", "dev"], stdout=output, stderr=output, env=environment
        )
        late = stack.wait_until_healthy(wanted, stack.START_TIMEOUT, give_up=lambda: process.poll() is not None)
    try:
        if late:
            last = log.read_text().strip().splitlines()[-1:] or ["it said nothing"]
            raise StackError(f"stack/{', '.join(late)}", f"did not become healthy: {last[0]}", f"read {log}")
        yield
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            process.wait()  # it ends what it started, each part within its grace


# --- watching ---------------------------------------------------------------------------------------------------------


def watch_until_deployed(world: World, files: Sequence[DailyFile], outcome: Outcome, console: Console) -> bool:
    """Land the files and wait for the platform to have made of them what it can; False if it stopped getting on."""
    failed_before = {*failed_runs(world.settings)}
    with display(console) as shown:
        days: dict[str, set[date]] = {}
        for number, (source, day, _) in enumerate(land(files, world.landing), 1):
            days.setdefault(source, set()).add(day)
            shown.show({"files landed": (number, len(files))})
        for source, landed_days in days.items():
            outcome.say(f"{source} landed", f"{len(landed_days)} days")

        landed, patience = landed_contents(world, files), Patience()
        while True:
            looked = time.monotonic()
            seen = stages(world, landed)
            shown.show(seen)
            if all(done >= total for done, total in seen.values()):
                describe(world, files, outcome)
                return True
            runs = doing(world.settings)
            if patience.is_over(seen, runs):
                failed = [run for run in failed_runs(world.settings) if run not in failed_before]
                outcome.failures.append(stuck(seen, runs, failed, world.settings))
                return False
            # A look reads hundreds of manifests: it must not take the machine from those who make them.
            time.sleep(max(1.0, 4 * (time.monotonic() - looked)))


def landed_contents(world: World, files: Sequence[DailyFile]) -> dict[str, dict[date, str]]:
    """What lies in the landing bucket for the days of the files: fingerprints by source and day."""
    return {
        source: {
            day: fingerprint(world.landing.of_day(world.catalog.feeds[source], day))
            for name, day, _ in files
            if name == source
        }
        for source in world.catalog.feeds
    }


def stages(world: World, landed: dict[str, dict[date, str]]) -> dict[str, tuple[int, int]]:
    """How far the platform is: per stage of the graph, how many partitions of how many are up to date."""
    progress: dict[str, tuple[int, int]] = {}
    for source, contents in landed.items():
        made = world.lake.manifests(keys.raw(source), contents)
        current = sum(made[day].tags.get(ARRIVAL) == content for day, content in contents.items() if day in made)
        progress[keys.raw(source)] = current, len(contents)
    snapshot_days = sorted(day + ONE_DAY for day in landed[world.spec.entity_rows])
    read = cache(world.lake.manifest)
    raw_done = all(done == total for done, total in progress.values())
    for view in world.catalog.snapshot_views(world.spec):
        current = sum(view_is_current(read, world.catalog, view, day) for day in snapshot_days) if raw_done else 0
        progress[keys.feature_view(view.name)] = current, len(snapshot_days)
    ready = all(done == total for done, total in progress.values())
    date_ = settled_training_date(world) if ready else None
    for key in (keys.training_set(world.model), keys.candidate(world.model), keys.evaluation(world.model)):
        progress[key] = int(date_ is not None and made_in_turn(world, key, date_)), 1
    progress[keys.deployment(world.model)] = int(date_ is not None and is_decided(world, date_)), 1
    return progress


def settled_training_date(world: World) -> date | None:
    """The last training date, once no other training is due."""
    if isinstance(training_decision(world.lake, world.catalog, world.spec), Train):
        return None
    return max(world.lake.days(keys.training_set(world.model)), default=None)


def made_in_turn(world: World, key: str, day: date) -> bool:
    """Whether the partition was made after, and from, what comes before it."""
    manifest = world.lake.manifest(key, day)
    if manifest is None:
        return False
    own = {keys.partition(name(world.model), day): name(world.model) for name in (keys.training_set, keys.candidate)}
    sources = [(one, own[one.name]) for one in manifest.inputs if one.name in own]
    return all(
        (current := world.lake.manifest(source, day)) is not None and current.content_hash == one.version
        for one, source in sources
    )


def is_decided(world: World, day: date) -> bool:
    """Whether the evaluated candidate is served, or was refused by a gate."""
    if not made_in_turn(world, keys.evaluation(world.model), day) or not made_in_turn(
        world, keys.candidate(world.model), day
    ):
        return False
    report, gates = verdict(world.spec, day, world.lake)
    if not all(gate.passed for gate in gates):
        return True
    status = world.server.status(world.model)
    return bool(status and status.get("digest") == report.bundle_digest)
