"""Alerts out of the outbox in, acknowledged records in Kafka out. The only door to `kafka` (kafka-python).

How the order of a camera's alerts is kept. The key is the camera's id, so its alerts share a partition. The idempotent
producer has one batch of a partition in flight at a time and sends them in order; what breaks the order is a batch that
fails for good while later ones go on. So the first failure of any record stops the producer: the callback runs in the
producer's own thread, which looks for the stop before it sends anything more. A new producer then begins again at the
oldest alert that has not been acknowledged. An alert may so arrive twice, under the same id, but never too early.

How one bad record does not block the others. When Kafka refuses a record for itself (too large, invalid), a whole batch
may be refused with it. So the suspects are then sent one at a time, and only one that is refused alone is put aside.
"""

from __future__ import annotations

import logging
import random
import re
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from typing import Any

from kafka import KafkaAdminClient, KafkaProducer
from kafka import errors as kafka_errors
from kafka.net.compat import KafkaNetClient
from kafka.net.inet import KafkaNetSocket, create_connection
from kafka.net.manager import KafkaConnectionManager
from kafka.net.selector import NetworkSelector
from kafka.net.transport import KafkaSSLTransport, KafkaTCPTransport

from monitor.config import KafkaConfig
from monitor.deadline import Deadline
from monitor.delivery.outbox import Outbox, StoredAlert
from monitor.errors import DeliveryFailed, OutboxUnavailable, StopTimedOut
from monitor.records import Alert
from monitor.telemetry.redaction import Redactor

CLIENT_ID = "video-event-monitor"
IN_FLIGHT_RECORDS = 500
"""Alerts handed to the producer and not yet acknowledged, at most: bounds memory; the rest waits in the outbox."""
LOOK_SECONDS = 1.0
"""How often the outbox is looked at without being told."""
RETRY_MIN_SECONDS = 0.25
RETRY_MAX_SECONDS = 5.0
CLOSE_SECONDS = 2.0
"""Longest wait for the producer's thread, after everything it waits for has been broken off."""
BREAK_OFF_SHARE = 0.3
"""Of the time to stop: kept for breaking off a Kafka that does not answer."""
IDLE_STOP_SECONDS = 0.2
"""Longest wait for an attempt to connect when there is nothing to send."""
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


class DeliveryState(StrEnum):
    """Where we stand with Kafka."""

    CONNECTED = "connected"
    UNREACHABLE = "unreachable"
    REFUSED = "refused"
    """Kafka answered and does not let us in: wrong password, no permission."""


@dataclass(frozen=True, slots=True)
class DeliveryReport:
    """What happened since the last report."""

    state: DeliveryState
    detail: str = ""
    """One line for a person, redacted; empty when all is well."""
    acknowledged_seconds: tuple[float, ...] = ()
    """For each alert acknowledged now: seconds from the arrival of its newest frame."""
    acknowledged: tuple[StoredAlert, ...] = ()
    """The same alerts, in the order in which Kafka acknowledged them."""
    failed: int = 0
    """Alerts that were sent and not acknowledged: they are sent again. 1 for a failed connection."""
    dead_lettered: int = 0
    """Alerts that Kafka refused for themselves."""


@dataclass(frozen=True, slots=True)
class KafkaReport:
    """What `monitor check --probe` says of Kafka."""

    ok: bool
    lines: tuple[str, ...]
    """One for the connection, then one for each topic."""


class Publisher:
    """Owns the thread that takes alerts from the outbox to Kafka, for ever.

    Args:
        outbox: holds the alerts until they are acknowledged.
        settings: where Kafka is.
        on_report: told of acknowledgements and failures, from the publisher's thread; must not block.
    """

    def __init__(self, outbox: Outbox, settings: KafkaConfig, *, on_report: Callable[[DeliveryReport], None]) -> None:
        self._outbox = outbox
        self._settings = settings
        self._on_report = on_report
        self._redactor = Redactor(settings.secrets())
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._broken_off = threading.Event()
        self._connection: _Connection | None = None
        self._outcomes: deque[tuple[StoredAlert, BaseException | None]] = deque()
        self._in_flight: dict[int, StoredAlert] = {}
        self._suspects: set[int] = set()
        self._unsettled: list[StoredAlert] = []
        self._failures = 0
        self._thread = threading.Thread(target=self._run, name="publisher", daemon=True)

    def start(self) -> None:
        """Start the thread, which connects; that Kafka is away is no error."""
        quieten_library()
        self._thread.start()

    def notify(self) -> None:
        """Say that there are new alerts in the outbox."""
        self._wake.set()

    def stop(self, deadline: Deadline) -> None:
        """Send what waits as long as Kafka answers and time is left, then close; the rest stays in the outbox.

        Raises:
            StopTimedOut: the thread did not end in time (name resolution can hang in the operating system).
        """
        self._stopping.set()
        self._wake.set()
        if self._thread.ident is None:
            return
        patience = deadline.remaining() * (1 - BREAK_OFF_SHARE)
        self._thread.join(patience if self._waiting() else min(patience, IDLE_STOP_SECONDS))
        if self._thread.is_alive():
            self._broken_off.set()
            self._wake.set()
            connection = self._connection
            if connection is not None:
                connection.break_off()
            self._thread.join(deadline.remaining())
        if self._thread.is_alive():
            raise StopTimedOut("the publisher did not stop in time; what waits is in the outbox")

    @property
    def alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    # --- the thread ----------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while not self._done():
                try:
                    self._step()
                except (DeliveryFailed, OutboxUnavailable) as exc:
                    self._recover(exc)
                except (
                    Exception
                ) as exc:  # top of the thread: every alert is in the outbox, so beginning again loses none
                    self._recover(DeliveryFailed(f"unexpected {type(exc).__name__}: {exc}"))
        finally:
            self._disconnect()

    def _done(self) -> bool:
        """Whether to end: asked to, and nothing more can be sent."""
        if not self._stopping.is_set():
            return False
        return self._broken_off.is_set() or self._failures > 0 or not self._waiting()

    def _waiting(self) -> bool:
        try:
            return bool(self._in_flight or self._outcomes or self._outbox.pending(1))
        except OutboxUnavailable:
            return False

    def _step(self) -> None:
        """Connect where need be, note what came back, send what waits, and rest until something happens."""
        if self._connection is None:
            self._connect()
        self._wake.clear()
        self._settle()
        self._send()
        if not self._outcomes:
            self._wake.wait(LOOK_SECONDS)

    def _connect(self) -> None:
        connection = _Connection(self._settings)
        self._connection = connection  # before it opens, so that `stop` can break it off
        if self._broken_off.is_set():
            connection.break_off()
        connection.open()
        self._failures = 0
        self._on_report(DeliveryReport(DeliveryState.CONNECTED))

    def _disconnect(self) -> None:
        """Close the connection; note what was acknowledged at the last moment, forget what else was in flight."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        while self._outcomes:
            stored, error = self._outcomes.popleft()
            if error is None:
                self._unsettled.append(stored)
        self._in_flight.clear()

    def _recover(self, exc: DeliveryFailed | OutboxUnavailable) -> None:
        """After a failure: begin anew at the oldest alert not acknowledged, after a pause."""
        lost = len(self._in_flight)
        self._disconnect()
        self._failures += 1
        if self._broken_off.is_set():
            return  # our own doing
        refused = isinstance(exc, DeliveryFailed) and exc.refused
        state = DeliveryState.REFUSED if refused else DeliveryState.UNREACHABLE
        self._on_report(DeliveryReport(state, detail=_one_line(str(exc), self._redactor), failed=max(1, lost)))
        longest = min(RETRY_MAX_SECONDS, RETRY_MIN_SECONDS * 2 ** min(self._failures - 1, 10))
        self._stopping.wait(random.uniform(longest / 2, longest))

    def _send(self) -> None:
        """Hand waiting alerts to the producer, oldest first, behind those in flight."""
        connection = self._connection
        limit = 1 if self._suspects else IN_FLIGHT_RECORDS
        if connection is None or len(self._in_flight) >= limit:
            return
        newest = max(self._in_flight, default=0)
        for stored in self._outbox.pending(limit - len(self._in_flight), after_position=newest):
            if self._broken_off.is_set():
                return
            self._in_flight[stored.position] = stored
            try:
                connection.send(stored.alert, partial(self._told, stored))
            except OWN_FAULT as exc:  # the producer itself finds it too large
                del self._in_flight[stored.position]
                self._bury(stored, exc)

    def _told(self, stored: StoredAlert, error: BaseException | None) -> None:
        """Note one record's outcome; in the producer's thread."""
        self._outcomes.append((stored, error))
        self._wake.set()

    def _settle(self) -> None:
        """Note in the outbox what Kafka acknowledged or refused.

        Raises:
            DeliveryFailed: a record failed, so this connection must send no more.
        """
        failures: list[tuple[StoredAlert, BaseException]] = []
        while self._outcomes:
            stored, error = self._outcomes.popleft()
            if error is None:
                self._unsettled.append(stored)
            else:
                failures.append((stored, error))
        self._acknowledge()
        if failures:
            self._judge(failures)

    def _acknowledge(self) -> None:
        """Tell the outbox what Kafka has; while it cannot be told, nothing is forgotten and nothing more is sent."""
        if not self._unsettled:
            return
        settled = tuple(self._unsettled)
        self._outbox.acknowledge([stored.position for stored in settled])
        self._unsettled.clear()
        for stored in settled:
            self._in_flight.pop(stored.position, None)
            self._suspects.discard(stored.position)
        now = time.time()
        seconds = tuple(max(0.0, now - stored.alert.received_seconds) for stored in settled)
        self._on_report(DeliveryReport(DeliveryState.CONNECTED, acknowledged_seconds=seconds, acknowledged=settled))

    def _judge(self, failures: Sequence[tuple[StoredAlert, BaseException]]) -> None:
        """Put a record aside that was refused alone, suspect those refused together, and give up the connection."""
        cause = failures[0][1]
        refused = [(stored, error) for stored, error in failures if isinstance(error, OWN_FAULT)]
        if refused and len(self._in_flight) == 1:
            stored, error = refused[0]
            self._in_flight.pop(stored.position, None)
            self._bury(stored, error)
            self._disconnect()
            return
        if refused:
            self._suspects.update(stored.position for stored, _ in refused)
            self._disconnect()
            return
        raise _failure(cause, self._settings, topic=failures[0][0].alert.topic)

    def _bury(self, stored: StoredAlert, error: BaseException) -> None:
        reason = _one_line(str(error), self._redactor)
        self._outbox.dead_letter(stored.position, reason)
        self._suspects.discard(stored.position)
        self._on_report(DeliveryReport(DeliveryState.CONNECTED, dead_lettered=1))


class _Connection:
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
            raise _failure(_cause(exc, self._client), self._settings, topic=self._settings.topic) from exc

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
            raise _failure(exc, self._settings, topic=alert.topic) from exc
        future.add_callback(lambda _metadata: told(None))
        future.add_errback(lambda error: self._failed(error, told))

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
        "metrics_enabled": False,
    }


def quieten_library() -> None:
    """Let kafka-python's own log say nothing: the failures are reported in one redacted line instead."""
    logger = logging.getLogger("kafka")
    logger.propagate = False
    if not any(isinstance(handler, logging.NullHandler) for handler in logger.handlers):
        logger.addHandler(logging.NullHandler())


def probe_kafka(settings: KafkaConfig) -> KafkaReport:
    """Connect, authenticate, and say in one line what is wrong with the connection, and with each topic."""
    quieten_library()
    where = f"Kafka at {settings.bootstrap_servers}"
    who = f" as {settings.sasl_username}" if settings.sasl_mechanism else ""
    try:
        with _admin(settings) as admin:
            [topic] = admin.describe_topics([settings.topic])
    except DeliveryFailed as exc:
        return KafkaReport(ok=False, lines=(f"{where}: {exc}",))
    problem = _topic_problem(topic)
    line = f"topic {settings.topic}: {problem or _topic_shape(topic)}"
    return KafkaReport(ok=not problem, lines=(f"{where}: connected{who}", line))


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
        raise _failure(_cause(exc, *clients), settings, topic=settings.topic) from exc
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


class _ClosingSocket(KafkaNetSocket):
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


class _ConnectionManager(KafkaConnectionManager):
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
                transport = KafkaSSLTransport(self._net, connected, host=node.host, **named)
                connected = transport._sock
            else:
                transport = KafkaTCPTransport(self._net, connected, host=node.host)
            await transport.handshake()
        except OSError as exc:  # TLS errors among them
            connected.close()
            raise kafka_errors.KafkaConnectionError(f"TLS: {exc}") from exc
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


def _failure(error: BaseException, settings: KafkaConfig, *, topic: str) -> DeliveryFailed:
    """Translate an error of the library into ours, in words that say what to do."""
    servers, redactor = settings.bootstrap_servers, Redactor(settings.secrets())
    match error:
        case kafka_errors.SaslAuthenticationFailedError():
            reason = f"Kafka refuses user name or password ({error})"
        case kafka_errors.TopicAuthorizationFailedError():
            reason = f"Kafka does not permit writing to topic {topic}"
        case kafka_errors.UnknownTopicOrPartitionError():
            reason = f"topic {topic} does not exist"
        case kafka_errors.InvalidTopicError():
            reason = f"Kafka finds the name of topic {topic} invalid"
        case (
            kafka_errors.KafkaTimeoutError() | kafka_errors.KafkaConnectionError() | kafka_errors.RequestTimedOutError()
        ):
            reason = f"no answer from {servers}: {_plain(error)}"
        case _:
            reason = f"{servers}: {_plain(error)}"
    return DeliveryFailed(_one_line(reason, redactor), refused=isinstance(error, REFUSALS))


def _shut(connected: socket.socket) -> None:
    with suppress(OSError):  # it is closed already
        connected.shutdown(socket.SHUT_RDWR)


def _plain(error: BaseException) -> str:
    """Return the library's words without its error numbers and repeated class names."""
    name = type(error).__name__
    words = re.sub(rf"^(\[Error -?\d+\] )?({name}(: )?)*", "", str(error))
    return words or name


def _one_line(text: str, redactor: Redactor) -> str:
    return redactor.clean(" ".join(text.split()))[:DETAIL_CHARACTERS]
