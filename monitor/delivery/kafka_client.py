"""Settings in, a connection to Kafka that can be broken off and whose failures speak plainly out.

With `kafka_network.py` the only door to `kafka`. kafka-python 3.0 cannot be closed while a broker hangs; here it can.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer
from kafka import errors as kafka_errors

from monitor.config import KafkaConfig
from monitor.delivery.kafka_network import REFUSALS, network_client
from monitor.errors import DeliveryFailed
from monitor.records import Alert
from monitor.telemetry.redaction import Redactor

CLIENT_ID = "video-event-monitor"
BATCH_BYTES = 262_144
"""Of one partition in one request, at most; one is in flight at a time, so this bounds the rate after an outage."""
CLOSE_SECONDS = 2.0
"""Longest wait for the producer's thread, after everything it waits for has been broken off."""
GOODBYE_SECONDS = 1.0
"""Longest wait for Kafka to keep a group's place, and again for it to let the member go."""
METADATA_SECONDS = 5
"""How often a subscription looks for a topic or partitions that are new."""
DETAIL_CHARACTERS = 300

DOES_NOT_EXIST = (
    "does not exist; create it, or set kafka.create_topics, unless the broker makes topics by itself "
    "(auto.create.topics.enable)"
)

OWN_FAULT = (
    kafka_errors.MessageSizeTooLargeError,
    kafka_errors.RecordListTooLargeError,
    kafka_errors.InvalidRecordError,
)
"""What Kafka says of a record itself; everything else is Kafka's or the network's trouble and is tried again."""
LIBRARY_ERRORS = (kafka_errors.KafkaError, OSError, RuntimeError, ValueError)
"""What kafka-python raises: its own, and Python's for wrong settings and closed sockets."""


@dataclass(frozen=True, slots=True)
class TopicReport:
    """What Kafka says of a topic."""

    topic: str
    problem: str
    """What keeps alerts from it; empty when nothing does."""
    shape: str
    """Partitions and replicas; empty where there is a problem."""


@dataclass(frozen=True, slots=True)
class Received:
    """One record as Kafka gave it."""

    topic: str
    partition: int
    offset: int
    key: str
    headers: Mapping[str, str]
    value: bytes


class Connection:
    """Owns one producer of kafka-python, from its connecting to its end.

    kafka-python's own `close` waits for a hanging Kafka and then raises without closing, and its constructor leaves its
    sockets open when it fails; hence the few private names here (`_sender`, `_manager`, `_net`), pinned by `<4`.
    """

    def __init__(self, settings: KafkaConfig) -> None:
        self._settings = settings
        self._client: Any = None
        self._producer: Any = None
        self._broken = False

    def open(self) -> None:
        """Connect and authenticate; make the topics that are missing, where the settings ask for it.

        Raises:
            DeliveryFailed: Kafka does not answer, or refuses us.
        """
        if self._settings.create_topics:
            with _admin(self._settings, make_client=self._make_client) as admin:
                _make_missing_topics(admin, self._settings)
        try:
            self._producer = KafkaProducer(
                **client_settings(self._settings),
                **producer_settings(self._settings),
                kafka_client=self._make_client,
            )
        except LIBRARY_ERRORS as exc:
            raise translated(_cause(exc, self._client), self._settings, topic=self._settings.topic) from exc

    def send(self, alert: Alert, told: Callable[[BaseException | None], None], *, topic: str) -> None:
        """Hand a record to the producer; `told` hears of its acknowledgement or failure in the producer's thread.

        Raises:
            DeliveryFailed: the topic is not there, or the producer has stopped.
            MessageSizeTooLargeError: it is larger than any request may be.
        """
        try:
            future = self._producer.send(
                topic, key=alert.camera.encode(), value=alert.value, headers=list(alert.headers)
            )
        except OWN_FAULT:
            raise
        except kafka_errors.KafkaError as exc:
            if self.connected and not self._client._manager.cluster.partitions_for_topic(topic):
                raise DeliveryFailed(f"topic {topic} {DOES_NOT_EXIST}") from exc
            raise translated(exc, self._settings, topic=topic) from exc
        future.add_callback(lambda _metadata: told(None))
        future.add_errback(lambda error: self._failed(error, told))

    @property
    def connected(self) -> bool:
        """Whether any broker is connected right now."""
        client = self._client
        return client is not None and _is_connected(client)

    def break_off(self) -> None:
        """Make whatever waits for Kafka give up at once; from any thread, at any time."""
        self._broken = True
        if self._producer is not None:
            self._producer._sender.force_close()
        client = self._client
        if client is not None:
            self._hang_up(client)

    def close(self) -> None:
        """Stop the producer without sending more, and free its sockets."""
        self.break_off()
        if self._producer is not None:
            self._producer._sender.join(CLOSE_SECONDS)
            with suppress(Exception):  # its thread still hangs (it is a daemon and sends no more), or its loop had died
                self._producer.close(timeout=0)
        elif self._client is not None:
            with suppress(Exception):  # likewise
                self._client.close()  # the constructor failed; its sockets are ours to close
        self._producer = self._client = None

    def _failed(self, error: BaseException, told: Callable[[BaseException | None], None]) -> None:
        """Stop the producer before it sends what comes after; in its own thread."""
        if self._producer is not None:
            self._producer._sender.force_close()
        told(error)

    def _make_client(self, **settings: Any) -> Any:
        """Make the library's network client, so that it can be closed whatever becomes of the producer."""
        self._client = network_client(**settings)
        if self._broken:
            self._hang_up(self._client)
        return self._client

    @staticmethod
    def _hang_up(client: Any) -> None:
        with suppress(Exception):  # it is closed already, or hands on what its loop had died of
            client._manager._net.call_soon_threadsafe(client._manager.close)


class Subscription:
    """Owns one consumer of kafka-python, from its connecting to its end.

    Args:
        settings: where Kafka is.
        topic: what to read; it is not made by being asked for.
        group: the consumer group whose place is kept in Kafka; empty: every partition is read, and no place is kept.
        from_beginning: whether to begin at the oldest record where no place is kept, or at what comes next.
    """

    def __init__(self, settings: KafkaConfig, topic: str, *, group: str, from_beginning: bool) -> None:
        self._settings = settings
        self._topic = topic
        self._group = group
        self._from_beginning = from_beginning
        self._client: Any = None
        self._consumer: Any = None

    def open(self, *, wait_seconds: float) -> None:
        """Connect and authenticate.

        Raises:
            DeliveryFailed: Kafka does not answer in time, or refuses us.
        """
        named = client_settings(self._settings) | {"bootstrap_timeout_ms": round(wait_seconds * 1000)}
        try:
            self._consumer = KafkaConsumer(
                self._topic,
                **named,
                group_id=self._group or None,
                enable_auto_commit=bool(self._group),
                auto_offset_reset="earliest" if self._from_beginning else "latest",
                metadata_max_age_ms=METADATA_SECONDS * 1000,
                metrics_enabled=False,
                kafka_client=self._make_client,
            )
        except LIBRARY_ERRORS as exc:
            error = translated(_cause(exc, self._client), self._settings, topic=self._topic)
            self.close()
            raise error from exc

    @property
    def connected(self) -> bool:
        """Whether any broker is connected right now."""
        return self._client is not None and _is_connected(self._client)

    @property
    def topic_exists(self) -> bool:
        """Whether the topic is there, as far as is known."""
        return bool(self._client._manager.cluster.partitions_for_topic(self._topic))

    def poll(self, wait_seconds: float, *, limit: int) -> list[Received]:
        """Return records as they stand in Kafka, in order within a partition; none where none came in time.

        While Kafka is away this returns nothing, and goes on where it was when Kafka is back.

        Raises:
            DeliveryFailed: Kafka refuses us.
        """
        try:
            batches = self._consumer.poll(timeout_ms=round(wait_seconds * 1000), max_records=limit)
        except LIBRARY_ERRORS as exc:
            raise translated(exc, self._settings, topic=self._topic) from exc
        failure = self._client._manager.failure
        if isinstance(failure, REFUSALS) and not self.connected:
            raise translated(failure, self._settings, topic=self._topic)
        return [_received(record) for batch in batches.values() for record in batch]

    def close(self) -> None:
        """Keep the place where there is a group, as far as Kafka answers at once, and free the sockets."""
        if self._consumer is not None:
            with suppress(*LIBRARY_ERRORS):
                self._consumer.close(timeout_ms=round(GOODBYE_SECONDS * 1000))
        elif self._client is not None:
            self._client.close()  # the constructor failed; its sockets are ours to close
        self._consumer = self._client = None

    def _make_client(self, **settings: Any) -> Any:
        self._client = network_client(**settings)
        self._client._manager.cluster.config["allow_auto_create_topics"] = False  # the library forgets to hand it on
        return self._client


def describe_topics(settings: KafkaConfig) -> list[TopicReport]:
    """Connect, authenticate and ask about the topics of the alerts and of the cameras' health.

    Raises:
        DeliveryFailed: Kafka does not answer, or refuses us.
    """
    with _admin(settings) as admin:
        described = _described(admin, settings)
    problems = {name: _topic_problem(topic, settings) for name, topic in described.items()}
    return [
        TopicReport(topic=name, problem=problems[name], shape="" if problems[name] else _topic_shape(topic, settings))
        for name, topic in described.items()
    ]


def client_settings(settings: KafkaConfig) -> dict[str, Any]:
    """Return kafka-python's settings for connecting and authenticating."""
    named: dict[str, Any] = {
        "bootstrap_servers": [server.strip() for server in settings.bootstrap_servers.split(",")],
        "client_id": CLIENT_ID,
        "security_protocol": settings.security_protocol,
        "request_timeout_ms": round(settings.request_timeout_seconds * 1000),
        "bootstrap_timeout_ms": round(settings.request_timeout_seconds * 1000),
        "proxy_url": "direct://",  # no proxy: chooses `kafka_network.ClosingSocket`
        "reconnect_backoff_ms": 100,
        "reconnect_backoff_max_ms": 1000,
    }
    for key in ("ssl_cafile", "ssl_certfile", "ssl_keyfile"):
        path = getattr(settings, key)
        if path is not None:
            named[key] = str(path)
    if settings.sasl_mechanism:
        named["sasl_mechanism"] = settings.sasl_mechanism
        named["sasl_plain_username"] = settings.sasl_username
        named["sasl_plain_password"] = settings.sasl_password.get_secret_value()
    return named


def producer_settings(settings: KafkaConfig) -> dict[str, Any]:
    """Return kafka-python's settings for producing: nothing counts before all replicas in sync have it."""
    milliseconds = round(settings.request_timeout_seconds * 1000)
    return {
        "acks": "all",
        "enable_idempotence": True,
        "compression_type": None if settings.compression == "none" else settings.compression,
        "delivery_timeout_ms": milliseconds,  # then we begin anew, for ever; see the module's text
        "max_block_ms": milliseconds,
        "batch_size": BATCH_BYTES,
        "metrics_enabled": False,
    }


def quieten_library() -> None:
    """Let kafka-python's own log say nothing: the failures are reported in one redacted line instead."""
    logger = logging.getLogger("kafka")
    logger.propagate = False
    if not any(isinstance(handler, logging.NullHandler) for handler in logger.handlers):
        logger.addHandler(logging.NullHandler())


@contextmanager
def _admin(settings: KafkaConfig, *, make_client: Callable[..., Any] | None = None) -> Iterator[Any]:
    """Connect for questions alone; close whatever comes.

    Raises:
        DeliveryFailed: Kafka does not answer, or refuses us; also while a question is asked.
    """
    clients: list[Any] = []

    def kept_client(**named: Any) -> Any:
        clients.append((make_client or network_client)(**named))
        return clients[0]

    try:
        yield KafkaAdminClient(**client_settings(settings), kafka_client=kept_client)
    except LIBRARY_ERRORS as exc:
        raise translated(_cause(exc, *clients), settings, topic=settings.topic) from exc
    finally:
        for client in clients:
            client._net.stop(timeout_ms=CLOSE_SECONDS * 1000)
            client.close()


def _described(admin: Any, settings: KafkaConfig) -> dict[str, Any]:
    """Return what Kafka says of each of our topics, by name."""
    names = list(dict.fromkeys((settings.topic, settings.health_topic)))
    told = {topic["name"]: topic for topic in admin.describe_topics(names)}
    return {name: told[name] for name in names}


def _make_missing_topics(admin: Any, settings: KafkaConfig) -> None:
    """Make those of our topics that do not exist; another client may make one at the same moment.

    Raises:
        DeliveryFailed: Kafka does not make one.
    """
    missing = [name for name, topic in _described(admin, settings).items() if _is_missing(topic)]
    if not missing:
        return
    shape = {"num_partitions": settings.partitions or -1, "replication_factor": settings.replication or -1}
    answer = admin.create_topics(dict.fromkeys(missing, shape), raise_errors=False)
    for topic in answer["topics"]:
        error = kafka_errors.for_code(topic["error_code"])
        if error not in (kafka_errors.NoError, kafka_errors.TopicAlreadyExistsError):
            reason = f"topic {topic['name']} cannot be made: {topic['error_message'] or error.__name__}"
            raise DeliveryFailed(
                one_line(reason, Redactor(settings.secrets())),
                refused=issubclass(error, kafka_errors.AuthorizationError),
            )


def _is_missing(topic: Any) -> bool:
    return kafka_errors.for_code(topic["error_code"]) is kafka_errors.UnknownTopicOrPartitionError


def _topic_problem(topic: Any, settings: KafkaConfig) -> str:
    """Return what keeps alerts from this topic; empty when nothing does."""
    if _is_missing(topic):
        return "" if settings.create_topics else DOES_NOT_EXIST
    error = kafka_errors.for_code(topic["error_code"])
    if error is kafka_errors.TopicAuthorizationFailedError:
        return "we have no permission to see it"
    if error is not kafka_errors.NoError:
        return str(error.__name__)
    leaderless = [partition["partition_index"] for partition in topic["partitions"] if partition["leader_id"] < 0]
    if leaderless:
        return f"no broker leads partitions {', '.join(map(str, leaderless))}"
    return ""


def _topic_shape(topic: Any, settings: KafkaConfig) -> str:
    if _is_missing(topic):
        partitions, replicas = (count or "the broker's own" for count in (settings.partitions, settings.replication))
        return f"does not exist yet and will be made, partitions: {partitions}, replicas: {replicas}"
    partitions = topic["partitions"]
    replicas = min(len(partition["replica_nodes"]) for partition in partitions)
    return f"good, partitions: {len(partitions)}, replicas: {replicas}"


def _is_connected(client: Any) -> bool:
    return any(conn.connected for conn in list(client._manager._conns.values()))


def _received(record: Any) -> Received:
    return Received(
        topic=record.topic,
        partition=record.partition,
        offset=record.offset,
        key=(record.key or b"").decode(errors="replace"),
        headers={name: (value or b"").decode(errors="replace") for name, value in record.headers},
        value=record.value or b"",
    )


def _cause(raised: BaseException, *clients: Any) -> BaseException:
    """Return what lies behind `raised`: that the whole took too long only says that no connection worked."""
    if isinstance(raised, kafka_errors.KafkaTimeoutError):
        failures: list[BaseException] = [client._manager.failure for client in clients if client._manager.failure]
        return failures[0] if failures else raised
    return raised


def translated(error: BaseException, settings: KafkaConfig, *, topic: str) -> DeliveryFailed:
    """Translate an error of the library into ours, in words that say what to do."""
    servers, redactor = settings.bootstrap_servers, Redactor(settings.secrets())
    match error:
        case kafka_errors.SaslAuthenticationFailedError():
            reason = f"Kafka refuses user name or password: {plain(error)}"
        case kafka_errors.TopicAuthorizationFailedError():
            reason = f"Kafka does not permit writing to topic {topic}"
        case kafka_errors.UnknownTopicOrPartitionError():
            reason = f"topic {topic} does not exist"
        case kafka_errors.InvalidTimestampError():  # every record's, until the clock is set: none is put aside for it
            reason = (
                f"{servers} takes no record of this time; set this machine's clock, or the broker's: {plain(error)}"
            )
        case kafka_errors.InvalidTopicError():
            reason = f"Kafka finds the name of topic {topic} invalid"
        case (
            kafka_errors.KafkaTimeoutError() | kafka_errors.KafkaConnectionError() | kafka_errors.RequestTimedOutError()
        ):
            reason = f"no answer from {servers}: {plain(error)}"
        case _:
            reason = f"{servers}: {plain(error)}"
    return DeliveryFailed(one_line(reason, redactor), refused=isinstance(error, REFUSALS))


def plain(error: BaseException) -> str:
    """Return the library's words without its error numbers and repeated class names."""
    name = type(error).__name__
    words = re.sub(rf"^(\[Error -?\d+\] )?({name}(: )?)*", "", str(error))
    if words in ("", "None"):
        return str(getattr(error, "description", None) or name)
    return words


def one_line(text: str, redactor: Redactor) -> str:
    """Return `text` without secrets, in one line of bounded length."""
    return redactor.clean(" ".join(text.split()))[:DETAIL_CHARACTERS]
