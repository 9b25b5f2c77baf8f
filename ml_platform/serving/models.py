"""What the server serves: the loaded versions of every model, following the registry."""

import logging
import threading
import time
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial

from ml_platform.core.catalog import catalog_at
from ml_platform.core.errors import BundleError, FeatureError, PlatformError, RegistryError
from ml_platform.core.settings import Settings
from ml_platform.registry.bundle import Bundle, unpack
from ml_platform.registry.versions import Version
from ml_platform.resources.online_store import OnlineStore, SqliteStore, online_store_at
from ml_platform.resources.registry import Registry
from ml_platform.rollout.traffic import Traffic
from ml_platform.serving.batching import Batcher
from ml_platform.serving.cache import BundleCache
from ml_platform.serving.probation import Probation, self_test
from ml_platform.serving.requests import MAX_STRING, Checker
from ml_platform.serving.scoring import score_together

LOG = logging.getLogger("ml_platform.serving")
TRY_AGAIN = 60.0  # seconds after which a version that could not be loaded, for what may pass, is loaded again
MOST_SHADOWED = 2_000  # rows that wait for a shadow; beyond, they are not scored


@dataclass(frozen=True, eq=False)
class Served:
    """A version that answers requests. Those in flight keep it until they are answered, whatever replaces it."""

    version: Version
    bundle: Bundle
    since: float
    checker: Checker
    batcher: Batcher
    shadow: Batcher


@dataclass(frozen=True)
class Serving:
    """Who answers one model: the loaded champion, and its challenger if that is loaded too."""

    champion: Served
    challenger: Served | None
    traffic: Traffic

    @property
    def actual(self) -> Traffic:
        """The traffic as it is: with the versions that are loaded."""
        challenger = self.challenger.version if self.challenger else None
        return replace(self.traffic, champion=self.champion.version, challenger=challenger)


@dataclass(frozen=True)
class Refused:
    """A version that the registry wants served, and why it is not; from the moment `until` on it is tried again."""

    version: Version
    reason: str
    until: float = float("inf")


@dataclass
class ServedModels:
    """The loaded models. A swap is one assignment: a request sees the old state or the new one, never a mixture."""

    registry: Registry
    store: OnlineStore
    cache: BundleCache
    plugins: Collection[str] = ()
    probation: Callable[[Mapping[str, bytes], str, Collection[str]], None] = field(default_factory=Probation)
    on_batch: Callable[[str, int], None] = lambda model, rows: None
    most_characters: int = MAX_STRING  # of a string in a request
    clock: Callable[[], float] = time.time
    served: dict[str, Serving] = field(default_factory=dict)
    wanted: dict[str, Traffic] = field(default_factory=dict)
    refused: dict[Version, Refused] = field(default_factory=dict)
    kept: dict[str, str] = field(default_factory=dict)  # models that are served as before, and why
    synchronized: bool = False
    looked_at: float | None = None  # when the registry last answered
    pool: Executor = field(default_factory=lambda: ThreadPoolExecutor(2, "scoring"))
    shadow_pool: Executor = field(default_factory=lambda: ThreadPoolExecutor(1, "shadow"))
    _remembered: dict[str, Traffic] | None = None

    @classmethod
    def at(cls, settings: Settings, on_batch: Callable[[str, int], None]) -> "ServedModels":
        """None yet, of the registry, the online store and the cache in the settings."""
        return cls(
            Registry.at(settings),
            online_store_at(settings),
            BundleCache(settings.home / "bundles"),
            plugins=_plugins(settings),
            on_batch=on_batch,
            most_characters=settings.model_server_string,
        )

    def take(self, model: str, traffic: Traffic) -> Serving:
        """Serve exactly this, whatever the registry says.

        Raises:
            RegistryError: if one of the versions cannot be loaded now.
        """
        self.wanted = {**self.wanted, model: traffic}
        serving = self._serving(model, traffic)
        if serving is None or serving.actual != traffic:
            raise RegistryError(f"{model}/deployment", "a version cannot be loaded", "try again")
        self.served[model] = serving
        return serving

    def follow(self, every: float, stop: threading.Event) -> None:
        """Keep serving what the registry says, until `stop`."""
        while not stop.is_set():
            try:
                self.synchronize()
            except PlatformError as error:
                LOG.warning("%s", error)
            except Exception:  # whatever it is, the loop must live: without it no new champion is ever served
                LOG.exception("cannot follow the registry")
            stop.wait(every)

    def synchronize(self) -> None:
        """Serve what the registry says. What cannot be loaded is refused, and the old one stays.

        A server that has just started and cannot ask the registry serves what it served before.

        Raises:
            RegistryError: if the registry cannot be asked; everything stays as it is.
        """
        if self._remembered is None:
            self._remembered = self.cache.remembered()
        unreadable: dict[str, RegistryError] = {}
        try:
            traffic = self.registry.traffic(unreadable)
        except Exception:
            if not self.synchronized and self._remembered:
                self._take_all(self._remembered)
            raise
        # A model of which the registry makes no sense is served as before, and so is one whose version was deleted there.
        kept = {model: str(error) for model, error in unreadable.items()}
        for model in self.served.keys() - traffic.keys() - kept.keys():
            version = self.served[model].champion.version
            if self.registry.find(version.model, version.number) is None:
                kept[model] = f"{version.label} was deleted in the registry; it is served until another is deployed"
        for model, reason in kept.items():
            if self.kept.get(model) != reason:
                LOG.warning("%s is served as before: %s", model, reason)
            if before := self.wanted.get(model) or self._remembered.get(model):
                traffic[model] = before
        self.kept, self.looked_at = kept, self.clock()
        self._take_all({model: one for model, one in traffic.items() if one.champion})
        serving = {model: one.actual for model, one in self.served.items()}
        if serving != self._remembered:
            self.cache.remember(serving)
            self._remembered = serving
            self.cache.prune({v.digest for t in serving.values() for v in (t.champion, t.challenger) if v})

    def _take_all(self, wanted: dict[str, Traffic]) -> None:
        versions = {v for traffic in wanted.values() for v in (traffic.champion, traffic.challenger) if v}
        self.refused = {version: why for version, why in self.refused.items() if version in versions}
        self.wanted = wanted
        for model, traffic in wanted.items():
            if serving := self._serving(model, traffic):
                self.served[model] = serving
        for model in self.served.keys() - wanted.keys():
            del self.served[model]
            LOG.info("%s has no champion any more", model)
        self.synchronized = True

    def _serving(self, model: str, traffic: Traffic) -> Serving | None:
        """What is to answer a model from now on; None leaves it as it is."""
        now = self.served.get(model)
        champion = self._loaded(traffic.champion, now) or (now.champion if now else self._former(model))
        challenger = self._loaded(traffic.challenger, now)
        if champion is None:
            return None
        if challenger is None:
            traffic = replace(traffic, challenger=None)
        if now and (now.champion, now.challenger, now.traffic) == (champion, challenger, traffic):
            return now
        return Serving(champion, challenger, traffic)

    def _former(self, model: str) -> Served | None:
        """What answered before a restart, where what should answer cannot be loaded."""
        former = (self._remembered or {}).get(model)
        return self._loaded(former.champion, None) if former else None

    def _loaded(self, version: Version | None, now: Serving | None) -> Served | None:
        """The version, ready to answer; None if it cannot."""
        for known in (now.champion, now.challenger) if now else ():
            if known and known.version == version:
                return known
        if version is None or ((refused := self.refused.get(version)) and self.clock() < refused.until):
            return None
        try:
            served = self._load(version)
        except RegistryError as error:  # it may answer the next time
            LOG.warning("cannot load %s: %s", version.label, error)
            return None
        except BundleError as error:  # it will be the same bundle the next time
            self._refuse(version, error, float("inf"))
            return None
        except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever it was, the other models go on, and this one may yet
            self._refuse(version, error, self.clock() + TRY_AGAIN)
            return None
        self.refused.pop(version, None)
        LOG.info("loaded %s (bundle %s)", version.label, version.digest[:12])
        return served

    def _refuse(self, version: Version, error: BaseException, until: float) -> None:
        self.refused[version] = Refused(version, f"{type(error).__name__}: {error}", until)
        LOG.warning("refused %s: %s", version.label, error)

    def _load(self, version: Version) -> Served:
        known = self.cache.load(version)  # it was on probation when it came
        files = known or self.registry.download(version)
        if known is None:
            self.probation(files, version.label, self.plugins)
        bundle = unpack(files, version.label, self.plugins)
        self_test(bundle, version.label)
        self._warm(bundle)
        if known is None:
            self.cache.save(version, files)
        checker = Checker(bundle.schema, self.most_characters)
        score = partial(score_together, bundle, checker, self.store)
        inline = isinstance(
            self.store, SqliteStore
        )  # others are behind a network, which may keep the event loop waiting
        on_batch = partial(self.on_batch, version.model)
        batcher = Batcher(score, self.pool, on_batch, inline)
        shadow = Batcher(score, self.shadow_pool, on_batch, inline=False, most=MOST_SHADOWED)
        return Served(version, bundle, self.clock(), checker, batcher, shadow)

    def _warm(self, bundle: Bundle) -> None:
        """Have the online store opened before requests wait for that: the first look-up by Feast takes seconds."""
        for view in bundle.schema.views:
            try:
                self.store.read(view.name, view.entity, ["" if view.entity_type == "string" else 0], view.features)
            except FeatureError as error:  # who asks by id is told so; rows need no store
                LOG.warning("%s", error)
                return


def _plugins(settings: Settings) -> frozenset[str]:
    """The trainers of one's own that the server's project declares; no bundle may bring others."""
    try:
        return catalog_at(settings).plugins
    except PlatformError as error:
        LOG.error("no trainers of the project can be loaded, only built-in ones: %s", error)
        return frozenset()
