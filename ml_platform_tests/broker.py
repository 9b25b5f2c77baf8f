"""A Kafka broker in this process: librdkafka's own, which its producers and consumers talk to as to any other."""

from confluent_kafka import Producer


class Broker:
    """Topics have four partitions, and are there once something was sent."""

    def __init__(self) -> None:
        self._producer = Producer({"test.mock.num.brokers": 1, "log_level": 0})
        brokers = self._producer.list_topics(timeout=30).brokers.values()
        self.servers = ",".join(f"{one.host}:{one.port}" for one in brokers)

    def send(self, topic: str, *contents: bytes | None, partition: int = 0, at: int = 0) -> None:
        """Messages one after the other; `at`: when they are said to be sent, in milliseconds; 0: now."""
        for content in contents:
            self._producer.produce(topic, content, partition=partition, timestamp=at)
        assert self._producer.flush(30) == 0
