"""Topics as they are read: from where one was, in order, and what a broker may do to one."""

import pytest

from ml_platform.core.errors import SettingsError, StackError
from ml_platform.core.settings import Settings
from ml_platform.resources import topics
from ml_platform.resources.topics import Topics
from ml_platform_tests.broker import Broker
from ml_platform_tests.processes import free_port


@pytest.fixture(scope="module")
def broker() -> Broker:
    return Broker()


def read(
    broker: Broker, topic: str, positions: dict[int, int] | None = None, most: int = 100
) -> list[tuple[int, int, bytes]]:
    found = Topics(broker.servers).read(topic, positions or {}, most)
    return [(one.partition, one.offset, one.content) for one in found]


def test_messages_come_from_where_one_was_and_in_order(broker: Broker) -> None:
    broker.send("orders", b"a", b"b", b"c")
    broker.send("orders", b"x", partition=2)
    assert sorted(read(broker, "orders")) == [(0, 0, b"a"), (0, 1, b"b"), (0, 2, b"c"), (2, 0, b"x")]
    assert read(broker, "orders", {0: 2, 2: 1}) == [(0, 2, b"c")]
    assert read(broker, "orders", {0: 3, 2: 1}) == []


def test_full_partition_keeps_no_other_from_being_read(broker: Broker) -> None:
    broker.send("full", *[b"%d" % number for number in range(50)])
    broker.send("full", b"x", partition=3)
    found = sorted(read(broker, "full", most=2))
    assert found == [(0, 0, b"0"), (0, 1, b"1"), (3, 0, b"x")]


def test_messages_without_content_or_with_an_impossible_time_are_messages(broker: Broker) -> None:
    broker.send("odd", None, at=10**17)
    (message,) = Topics(broker.servers).read("odd", {}, 10)
    assert (message.content, message.at.year, message.id) == (b"", 9999, "odd-0-0")


def test_topic_that_is_not_there_is_said(broker: Broker) -> None:
    with pytest.raises(StackError, match="topic nobody: cannot be read: .*UNKNOWN_TOPIC"):
        read(broker, "nobody")


def test_topic_that_was_made_anew_is_said(broker: Broker) -> None:
    broker.send("anew", b"a")
    with pytest.raises(StackError, match="partition 0 ends at 1, and was read up to 7: it was made anew"):
        read(broker, "anew", {0: 7})


def test_cluster_that_does_not_answer_is_an_error_with_its_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(topics, "ANSWERS_WITHIN", 0.5)
    port = free_port()
    with pytest.raises(
        StackError, match=f"topic any: cannot be read at 127.0.0.1:{port}: .*Next: look after ML_PLATFORM_KAFKA"
    ):
        Topics(f"127.0.0.1:{port}").read("any", {}, 10)


def test_address_and_options_are_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SettingsError, match="ML_PLATFORM_KAFKA: is empty"):
        Topics.at(Settings())
    monkeypatch.setenv("ML_PLATFORM_KAFKA", "kafka:9092")
    monkeypatch.setenv("ML_PLATFORM_KAFKA_OPTIONS", "{security.protocol: SSL}")
    assert Topics.at(Settings()).options == {"security.protocol": "SSL"}
    monkeypatch.setenv("ML_PLATFORM_KAFKA_OPTIONS", "SSL")
    with pytest.raises(SettingsError, match="ML_PLATFORM_KAFKA_OPTIONS: is no mapping"):
        Topics.at(Settings())


def test_option_that_librdkafka_does_not_know_is_an_error(broker: Broker) -> None:
    with pytest.raises(StackError, match='No such configuration property: "nonsense"'):
        Topics(broker.servers, {"nonsense": 1}).read("orders", {}, 10)
