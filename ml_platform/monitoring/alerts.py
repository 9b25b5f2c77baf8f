"""Alerts: what is wrong now, whom to tell of it, and what was told already. Observations and a clock go in, messages come out.

An alert is open from the first look that sees it to the first ones that do not. Each channel is told once that it is, with
all that has the same cause, and once that it is over. What follows from another open alert waits for that one's end.
"""

import hashlib
import json
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from fnmatch import fnmatchcase
from typing import Any, TypeVar

from ml_platform.core.records import of
from ml_platform.core.spec.alerts import AlertKind, Severity

_T = TypeVar("_T")
SETTLED = 60.0  # seconds that an alert is not seen before it is over: what comes and goes is one alert
FIRST_DELAY, LONGEST_DELAY = 30.0, 3600.0  # seconds between two tries of a channel
PARTS = 1_000  # parts of one alert that are kept
MESSAGES = 20  # of one channel at a time; the others are next
# What differs between two reports of one fault: what it quotes, days, ids, numbers.
_PARTICULAR = re.compile(r"'[^']*'|\"[^\"]*\"|\[\d{4}-\d\d-\d\d[^\]]*\]|\b[0-9a-f]{8,}\b|\d[\d.,:%_-]*", re.I)

# By these somebody is hurt now, or nothing goes on. All other kinds are warnings.
CRITICAL: frozenset[AlertKind] = frozenset(
    (
        "data_late",
        "contract_broken",
        "rollback",
        "online_store_stale",
        "sensor_dead",
        "daemon_dead",
        "channel_broken",
    )
)

Channels = Callable[["Alert"], Collection[str]]  # the names of an alert's channels


@dataclass(frozen=True)
class Alert:
    """Something that is wrong, as a look has found it.

    `subject` names the thing (an asset's key, a sensor, a channel), `about` whose it is: sources, views and models. `cause`
    tells apart what is wrong with one subject; by default it is the reason without its figures. `follows_from` are the
    subjects by whose trouble it is explained, which includes whatever explains those. `patience` are the seconds that it
    lasts before anybody is told.
    """

    kind: AlertKind
    subject: str
    reason: str
    cause: str = ""
    value: str = ""
    limit: str = ""
    parts: tuple[str, ...] = ()
    link: str = ""
    next_step: str = ""
    about: tuple[str, ...] = ()
    owners: tuple[str, ...] = ()
    follows_from: tuple[str, ...] = ()
    patience: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "cause", self.cause or " ".join(_PARTICULAR.sub("*", self.reason).split()))
        object.__setattr__(self, "parts", tuple(sorted(set(self.parts)))[-PARTS:])

    @property
    def severity(self) -> Severity:
        return "critical" if self.kind in CRITICAL else "warning"

    @property
    def id(self) -> str:
        """8 hex digits: the same as long as it is about the same fault of the same thing."""
        return hashlib.sha256("\0".join((self.kind, self.subject, self.cause)).encode()).hexdigest()[:8]

    def joined(self, other: "Alert") -> "Alert":
        """Two reports of one fault as one."""
        return replace(self, parts=(*self.parts, *other.parts), patience=min(self.patience, other.patience))


@dataclass(frozen=True)
class Silence:
    """Nobody is told of alerts whose id, kind or subject matches (`*` is anything) until a moment, epoch seconds."""

    id: str
    matches: str
    until: float
    by: str
    reason: str

    def covers(self, alert: Alert, now: float) -> bool:
        names = (alert.id, alert.kind, alert.subject, *alert.about)
        return now < self.until and any(fnmatchcase(name, self.matches) for name in names)


@dataclass(frozen=True)
class Open:
    """An alert since it was first seen. Times are epoch seconds.

    `due_at`: when it may be told, unless something explains or silences it until then. `gone`: since when no look has seen it.
    `owed` are the channels that are to be told, `told` those that were: channel -> when.
    """

    alert: Alert
    since: float
    due_at: float | None
    gone: float | None = None
    owed: tuple[str, ...] = ()
    told: Mapping[str, float] = field(default_factory=dict)

    def is_over(self, now: float) -> bool:
        return self.gone is not None and now - self.gone >= SETTLED


@dataclass(frozen=True)
class Trouble:
    """A channel that did not take what it was sent."""

    failures: int
    since: float
    next_try: float
    error: str


@dataclass(frozen=True)
class State:
    """All that has to survive a restart. `more`: what looks keep for the next one."""

    open: Mapping[str, Open] = field(default_factory=dict)
    channels: Mapping[str, Trouble] = field(default_factory=dict)
    more: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=1)

    def keeping(self, more: Mapping[str, Any]) -> "State":
        """The state with what looks keep for the next one."""
        return replace(self, more=more)

    @classmethod
    def from_json(cls, text: str | bytes) -> "State":
        """What only a newer release knows is left out, such as an alert of another kind.

        Raises:
            ValueError: if it is no state.
        """
        content = of(_Written, json.loads(text))
        return cls(_known(Open, content.open), _known(Trouble, content.channels), content.more)


@dataclass(frozen=True)
class _Written:
    open: Mapping[str, Mapping[str, Any]]
    channels: Mapping[str, Mapping[str, Any]]
    more: Mapping[str, Any] = field(default_factory=dict)


def _known(cls: type[_T], content: Mapping[str, Any]) -> dict[str, _T]:
    found: dict[str, _T] = {}
    for name, one in content.items():
        with suppress(ValueError):
            found[name] = of(cls, one)
    return found


@dataclass(frozen=True)
class Message:
    """What one channel is to be told: alerts of one cause, all firing or all over."""

    channel: str
    over: bool
    alerts: tuple[Open, ...]


# --- from one look to the next ----------------------------------------------------------------------------------------


def observe(
    state: State,
    seen: Iterable[Alert],
    unseen: Collection[tuple[str, str]],
    channels: Channels,
    silences: Iterable[Silence],
    now: float,
) -> State:
    """The state after a look.

    Args:
        seen: all that is wrong now.
        unseen: (kind, subject) of what could not be looked at: an open alert of that stays as it is.
        channels: the names of the channels that an alert goes to.
    """
    found: dict[str, Alert] = {}
    for alert in seen:
        found[alert.id] = found[alert.id].joined(alert) if alert.id in found else alert
    opened: dict[str, Open] = {}
    for id_ in dict.fromkeys([*state.open, *found]):
        before, alert = state.open.get(id_), found.get(id_)
        if alert is not None:
            opened[id_] = replace(before, alert=alert, gone=None) if before else Open(alert, now, None)
        elif before and (before.alert.kind, before.alert.subject) in unseen:
            opened[id_] = before
        elif before and (before.owed or before.told or not before.is_over(now)):
            opened[id_] = replace(before, gone=now if before.gone is None else before.gone)
    hushed, explaining = tuple(silences), _by_subject(opened.values(), now)
    after = {id_: _weighed(one, explaining, channels, hushed, now) for id_, one in opened.items()}
    known = {name for one in after.values() for name in (*one.owed, *one.told)}
    return replace(state, open=after, channels={n: t for n, t in state.channels.items() if n in known})


def _by_subject(opened: Iterable[Open], now: float) -> dict[str, list[Alert]]:
    found: dict[str, list[Alert]] = {}
    for one in opened:
        if not one.is_over(now):
            found.setdefault(one.alert.subject, []).append(one.alert)
    return found


def _weighed(
    one: Open, explaining: Mapping[str, list[Alert]], channels: Channels, silences: Sequence[Silence], now: float
) -> Open:
    """An open alert with what is owed to whom, now."""
    alert, wanted = one.alert, tuple(dict.fromkeys(channels(one.alert)))
    if one.gone is not None:
        return one
    if explanation(alert, explaining) or any(silence.covers(alert, now) for silence in silences):
        return replace(one, owed=(), due_at=None)
    due_at = now + alert.patience if one.due_at is None else min(one.due_at, now + alert.patience)
    owed = tuple(name for name in wanted if name not in one.told) if now >= due_at else ()
    return replace(one, owed=owed, due_at=due_at)


def explanation(alert: Alert, by_subject: Mapping[str, list[Alert]]) -> Alert | None:
    """The open alert that explains this one. One explains another only if it follows from less itself, so that no two wait
    for each other."""
    for subject in alert.follows_from:
        for other in by_subject.get(subject, ()):
            if other.id != alert.id and len(set(other.follows_from)) < len(set(alert.follows_from)):
                return other
    return None


def explanations(state: State, now: float) -> dict[str, Alert]:
    """Of every open alert that waits for another one's end, that one."""
    by_subject = _by_subject(state.open.values(), now)
    found = {id_: explanation(one.alert, by_subject) for id_, one in state.open.items()}
    return {id_: other for id_, other in found.items() if other}


# --- messages ---------------------------------------------------------------------------------------------------------


def due(state: State, now: float) -> list[Message]:
    """What is to be sent now: of each channel at most `MESSAGES`, none while it waits for its next try."""
    groups: dict[tuple[str, bool, str, str], list[Open]] = {}
    for one in sorted(state.open.values(), key=lambda one: (one.since, one.alert.subject)):
        over = one.is_over(now)
        if one.gone is not None and not over:
            continue
        for name in dict.fromkeys(
            (*one.owed, *(one.told if over else ()))
        ):  # owed and over: while the channel was away
            groups.setdefault((name, over, one.alert.kind, one.alert.cause), []).append(one)
    messages: dict[str, list[Message]] = {}
    for (name, over, _, _), alerts in groups.items():
        trouble = state.channels.get(name)
        # One message finds out whether a channel in trouble is well again.
        most = MESSAGES if trouble is None else int(now >= trouble.next_try)
        if len(of_channel := messages.setdefault(name, [])) < most:
            of_channel.append(Message(name, over, tuple(alerts)))
    return [message for of_channel in messages.values() for message in of_channel]


def deliver(
    state: State, now: float, send: Callable[[Message], str], keep: Callable[[State], None] = lambda _: None
) -> State:
    """Send what is due. `send` returns why a channel did not take a message, or nothing; it is asked no more for now if it
    did not. `keep` gets the state after each message, so that a process that dies repeats one at most and loses none."""
    failed = set[str]()
    for message in due(state, now):
        if message.channel in failed:
            continue
        if error := send(message):
            failed.add(message.channel)
            state = refused(state, message, error, now)
        else:
            state = delivered(state, message, now)
        keep(state)
    return state


def delivered(state: State, message: Message, now: float) -> State:
    """The state once a channel has taken a message."""
    opened = dict(state.open)
    for alert in message.alerts:
        id_ = alert.alert.id
        if (one := opened.get(id_)) is None:
            continue
        owed = tuple(name for name in one.owed if name != message.channel)
        told = {name: at for name, at in one.told.items() if name != message.channel}
        if not message.over:
            told[message.channel] = now
        if message.over and not owed and not told:
            del opened[id_]
        else:
            opened[id_] = replace(one, owed=owed, told=told)
    channels = {name: trouble for name, trouble in state.channels.items() if name != message.channel}
    return replace(state, open=opened, channels=channels)


def refused(state: State, message: Message, error: str, now: float) -> State:
    """The state once a channel has not taken a message: it is tried again after a growing delay."""
    before = state.channels.get(message.channel)
    failures = before.failures + 1 if before else 1
    wait = min(FIRST_DELAY * 2.0 ** min(failures - 1, 20), LONGEST_DELAY)
    trouble = Trouble(failures, before.since if before else now, now + wait, error[:500])
    return replace(state, channels={**state.channels, message.channel: trouble})


def broken_channels(state: State) -> Iterator[Alert]:
    """Alerts about channels, for the other ones."""
    for name, trouble in state.channels.items():
        yield Alert(
            "channel_broken",
            f"channel/{name}",
            f"the channel takes no messages: {trouble.error}",
            cause="takes no messages",
            value=f"{trouble.failures} tries",
            limit="1",
            next_step=f"ml-platform alerts test --channel {name}",
        )
