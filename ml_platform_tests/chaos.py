"""Faults injected into a running stack, one after the other, at the stage where each hurts: `make chaos [ONLY=<words>]`.

Days land, something is broken on purpose, and nobody lends a hand. Healed means: every landed day is in the lake with the rows
that landed, Dagster knows each of them, the training that is due was decided, and the server serves what the registry says.
The table goes into docs/reliability.md.
"""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path

import psutil

from ml_platform.core import keys
from ml_platform.core.days import ONE_DAY
from ml_platform.core.settings import Settings
from ml_platform.examples.fraud.producer import simulated
from ml_platform.local import stack
from ml_platform.local.demo import landed_contents, stages
from ml_platform.local.producer import DailyTable, land
from ml_platform.local.story import World
from ml_platform.local.watch import doing
from ml_platform.resources.dagster_api import DagsterApi
from ml_platform_tests.processes import BIN, free_port

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "reliability.md"
MARK = "<!-- make chaos writes below -->"
PORTS = ("s3", "mlflow", "dagster", "model_server", "exporter")
FIRST_DAYS, CUSTOMERS, ALL_DAYS = 52, 300, 400
FEW, WEEK = 2, 7  # days that land with a fault: so few that nothing is trained, or so many that a training is due
AWAY = 120.0  # seconds that a part is away
PATIENCE = 900.0  # seconds after which a fault counts as not healed


@dataclass
class Result:
    fault: str
    healed: float | None
    wrong: list[str] = field(default_factory=list)

    def row(self) -> str:
        how = f"{self.healed:.0f} s" if self.healed is not None else f"**not within {PATIENCE:.0f} s**"
        return f"| {self.fault} | {how} | {'; '.join(self.wrong) or 'nothing lost, nothing doubled'} |"


@dataclass
class Chaos:
    """A stack, all days that may land, and how many of them have."""

    settings: Settings
    files: list[DailyTable]
    landed: int = 0
    process: subprocess.Popen | None = None

    @property
    def world(self) -> World:
        return World.at(self.settings)

    # --- the stack ----------------------------------------------------------------------------------------------------

    def start(self) -> None:
        self.settings.home.mkdir(parents=True, exist_ok=True)
        with (self.settings.home / "stack.log").open("ab") as log:
            environment = {**os.environ, **stack.variables(self.settings)}
            command = [str(BIN / "ml-platform"), "dev"]
            self.process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log)
        process = self.process
        late = stack.wait_until_healthy(stack.parts(self.settings), 600, lambda: process.poll() is not None)
        assert not late, f"{late} did not become healthy: {self.settings.home}/stack.log"

    def stop(self) -> None:
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(timeout=180)

    def processes(self, words: str = "") -> list[psutil.Process]:
        """Processes of this stack whose command has the words."""
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if process.environ().get("ML_PLATFORM_HOME") == str(self.settings.home) and process.pid != os.getpid():
                    found += [process] if words in " ".join(process.cmdline()) else []
        return found

    def kill(self, words: str) -> None:
        for process in self.processes(words):
            with suppress(psutil.Error):
                process.kill()

    def workers(self) -> list[psutil.Process]:
        """The processes of runs: they are spawned, and have a server that their steps are forked from."""
        return [one for one in self.processes("spawn_main") if _children(one, "forkserver")]

    def steps(self) -> list[psutil.Process]:
        return [
            step
            for worker in self.workers()
            for server in _children(worker, "forkserver")
            for step in server.children()
        ]

    @contextmanager
    def away(self, words: str) -> Iterator[None]:
        """A part that does not answer for a while, and holds its connections open."""
        stopped = self.processes(words)
        for process in stopped:
            process.suspend()
        yield
        for process in stopped:
            process.resume()

    # --- what lands, and what becomes of it ---------------------------------------------------------------------------

    def land(self, days: int) -> None:
        """Let the next days land, and their labels."""
        first = self.world.catalog.sources["transactions"].start_date
        newest = first + timedelta(days=self.landed + days)
        since = first + timedelta(days=self.landed)
        delay = timedelta(days=self.world.catalog.sources["fraud_labels"].delay_days)
        due = [
            one for one in self.files if since <= one[1] + (delay if one[0] == "fraud_labels" else ONE_DAY * 0) < newest
        ]
        list(land(due, self.world.landing))
        self.landed += days

    @property
    def there(self) -> list[DailyTable]:
        first = self.world.catalog.sources["transactions"].start_date
        newest = first + timedelta(days=self.landed)
        delay = timedelta(days=self.world.catalog.sources["fraud_labels"].delay_days)
        return [one for one in self.files if one[1] + (delay if one[0] == "fraud_labels" else ONE_DAY * 0) < newest]

    def running(self) -> set[str]:
        """Assets that runs are making, or are going to."""
        return {asset for run in doing(self.settings) for asset in run.assets}

    def wait_for(self, what: Callable[[], object], patience: float = PATIENCE) -> bool:
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline:
            with suppress(Exception):
                if what():
                    return True
            time.sleep(0.5)
        return False

    def stage(self, *assets: str) -> None:
        """Wait until a step works on one of the assets."""
        assert self.wait_for(lambda: self.running() & {*assets} and self.steps(), 600), f"no run makes {assets}"

    def is_settled(self) -> bool:
        contents = landed_contents(self.world, self.there)
        if not all(done >= total for done, total in stages(self.world, contents).values()):
            return False
        return not self.running() and not self.unknown()

    def unknown(self) -> list[str]:
        """Landed days that Dagster does not know as made."""
        lacking = []
        days: dict[str, set[date]] = {}
        for source, day, _ in self.there:
            days.setdefault(keys.raw(source), set()).add(day)
            if source == self.world.spec.entity_rows:
                for view in self.world.catalog.snapshot_views(self.world.spec):
                    days.setdefault(keys.feature_view(view.name), set()).add(day + ONE_DAY)
        for key, wanted in days.items():
            known = DagsterApi.at(self.settings).materialized_days(key)
            lacking += [keys.partition(key, day) for day in sorted(wanted - known)]
        return lacking

    def wrong(self) -> list[str]:
        """What is lost or doubled."""
        found = [f"Dagster does not know {one}" for one in self.unknown()[:3]]
        for source, day, table in self.there:
            manifest = self.world.lake.manifest(keys.raw(source), day)
            if manifest is None or manifest.rows != table.num_rows:
                found.append(f"{source} {day}: {manifest and manifest.rows} rows of {table.num_rows}")
        versions = self.world.registry.versions(MODEL)
        digests = [version.digest for version in versions]
        found += [f"version {v.number} is registered twice" for v in versions if digests.count(v.digest) > 1]
        return found


def _children(process: psutil.Process, words: str) -> list[psutil.Process]:
    with suppress(psutil.Error):
        return [child for child in process.children() if words in " ".join(child.cmdline())]
    return []


# --- faults -----------------------------------------------------------------------------------------------------------

RAW, VIEW = "transactions/raw", "features/customer_activity"
MODEL = "fraud_detection"
CANDIDATE, DEPLOYMENT = f"{MODEL}/candidate", f"{MODEL}/deployment"


def killed(words: str, days: int, *stage: str) -> Callable[[Chaos], None]:
    def fault(chaos: Chaos) -> None:
        chaos.land(days)
        chaos.stage(*stage)
        chaos.kill(words)

    return fault


def killed_run(days: int, *stage: str) -> Callable[[Chaos], None]:
    def fault(chaos: Chaos) -> None:
        chaos.land(days)
        chaos.stage(*stage)
        for worker in chaos.workers():
            worker.kill()

    return fault


def killed_step(days: int, *stage: str) -> Callable[[Chaos], None]:
    def fault(chaos: Chaos) -> None:
        chaos.land(days)
        chaos.stage(*stage)
        for step in chaos.steps():
            with suppress(psutil.Error):
                step.kill()

    return fault


def killed_run_after(table: Callable[[str], str]) -> Callable[[Chaos], None]:
    """The run of a training, when that much of it is made."""

    def fault(chaos: Chaos) -> None:
        before = len(chaos.world.lake.days(table(MODEL)))
        chaos.land(WEEK)
        assert chaos.wait_for(lambda: len(chaos.world.lake.days(table(MODEL))) > before), "no training came"
        for worker in chaos.workers():
            worker.kill()

    return fault


def part_away(words: str, days: int, *stage: str) -> Callable[[Chaos], None]:
    def fault(chaos: Chaos) -> None:
        chaos.land(days)
        chaos.stage(*stage)
        with chaos.away(words):
            time.sleep(AWAY)

    return fault


def power_cut(chaos: Chaos) -> None:
    chaos.land(WEEK)
    chaos.stage(CANDIDATE)
    for process in chaos.processes():
        with suppress(psutil.Error):
            process.kill()
    assert chaos.process is not None
    chaos.process.wait()
    chaos.start()


def stopped(chaos: Chaos) -> None:
    chaos.land(FEW)
    chaos.stage(VIEW)
    chaos.stop()
    chaos.start()


def disk_full(*stage: str, days: int) -> Callable[[Chaos], None]:
    def fault(chaos: Chaos) -> None:
        chaos.land(days)
        chaos.stage(*stage)
        filler = chaos.settings.home / "filler"
        with suppress(OSError), filler.open("wb") as file:
            while True:
                file.write(bytes(1 << 20))
        time.sleep(60)
        filler.unlink()

    return fault


def overwrites(chaos: Chaos) -> None:
    """The last of them is what landed in the beginning."""
    newest = max(day for source, day, _ in chaos.there if source == "transactions")
    (table,) = (table for source, day, table in chaos.there if (source, day) == ("transactions", newest))
    for number in range(20):
        rows = table if number == 19 else table.slice(0, table.num_rows - 1 - number)
        list(land([("transactions", newest, rows)], chaos.world.landing))
        time.sleep(3)


def three_at_once(chaos: Chaos) -> None:
    """The sensor, a backfill and a hand on the same days."""
    before = chaos.landed
    chaos.land(FEW)
    first = chaos.world.catalog.sources["transactions"].start_date + timedelta(days=before)
    api = DagsterApi.at(chaos.settings)
    for _ in range(2):
        api.launch_backfill({RAW: (first, first + ONE_DAY)})


def promoted_twice(chaos: Chaos) -> None:
    """The champion is promoted by two people at once, and rolled back by a third."""
    versions = [version.number for version in chaos.world.registry.versions(MODEL)][-2:]
    commands = [["promote", MODEL, version, "--force", "--reason", "chaos"] for version in versions] + [
        ["rollback", MODEL]
    ]
    environment = {**os.environ, **stack.variables(chaos.settings)}
    beside = [subprocess.Popen([str(BIN / "ml-platform"), *one], cwd=ROOT, env=environment) for one in commands]
    for one in beside:
        one.wait(timeout=300)


def many_days(chaos: Chaos) -> None:
    chaos.land(WEEK)
    chaos.stage(CANDIDATE)
    chaos.land(150)


FAULTS: dict[str, Callable[[Chaos], None]] = {
    "kill -9 of a run while days are ingested": killed_run(FEW, RAW),
    "kill -9 of a step while days are ingested": killed_step(FEW, RAW),
    "kill -9 of a run while features are computed": killed_run(FEW, VIEW),
    "kill -9 of a step while features are computed": killed_step(FEW, VIEW),
    "kill -9 of Dagster's daemon while features are computed": killed("dagster._daemon", FEW, VIEW),
    "kill -9 of the code server while days are ingested": killed("dagster api grpc", FEW, RAW),
    "kill -9 of the webserver while days are ingested": killed("dagster_webserver", FEW, RAW),
    "kill -9 of `dagster dev` while features are computed": killed("dagster dev", FEW, VIEW),
    "kill -9 of S3 while days are ingested": killed("rclone serve", FEW, RAW),
    "kill -9 of MLflow while a model is trained": killed("mlflow", WEEK, CANDIDATE),
    "kill -9 of the model server while a model is deployed": killed("serving.main", WEEK, DEPLOYMENT),
    "kill -9 of a training after its training set": killed_run_after(keys.training_set),
    "kill -9 of a training after its candidate": killed_run_after(keys.candidate),
    "kill -9 of a training after its evaluation": killed_run_after(keys.evaluation),
    "S3 does not answer for two minutes while days are ingested": part_away("rclone serve", FEW, RAW),
    "S3 does not answer for two minutes while features are computed": part_away("rclone serve", FEW, VIEW),
    "MLflow does not answer for two minutes while a model is trained": part_away("mlflow", WEEK, CANDIDATE),
    "a stop of the stack while features are computed, and a start": stopped,
    "a power cut while a model is trained, and a start": power_cut,
    "disk full for a minute while days are ingested": disk_full(RAW, days=FEW),
    "disk full for a minute while features are computed": disk_full(VIEW, days=FEW),
    "disk full for a minute while a model is trained": disk_full(CANDIDATE, days=WEEK),
    "twenty overwrites of a day in a minute": overwrites,
    "a backfill, another one and the sensor on the same days": three_at_once,
    "two promotions and a roll-back at once": promoted_twice,
    "150 days at once while a model is trained": many_days,
}


# --- the run ----------------------------------------------------------------------------------------------------------


def suffer(chaos: Chaos, fault: str) -> Result:
    FAULTS[fault](chaos)
    began = time.monotonic()
    healed = chaos.wait_for(chaos.is_settled)
    return Result(fault, time.monotonic() - began if healed else None, chaos.wrong())


@contextmanager
def small_disk() -> Iterator[Path]:
    """A home on a disk of its own, which may be filled; a folder where there is nobody to mount one."""
    with tempfile.TemporaryDirectory(prefix="chaos-") as folder:
        if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3g", "tmpfs", folder], check=False).returncode:
            print("no disk can be mounted: faults of a full disk are left out", file=sys.stderr)
            for name in [name for name in FAULTS if name.startswith("disk full")]:
                del FAULTS[name]
            yield Path(folder)
            return
        try:
            yield Path(folder)
        finally:
            subprocess.run(["umount", "--lazy", folder], check=True)


def main() -> int:
    words = " ".join(sys.argv[1:])
    results: list[Result] = []
    with small_disk() as folder:
        ports = {f"{name}_port": free_port() for name in PORTS}
        settings = Settings(home=folder / "home", **ports)  # type: ignore[arg-type]
        catalog = World.at(settings).catalog
        start, delay = (
            catalog.sources["transactions"].start_date,
            timedelta(days=catalog.sources["fraud_labels"].delay_days),
        )
        chaos = Chaos(settings, simulated(ALL_DAYS, CUSTOMERS, start, 7, delay))
        try:
            chaos.start()
            chaos.land(FIRST_DAYS)
            assert chaos.wait_for(chaos.is_settled, 1800), f"the first {FIRST_DAYS} days were not made"
            for fault in [name for name in FAULTS if words in name]:
                results.append(suffer(chaos, fault))
                print(results[-1].row(), flush=True)
        finally:
            chaos.stop()
    if not words:
        kept = PAGE.read_text().split(MARK)[0]
        table = ["| fault | healed by itself | |", "|---|---|---|", *(one.row() for one in results)]
        PAGE.write_text(f"{kept}{MARK}\n\n" + "\n".join(table) + "\n")
    return 0 if all(one.healed is not None and one.healed <= 300 and not one.wrong for one in results) else 1


if __name__ == "__main__":
    sys.exit(main())
