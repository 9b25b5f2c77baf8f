"""Messages to people: by apprise, which knows the services, or by an Alertmanager, which does what it is configured for."""

import io
import logging
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx

from ml_platform.core.errors import SettingsError
from ml_platform.core.spec import AlertsSpec, ChannelSpec
from ml_platform.monitoring.alerts import Message, Open, State
from ml_platform.monitoring.messages import body, title

TIMEOUT = 8.0  # seconds; a channel that takes longer is tried again
HOLDS = timedelta(minutes=10)  # how long an Alertmanager believes that an alert fires which nobody repeats
_SHORTEST = 4  # letters of a part of an address that may be a secret


class Notifier:
    """The channels of a project; their addresses come from the environment."""

    def __init__(self, spec: AlertsSpec, environment: Mapping[str, str]) -> None:
        self.channels, self.environment = spec.channels, environment

    def send(self, message: Message) -> str:
        """Why the channel did not take the message; nothing if it did, or if nobody declares it any more. It never raises."""
        channel = self.channels.get(message.channel)
        if channel is None:
            return ""
        address = ""
        try:
            address = address_of(message.channel, channel, self.environment)
            if channel.type == "alertmanager":
                return _without(address, _post(address, [_alert(one, message.over) for one in message.alerts]))
            return _without(address, _notify(address, title(message), body(message), message.over))
        except SettingsError as error:
            return str(error)
        except Exception as error:  # noqa: BLE001  # a channel, whatever is wrong with it, fails nothing else
            return _without(address, f"{type(error).__name__}: {error}")

    def repeat(self, state: State) -> None:
        """Tell every Alertmanager again what it was told: it forgets what nobody repeats. One that is away hears it next time."""
        for name, channel in self.channels.items():
            told = [one for one in state.open.values() if name in one.told]
            if channel.type == "alertmanager" and told and name not in state.channels:
                self.send(Message(name, False, tuple(told)))


def address_of(name: str, channel: ChannelSpec, environment: Mapping[str, str]) -> str:
    """The channel's address.

    Raises:
        SettingsError: if the variable is not set.
    """
    if address := environment.get(channel.url_variable, "").strip():
        return address
    problem = f"is not set, and channel {name} needs it"
    raise SettingsError(channel.url_variable, problem, f"export {channel.url_variable}=... (docs/alerts.md)")


def _notify(address: str, title_: str, text: str, over: bool) -> str:
    import apprise

    told = apprise.Apprise(asset=apprise.AppriseAsset(async_mode=False, app_id="ml_platform"))
    if len(address.split()) > 1 or not told.add(address):  # of two, one could take what the other does not
        return "its address is not one URL that apprise knows"
    kind = apprise.NotifyType.SUCCESS if over else apprise.NotifyType.WARNING
    with apprise.LogCapture(level=logging.WARNING, fmt="%(message)s") as said:
        if told.notify(body=text, title=title_, notify_type=kind, body_format=apprise.NotifyFormat.TEXT):
            return ""
        assert isinstance(said, io.StringIO), "so it is where no file is named"
        return " ".join(said.getvalue().split()) or "the service did not take the message"


def _post(address: str, alerts: list[dict[str, Any]]) -> str:
    answer = httpx.post(f"{address.rstrip('/')}/api/v2/alerts", json=alerts, timeout=TIMEOUT)
    return "" if answer.is_success else f"Alertmanager says {answer.status_code}: {answer.text[:200]}"


def _alert(one: Open, over: bool) -> dict[str, Any]:
    """An alert as Alertmanager's API v2 takes it."""
    alert, now = one.alert, datetime.now(UTC)
    labels = {"alertname": alert.kind, "severity": alert.severity, "subject": alert.subject, "id": alert.id}
    labels |= {"about": ",".join(alert.about), "owners": ",".join(alert.owners)}
    notes = {"summary": alert.reason, "value": alert.value, "limit": alert.limit, "next": alert.next_step}
    notes |= {"partitions": ", ".join(alert.parts[:20])}
    return {
        "labels": _given(labels),
        "annotations": _given(notes),
        "startsAt": datetime.fromtimestamp(one.since, UTC).isoformat(),
        "endsAt": (now if over else now + HOLDS).isoformat(),
        **({"generatorURL": alert.link} if alert.link else {}),
    }


def _given(values: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in values.items() if value}


def _without(address: str, words: str) -> str:
    """Words without any part of an address that may be a secret."""
    parts = re.split(r"[/:@?&=,\s]+", address.partition("://")[2] or address)
    for part in sorted(set(parts), key=len, reverse=True):
        if len(part) >= _SHORTEST:
            words = words.replace(part, "***")
    return words
