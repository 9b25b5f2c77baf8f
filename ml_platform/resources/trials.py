"""Records of a search in the lake, where every process and pod finds them.

While a search is under way: `<lake>/<model>/trial_records/date=YYYY-MM-DD/<fingerprint>/<trial>.json`, each written by that
trial alone. Once it is over: the partition of `<model>/trials`, with one file per searched candidate that has all of its
records. A search with the same fingerprint goes on from either.
"""

import logging
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import date

import pyarrow.fs as pafs

from ml_platform.core import digest, keys
from ml_platform.core.catalog import Catalog
from ml_platform.core.errors import LakeError, TrainingError
from ml_platform.core.records import read
from ml_platform.core.spec import ModelSpec
from ml_platform.registry.trial import tuned
from ml_platform.resources.lake import READERS, Lake
from ml_platform.resources.manifest import Input, Manifest
from ml_platform.training.trials import Outcome, Record
from ml_platform.training.windows import search_windows

LOG = logging.getLogger(__name__)


class LakeTrials:
    """The records of one candidate's search."""

    def __init__(self, lake: Lake, model: str, position: int, day: date, fingerprint: str) -> None:
        self.lake = lake
        self.model = model
        self.position = position
        self.day = day
        self.fingerprint = fingerprint
        self.folder = f"{_folder(lake, model, day)}/{fingerprint}"

    def records(self) -> dict[str, Record]:
        """By trial, those of a search with this fingerprint that is already over included.

        Raises:
            LakeError: if the lake cannot be read.
        """
        before = outcomes(self.lake, self.model, self.day).get(self.position)
        over = before.records if before and before.fingerprint == self.fingerprint else ()
        return {record.trial: record for record in (*over, *self._under_way())}

    def write(self, record: Record) -> None:
        """Put a record in place of the trial's former one.

        Raises:
            LakeError: if the lake cannot be written.
        """
        with _translated(self.lake, self.model, self.day):
            self.lake.put(f"{self.folder}/{record.trial}.json", record.model_dump_json(indent=1).encode())

    def _under_way(self) -> Iterator[Record]:
        prefix = keys.trial(self.position, 0).rpartition("_")[0] + "_"
        with _translated(self.lake, self.model, self.day):
            paths = [path for path in _files(self.lake, self.folder) if path.rpartition("/")[2].startswith(prefix)]
            with ThreadPoolExecutor(READERS) as pool:
                contents = list(pool.map(self._read, paths))
        for path, content in zip(paths, contents, strict=True):
            try:
                yield read(Record, content)
            except ValueError:  # some S3 servers answer a reader with half of what is being written
                LOG.warning("%s is no record of a trial: left out", path)

    def _read(self, path: str) -> bytes:
        try:
            with self.lake.filesystem.open_input_stream(path) as stream:
                return stream.readall()
        except FileNotFoundError:  # the search was concluded meanwhile
            return b""


def fingerprint(spec: ModelSpec, catalog: Catalog, position: int, day: date, training_set: str) -> str:
    """Digest of all that decides what a trial with given params results in, and which params it is given.

    How many trials there are is not part of it, so that a search can be made longer.
    """
    candidate = spec.candidates[position - 1]
    assert candidate.search, "only a candidate with a search is asked"
    views = [*catalog.daily_views(spec), *catalog.request_views(spec)]
    split = search_windows(spec.training, catalog.label_delay(spec), day)
    content = {
        "training_set": training_set,
        "features": {view.name: view.model_dump(mode="json")["features"] for view in views},
        "task": spec.task,
        "select_by": spec.select_by,
        "days": [*split.train, *split.validation],
        "seed": spec.training.seed,
        "cold_start_share": spec.training.cold_start_share,
        "candidate": [position, candidate.trainer, candidate.params],
        "search": [candidate.search.how, candidate.search.prune, candidate.search.model_dump(mode="json")["space"]],
        "code": digest.code_version(("**/*.py",)),
    }
    return digest.of_json(content)[:16]


def outcomes(lake: Lake, model: str, day: date) -> dict[int, Outcome]:
    """The searches of a training date that are over, by the candidate's position; none if there is no such partition."""
    if lake.manifest(keys.trials(model), day) is None:
        return {}
    files = lake.read_files(keys.trials(model), day)
    return {int(name.removesuffix(".json")): read(Outcome, content) for name, content in files.items()}


def conclude(
    lake: Lake, model: str, day: date, over: Mapping[int, Outcome], inputs: list[Input], tags: Mapping[str, str]
) -> Manifest:
    """Write the searches of a training date, which are over, as the partition; the single records are in there."""
    files = {f"{position}.json": outcome.model_dump_json(indent=1).encode() for position, outcome in over.items()}
    manifest = lake.write_files(keys.trials(model), day, files, inputs, tags)
    with _translated(lake, model, day):
        for path in _files(lake, _folder(lake, model, day)):
            lake.delete(path)
    return manifest


def with_winners(spec: ModelSpec, lake: Lake, day: date) -> ModelSpec:
    """The model with the params that its searches have found.

    Raises:
        TrainingError: if a search is not over, or was made on another training set or over other params.
    """
    if not spec.searched:
        return spec
    training_set = lake.require(keys.training_set(spec.name), day).content_hash
    over, candidates = outcomes(lake, spec.name, day), list(spec.candidates)
    for position, candidate in spec.searched.items():
        found, subject = over.get(position), keys.partition(keys.trials(spec.name), day)
        next_step = f"materialize {keys.trials(spec.name)} as of {day}"
        if found is None or found.candidate != candidate.model_dump(mode="json"):
            raise TrainingError(subject, f"there is no search of candidate {position} as it is now", next_step)
        if found.training_set != training_set:
            raise TrainingError(subject, "the search was made on another training set", next_step)
        candidates[position - 1] = tuned(candidate, found.best.params)
    return spec.model_copy(update={"candidates": tuple(candidates)})


def _folder(lake: Lake, model: str, day: date) -> str:
    return lake.day_folder(keys.trial_records(model), day)


def _files(lake: Lake, folder: str) -> list[str]:
    selector = pafs.FileSelector(folder, allow_not_found=True, recursive=True)
    return [info.path for info in lake.filesystem.get_file_info(selector) if info.extension == "json"]


@contextmanager
def _translated(lake: Lake, model: str, day: date) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        subject, problem = keys.partition(keys.trials(model), day), f"the lake at {lake.root} failed: {error}"
        raise LakeError(subject, problem, "look after ML_PLATFORM_LAKE") from error
