"""Topics of Kafka: the messages after those that were read before. Needs the extra `kafka`."""

import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import yaml

from ml_platform.core.errors import SettingsError, StackError
from ml_platform.core.settings import Settings

ANSWERS_WITHIN = 10.0  # seconds of a broker
READ_WITHIN = 10.0  # seconds of all messages of a look
LATEST = 253_402_300_799.0  # seconds: the end of the year 9999
SET_HERE = {
    "group.id": "ml_platform",
    "enable.auto.commit": False,
    "enable.partition.eof": True,  # the last offset may be no message, such as the end of a transaction
    "auto.offset.reset": "error",
}


@dataclass(frozen=True)
class Message:
    """What lies at an offset of a partition; `at` is when it was sent."""

    topic: str
    partition: int
    offset: int
    content: bytes
    at: datetime

    @property
    def id(self) -> str:
        return f"{self.topic}-{self.partition}-{self.offset}"


class Topics:
    """A Kafka cluster, read without a consumer group: how far was read is the reader's to remember."""

    def __init__(self, servers: str, options: Mapping[str, Any] | None = None) -> None:
        self.servers = servers
        self.options = options or {}

    @classmethod
    def at(cls, settings: Settings) -> "Topics":
        """Raises SettingsError if there is no address, or the options are no mapping."""
        if not settings.kafka:
            raise SettingsError("ML_PLATFORM_KAFKA", "is empty, and a model has a topic", "export it as host:port,...")
        given = settings.kafka_options.get_secret_value() if settings.kafka_options else "{}"
        try:
            options = yaml.safe_load(given)
        except yaml.YAMLError:
            options = None
        if not isinstance(options, dict):
            raise SettingsError("ML_PLATFORM_KAFKA_OPTIONS", "is no mapping", "such as {security.protocol: SSL}")
        return cls(settings.kafka, options)

    def read(self, topic: str, positions: Mapping[int, int], most: int) -> list[Message]:
        """Up to `most` messages of each partition, in their order, from its position on, or from its beginning.

        Raises:
            StackError: if the cluster does not answer, has no such topic, or a partition ends before its position.
        """
        with self._consumer(topic) as consumer:
            left = dict.fromkeys(self._unread(consumer, topic, positions), most)
            found: list[Message] = []
            deadline = time.monotonic() + READ_WITHIN
            while left and time.monotonic() < deadline:
                for one in consumer.consume(100, 0.5):
                    if one.error() and one.error().name() != "_PARTITION_EOF":
                        raise _trouble(topic, f"cannot be read: {one.error()}")
                    if (partition := one.partition()) not in left:
                        continue
                    if not one.error():
                        found.append(Message(topic, partition, one.offset(), one.value() or b"", _sent(one)))
                        left[partition] -= 1
                    if one.error() or not left[partition]:
                        del left[partition]
        return found

    def _unread(self, consumer: Any, topic: str, positions: Mapping[int, int]) -> list[int]:
        """The partitions that have more; the consumer is to read those."""
        from confluent_kafka import TopicPartition

        there = consumer.list_topics(topic, ANSWERS_WITHIN).topics[topic]
        if there.error:
            raise _trouble(topic, f"cannot be read: {there.error}")
        starts = []
        for partition in sorted(there.partitions):
            first, end = consumer.get_watermark_offsets(TopicPartition(topic, partition), ANSWERS_WITHIN)
            if positions.get(partition, 0) > end:
                problem = (
                    f"partition {partition} ends at {end}, and was read up to {positions[partition]}: it was made anew"
                )
                raise _trouble(topic, problem, "give the new topic a name of its own")
            if (start := max(first, positions.get(partition, 0))) < end:
                starts.append(TopicPartition(topic, partition, start))
        consumer.assign(starts)
        return [start.partition for start in starts]

    @contextmanager
    def _consumer(self, topic: str) -> Iterator[Any]:
        try:
            from confluent_kafka import Consumer, KafkaException
        except ImportError as error:
            raise StackError(
                f"topic {topic}", "nothing here can read it", "install the extra: ml-platform[kafka]"
            ) from error
        try:
            # Trouble is told once, by what is raised.
            settings = {"log_level": 0, **self.options, "bootstrap.servers": self.servers, **SET_HERE}
            with closing(Consumer(settings)) as consumer:
                yield consumer
        except KafkaException as error:
            raise _trouble(topic, f"cannot be read at {self.servers}: {error.args[0]}") from error


def _sent(message: Any) -> datetime:
    """What producers say, as far as it is a time."""
    return datetime.fromtimestamp(min(max(0, message.timestamp()[1] / 1000), LATEST), UTC)


def _trouble(topic: str, problem: str, next_step: str = "look after ML_PLATFORM_KAFKA and the topic") -> StackError:
    return StackError(f"topic {topic}", problem, next_step)
