"""What is known of alerts lies in the lake, on disk or in S3: each writer's state, and silences that end."""

import pytest

from ml_platform.core.errors import LakeError
from ml_platform.core.settings import Settings
from ml_platform.monitoring.alerts import Alert, Open, State
from ml_platform.resources.alert_book import AlertBook
from ml_platform.resources.beside import Beside
from ml_platform.resources.lake import Lake
from ml_platform.resources.object_store import ObjectStore

STATE = State({"1": Open(Alert("test", "a/raw", "why", parts=("2026-01-01",)), 1.0, None, told={"ops": 2.0})})


def check_book(book: AlertBook) -> None:
    assert book.state() == State()
    book.keep(STATE)
    assert book.state() == STATE
    assert book.of("exporter").state() == State(), "each writer has its own"
    short, long = book.silence("a/*", 100.0, "ann", "known"), book.silence("*", 200.0, "bob", "holidays")
    assert book.of("exporter").silences(50.0) == [short, long]
    assert book.silences(100.0) == [long]
    assert book.end_silence(long.id)
    assert not book.end_silence(long.id)
    assert not book.end_silence("../sensor")
    assert book.silences(0.0) == []
    assert book.state() == STATE


def test_book_on_disk(settings: Settings) -> None:
    check_book(AlertBook(Lake.at(settings), "my_team"))


def test_book_in_s3(s3_port: int, settings: Settings) -> None:
    store = ObjectStore.at(settings)
    store.ensure_bucket()
    check_book(AlertBook(Lake.at(settings.model_copy(update={"lake": settings.landing})), "my_team"))


def test_state_that_makes_no_sense_says_what_to_do(settings: Settings) -> None:
    book = AlertBook(Lake.at(settings), "my_team", sleep=lambda _: None)
    Beside(book.lake).write("alerts/my_team/sensor.json", b"{")
    with pytest.raises(LakeError, match="alerts/my_team/sensor.json: it cannot be read: .*Next: remove"):
        book.state()
