"""Messages by apprise over real HTTP and SMTP, and by Alertmanager's API; no channel fails anything, or tells its secrets."""

from datetime import UTC, datetime, timedelta

import pytest

from ml_platform.core.spec import AlertsSpec, ChannelSpec
from ml_platform.monitoring.alerts import Alert, Message, Open, State, Trouble
from ml_platform.resources.notify import HOLDS, Notifier
from ml_platform_tests.conftest import NOWHERE
from ml_platform_tests.inbox import http_inbox, mail_inbox

SECRET = "t0p-secret-token"
ALERT = Alert(
    "gate_rejected",
    "fraud/evaluation",
    "auc is 0.7 <b>& low</b>",
    value="0.7",
    limit="0.8",
    parts=("2026-01-05",),
    link="http://dagster/x",
    next_step="ml-platform versions fraud",
    about=("fraud",),
    owners=("team:fraud",),
)
OPEN = Open(ALERT, 1_700_000_000.0, 1_700_000_000.0)


def notifier(address: str, kind: str = "apprise") -> Notifier:
    channel = ChannelSpec.model_validate({"type": kind, "url_variable": "THE_CHANNEL"})
    return Notifier(AlertsSpec(channels={"ops": channel}), {"THE_CHANNEL": address})


def message(over: bool = False) -> Message:
    return Message("ops", over, (OPEN,))


def test_webhook_gets_title_and_text() -> None:
    with http_inbox() as inbox:
        assert notifier(f"json://{inbox.address}/hook").send(message()) == ""
        ((path, content),) = inbox.taken
    assert path == "/hook"
    assert content["title"] == "warning: gate rejected: fraud/evaluation [2026-01-05]"
    for part in ("auc is 0.7 <b>& low</b>", "limit: 0.8", "http://dagster/x", "next: ml-platform versions fraud"):
        assert part in content["message"]


def test_mail_arrives() -> None:
    with mail_inbox() as (port, taken):
        address = f"mailto://127.0.0.1:{port}/?from=platform@example.com&to=ann@example.com&mode=insecure&format=text"
        assert notifier(address).send(message()) == ""
        (mail,) = taken
    assert mail["Subject"] == "warning: gate rejected: fraud/evaluation [2026-01-05]"
    assert mail["To"] == "ann@example.com"
    part = next(part for part in mail.walk() if part.get_content_type() == "text/plain")
    text = part.get_payload(decode=True)
    assert isinstance(text, bytes)
    assert "auc is 0.7 <b>& low</b>" in text.decode()


@pytest.mark.parametrize("kind", ["apprise", "alertmanager"])
def test_channel_that_refuses_says_so_without_its_secrets(kind: str) -> None:
    with http_inbox() as inbox:
        inbox.status = 500
        scheme = "json" if kind == "apprise" else "http"
        error = notifier(f"{scheme}://ann:{SECRET}@{inbox.address}/{SECRET}", kind).send(message())
        assert "500" in error
        assert SECRET not in error
        nobody = notifier(f"{scheme}://ann:{SECRET}@127.0.0.1:{NOWHERE}/{SECRET}", kind).send(message())
    assert nobody
    assert SECRET not in nobody


@pytest.mark.parametrize("address", [f"nonsense://{SECRET}", f"{SECRET}", f"json://a/{SECRET} json://b/{SECRET}"])
def test_address_that_is_none_is_refused(address: str) -> None:
    error = notifier(address).send(message())
    assert error == "its address is not one URL that apprise knows"


def test_missing_variable_is_named() -> None:
    error = notifier("").send(message())
    assert error.startswith("THE_CHANNEL: is not set, and channel ops needs it. Next: export THE_CHANNEL=")


def test_channel_that_nobody_declares_any_more_is_told_nothing() -> None:
    assert Notifier(AlertsSpec(), {}).send(message()) == ""


def test_alertmanager_gets_labels_and_times() -> None:
    before = datetime.now(UTC)
    with http_inbox() as inbox:
        told = notifier(f"http://{inbox.address}/", "alertmanager")
        assert told.send(message()) == ""
        assert told.send(message(over=True)) == ""
        (path, (fires,)), (_, (over,)) = inbox.taken
    assert path == "/api/v2/alerts"
    assert fires["labels"] == {
        "alertname": "gate_rejected",
        "severity": "warning",
        "subject": "fraud/evaluation",
        "id": ALERT.id,
        "about": "fraud",
        "owners": "team:fraud",
    }
    assert fires["annotations"]["next"] == "ml-platform versions fraud"
    assert (fires["startsAt"], fires["generatorURL"]) == ("2023-11-14T22:13:20+00:00", "http://dagster/x")
    assert datetime.fromisoformat(fires["endsAt"]) >= before + HOLDS
    assert datetime.fromisoformat(over["endsAt"]) < before + timedelta(minutes=5)


def test_alertmanager_hears_again_what_it_was_told_and_apprise_does_not() -> None:
    told = Open(ALERT, 0.0, 0.0, told={"ops": 1.0})
    with http_inbox() as inbox:
        for kind, scheme in (("alertmanager", "http"), ("apprise", "json")):
            told_again = notifier(f"{scheme}://{inbox.address}", kind)
            told_again.repeat(State({ALERT.id: told}))
            told_again.repeat(State({ALERT.id: told}, {"ops": Trouble(1, 0.0, 0.0, "away")}))
            told_again.repeat(State({ALERT.id: OPEN}))
        assert [path for path, _ in inbox.taken] == ["/api/v2/alerts"]
