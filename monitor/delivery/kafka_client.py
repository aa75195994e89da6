"""Settings in, a connection to Kafka that can be broken off and whose failures speak plainly out.

The only door to `kafka`. kafka-python 3.0 is tamed here: it leaves sockets of failed connections open, waits for ever
for a silent TLS server, tells the causes of failures to its log alone, drops the answer of a broker that refuses us and
hangs up, and cannot be closed while a broker hangs.
"""

from __future__ import annotations

import logging
import re
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from kafka import KafkaAdminClient, KafkaProducer
from kafka import errors as kafka_errors
from kafka.net.compat import KafkaNetClient
from kafka.net.inet import KafkaNetSocket, create_connection
from kafka.net.manager import KafkaConnectionManager
from kafka.net.selector import NetworkSelector
from kafka.net.transport import KafkaSSLTransport, KafkaTCPTransport

from monitor.config import KafkaConfig
from monitor.errors import DeliveryFailed
from monitor.records import Alert
from monitor.telemetry.redaction import Redactor

CLIENT_ID = "video-event-monitor"
BATCH_BYTES = 262_144
"""Of one partition in one request, at most; one is in flight at a time, so this bounds the rate after an outage."""
CLOSE_SECONDS = 2.0
"""Longest wait for the producer's thread, after everything it waits for has been broken off."""
DETAIL_CHARACTERS = 300

OWN_FAULT = (
    kafka_errors.MessageSizeTooLargeError,
    kafka_errors.RecordListTooLargeError,
    kafka_errors.InvalidRecordError,
    kafka_errors.InvalidTimestampError,
)
"""What Kafka says of a record itself; everything else is Kafka's or the network's trouble and is tried again."""
REFUSALS = (
    kafka_errors.SaslAuthenticationFailedError,
    kafka_errors.UnsupportedSaslMechanismError,
    kafka_errors.IllegalSaslStateError,
    kafka_errors.AuthorizationError,
)
LIBRARY_ERRORS = (kafka_errors.KafkaError, OSError, RuntimeError, ValueError)
"""What kafka-python raises: its own, and Python's for wrong settings and closed sockets."""


@dataclass(frozen=True, slots=True)
class TopicReport:
    """What Kafka says of a topic."""

    problem: str
    """What keeps alerts from it; empty when nothing does."""
    shape: str
    """Partitions and replicas; empty where there is a problem."""


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
        """Connect and authenticate.

        Raises:
            DeliveryFailed: Kafka does not answer, or refuses us.
        """
        try:
            self._producer = KafkaProducer(
                **client_settings(self._settings),
                **producer_settings(self._settings),
                kafka_client=self._make_client,
            )
        except LIBRARY_ERRORS as exc:
            raise translated(_cause(exc, self._client), self._settings, topic=self._settings.topic) from exc

    def send(self, alert: Alert, told: Callable[[BaseException | None], None]) -> None:
        """Hand a record to the producer; `told` hears of its acknowledgement or failure in the producer's thread.

        Raises:
            DeliveryFailed: the topic is not there, or the producer has stopped.
            MessageSizeTooLargeError: it is larger than any request may be.
        """
        try:
            future = self._producer.send(
                alert.topic, key=alert.camera.encode(), value=alert.value, headers=list(alert.headers)
            )
        except OWN_FAULT:
            raise
        except kafka_errors.KafkaError as exc:
            raise translated(exc, self._settings, topic=alert.topic) from exc
        future.add_callback(lambda _metadata: told(None))
        future.add_errback(lambda error: self._failed(error, told))

    @property
    def connected(self) -> bool:
        """Whether any broker is connected right now."""
        client = self._client
        return client is not None and any(conn.connected for conn in list(client._manager._conns.values()))

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
            with suppress(kafka_errors.KafkaTimeoutError):  # its thread still hangs; it is a daemon and sends no more
                self._producer.close(timeout=0)
        elif self._client is not None:
            self._client.close()  # the constructor failed; its sockets are ours to close
        self._producer = self._client = None

    def _failed(self, error: BaseException, told: Callable[[BaseException | None], None]) -> None:
        """Stop the producer before it sends what comes after; in its own thread."""
        if self._producer is not None:
            self._producer._sender.force_close()
        told(error)

    def _make_client(self, **settings: Any) -> Any:
        """Make the library's network client, so that it can be closed whatever becomes of the producer."""
        self._client = _make_client(**settings)
        if self._broken:
            self._hang_up(self._client)
        return self._client

    @staticmethod
    def _hang_up(client: Any) -> None:
        with suppress(RuntimeError):  # it is closed already
            client._manager._net.call_soon_threadsafe(client._manager.close)


def describe_topic(settings: KafkaConfig) -> TopicReport:
    """Connect, authenticate and ask about the topic of the alerts.

    Raises:
        DeliveryFailed: Kafka does not answer, or refuses us.
    """
    with _admin(settings) as admin:
        [topic] = admin.describe_topics([settings.topic])
    problem = _topic_problem(topic)
    return TopicReport(problem=problem, shape="" if problem else _topic_shape(topic))


def client_settings(settings: KafkaConfig) -> dict[str, Any]:
    """Return kafka-python's settings for connecting and authenticating."""
    named: dict[str, Any] = {
        "bootstrap_servers": [server.strip() for server in settings.bootstrap_servers.split(",")],
        "client_id": CLIENT_ID,
        "security_protocol": settings.security_protocol,
        "request_timeout_ms": round(settings.request_timeout_seconds * 1000),
        "bootstrap_timeout_ms": round(settings.request_timeout_seconds * 1000),
        "proxy_url": "direct://",  # no proxy: chooses `_ClosingSocket`
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
def _admin(settings: KafkaConfig) -> Iterator[Any]:
    """Connect for questions alone; close whatever comes.

    Raises:
        DeliveryFailed: Kafka does not answer, or refuses us; also while a question is asked.
    """
    clients: list[Any] = []

    def make_client(**named: Any) -> Any:
        clients.append(_make_client(**named))
        return clients[0]

    try:
        yield KafkaAdminClient(**client_settings(settings), kafka_client=make_client)
    except LIBRARY_ERRORS as exc:
        raise translated(_cause(exc, *clients), settings, topic=settings.topic) from exc
    finally:
        for client in clients:
            client._net.stop(timeout_ms=CLOSE_SECONDS * 1000)
            client.close()


def _topic_problem(topic: Any) -> str:
    """Return what keeps alerts from this topic; empty when nothing does."""
    error = kafka_errors.for_code(topic["error_code"])
    if error is kafka_errors.UnknownTopicOrPartitionError:
        return "does not exist; create it, unless the broker makes topics by itself (auto.create.topics.enable)"
    if error is kafka_errors.TopicAuthorizationFailedError:
        return "we have no permission to see it"
    if error is not kafka_errors.NoError:
        return str(error.__name__)
    leaderless = [partition["partition_index"] for partition in topic["partitions"] if partition["leader_id"] < 0]
    if leaderless:
        return f"no broker leads partitions {', '.join(map(str, leaderless))}"
    return ""


def _topic_shape(topic: Any) -> str:
    partitions = topic["partitions"]
    replicas = min(len(partition["replica_nodes"]) for partition in partitions)
    return f"good, partitions: {len(partitions)}, replicas: {replicas}"


class _ClosingSocket(KafkaNetSocket):  # type: ignore[misc]  # the library has no types
    """Connects as the library does, and closes the socket where that fails, which the library forgets.

    The library chooses this class by the scheme of its setting `proxy_url`.
    """

    SCHEMES = ("direct",)

    async def connect(self, net: Any, addrinfo: Any, socket_options: Any = (), timeout_at: float | None = None) -> Any:
        """Return a connected socket."""
        family, kind, protocol, _, address = addrinfo
        connecting = self.socket(family, kind, protocol)
        try:
            connecting.setblocking(False)
            for option in socket_options:
                connecting.setsockopt(*option)
            return await self.sock_connect(net, connecting, address, timeout_at=timeout_at)
        except BaseException:  # also when the library drops the attempt: a coroutine's end is no Exception
            connecting.close()
            raise


class _TcpTransport(KafkaTCPTransport):  # type: ignore[misc]  # the library has no types
    """Hands on what came just before the other side hung up, which the library throws away.

    A broker that refuses a password answers and hangs up; without the answer it looks as if the network had failed.
    """

    def _sock_recv(self) -> tuple[bytes, BaseException | None]:
        received, error = super()._sock_recv()
        return received, None if received else error


class _TlsTransport(KafkaSSLTransport):  # type: ignore[misc]  # the library has no types
    """The same through TLS."""

    def _sock_recv(self) -> tuple[bytes, BaseException | None]:
        received, error = super()._sock_recv()
        return received, None if received else error


class _ConnectionManager(KafkaConnectionManager):  # type: ignore[misc]  # the library has no types
    """Connects as the library does; closes what failed, bounds the TLS handshake, and keeps the cause of a failure.

    The library leaves the socket of a failed handshake open and waits for ever for a silent one, tells causes to its
    log alone, and goes on asking a broker that has refused our password, which may lock the account.
    """

    failure: BaseException | None = None
    """Why the last connection failed."""

    def close(self, node_id: Any = None, timeout_ms: float | None = None) -> None:
        """Close one connection, or all; at once, whatever it had yet to write."""
        for conn in list(self._conns.values()) if node_id is None else ():
            conn.close(kafka_errors.KafkaConnectionError("closed by us"))
        super().close(node_id, timeout_ms)

    async def _build_transport(self, node: Any, timeout_at: float | None = None) -> Any:
        options = {"proxy_url": self.config["proxy_url"], "timeout_at": timeout_at}
        connected = await create_connection(self._net, node.host, node.port, self.config["socket_options"], **options)
        give_up = None
        try:
            if timeout_at is not None:
                give_up = self._net.call_at(timeout_at, lambda: _shut(connected))
            if self.ssl_enabled:
                named = {key: value for key, value in self.config.items() if key.startswith("ssl_")}
                transport = _TlsTransport(self._net, connected, host=node.host, **named)
                connected = transport._sock
            else:
                transport = _TcpTransport(self._net, connected, host=node.host)
            await transport.handshake()
        except OSError as exc:  # TLS errors among them
            connected.close()
            late = timeout_at is not None and time.monotonic() >= timeout_at
            reason = "no answer to the TLS handshake" if late else f"TLS: {exc}"
            raise kafka_errors.KafkaConnectionError(reason) from exc
        except BaseException:  # also when the library drops the attempt: a coroutine's end is no Exception
            connected.close()
            raise
        finally:
            if give_up is not None:
                self._net.cancel(give_up)
        return transport

    async def _connect(self, node: Any, conn: Any, **options: Any) -> None:
        await super()._connect(node, conn, **options)
        if conn.init_future.failed():
            self.failure = conn.init_future.exception
        if isinstance(self.failure, REFUSALS):
            self.close()


def _make_client(**settings: Any) -> Any:
    """Make the library's network client, with our manager in it."""
    net = NetworkSelector(**settings)
    return KafkaNetClient(net=net, manager=_ConnectionManager(net, **settings))


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
        case kafka_errors.InvalidTopicError():
            reason = f"Kafka finds the name of topic {topic} invalid"
        case (
            kafka_errors.KafkaTimeoutError() | kafka_errors.KafkaConnectionError() | kafka_errors.RequestTimedOutError()
        ):
            reason = f"no answer from {servers}: {plain(error)}"
        case _:
            reason = f"{servers}: {plain(error)}"
    return DeliveryFailed(one_line(reason, redactor), refused=isinstance(error, REFUSALS))


def _shut(connected: socket.socket) -> None:
    with suppress(OSError):  # it is closed already
        socket.socket.shutdown(connected, socket.SHUT_RDWR)  # not SSLSocket's, which drops the handshake's state


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
