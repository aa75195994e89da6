"""Alerts out of the outbox in, acknowledged records in Kafka out.

How the order of a camera's alerts is kept. The key is the camera's id, so its alerts share a partition. The idempotent
producer has one batch of a partition in flight at a time and sends them in order; what breaks the order is a batch that
fails for good while later ones go on. So the first failure of any record stops the producer: the callback runs in the
producer's own thread, which looks for the stop before it sends anything more. A new producer then begins again at the
oldest alert that has not been acknowledged. An alert may so arrive twice, under the same id, but never too early.

How one bad record does not block the others. When Kafka refuses a record for itself (too large, invalid), a whole batch
may be refused with it. So the suspects are then sent one at a time, and only one that is refused alone is put aside.
"""

from __future__ import annotations

import random
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from functools import partial

from monitor.config import KafkaConfig
from monitor.deadline import Deadline
from monitor.delivery.kafka_client import (
    OWN_FAULT,
    Connection,
    describe_topics,
    one_line,
    plain,
    quieten_library,
    translated,
)
from monitor.delivery.outbox import Outbox, StoredAlert
from monitor.errors import DeliveryFailed, OutboxUnavailable, StopTimedOut
from monitor.telemetry.redaction import Redactor

IN_FLIGHT_RECORDS = 500
"""Alerts handed to the producer and not yet acknowledged, at most: bounds memory; the rest waits in the outbox."""
LOOK_SECONDS = 1.0
"""How often the outbox is looked at without being told."""
LOST_SECONDS = 3.0
"""How long there may be no connection to any broker, with nothing to send, before it counts as lost."""
RETRY_MIN_SECONDS = 0.25
RETRY_MAX_SECONDS = 5.0
REFUSED_RETRY_SECONDS = 30.0
"""Longest wait after a refusal: whoever keeps the passwords may lock accounts."""
BREAK_OFF_SHARE = 0.3
"""Of the time to stop: kept for breaking off a Kafka that does not answer."""
IDLE_STOP_SECONDS = 0.2
"""Longest wait for an attempt to connect when there is nothing to send."""


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
    published_seconds: tuple[float, ...] = ()
    """Likewise from its commit to the outbox."""
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
    """Owns the thread that takes messages of one kind from the outbox to Kafka, for ever.

    One for each topic: what one topic lacks (it does not exist, we may not write to it) holds back nothing else.

    Args:
        outbox: holds the alerts until they are acknowledged.
        settings: where Kafka is.
        health: takes the messages on cameras' health instead of the alerts.
        on_report: told of acknowledgements and failures, from the publisher's thread; must not block.
    """

    def __init__(
        self,
        outbox: Outbox,
        settings: KafkaConfig,
        *,
        on_report: Callable[[DeliveryReport], None],
        health: bool = False,
    ) -> None:
        self._outbox = outbox
        self._health = health
        self._settings = settings
        self._topic = settings.health_topic if health else settings.topic
        """Where everything goes, whatever it was called when an alert was said: one that was mistyped is no more."""
        self._on_report = on_report
        self._redactor = Redactor(settings.secrets())
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._broken_off = threading.Event()
        self._connection: Connection | None = None
        self._outcomes: deque[tuple[StoredAlert, BaseException | None]] = deque()
        self._in_flight: dict[int, StoredAlert] = {}
        self._suspects: set[int] = set()
        self._unsettled: list[StoredAlert] = []
        self._failures = 0
        self._connected_at = 0.0
        self._thread = threading.Thread(
            target=self._run, name=f"publisher-{'health' if health else 'alerts'}", daemon=True
        )

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
                except Exception as exc:  # top of the thread: every alert is in the outbox, so it begins again there
                    self._recover(DeliveryFailed(f"unexpected {type(exc).__name__}: {exc}"))
        finally:
            self._disconnect()
            with suppress(OutboxUnavailable):  # then these are sent again after the next start, under their ids
                self._acknowledge()

    def _done(self) -> bool:
        """Whether to end: asked to, and nothing more can be sent."""
        if not self._stopping.is_set():
            return False
        return self._broken_off.is_set() or self._failures > 0 or not self._waiting()

    def _waiting(self) -> bool:
        try:
            return bool(self._in_flight or self._outcomes or self._outbox.pending(1, health=self._health))
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
        self._look_at_connection()

    def _look_at_connection(self) -> None:
        """Notice that Kafka has gone while there is nothing to send; what is in flight notices by itself.

        Raises:
            DeliveryFailed: there has been no connection for a while.
        """
        now = time.monotonic()
        if self._in_flight or self._connection is None or self._connection.connected:
            self._connected_at = now
        elif now - self._connected_at > LOST_SECONDS:
            raise DeliveryFailed(f"the connection to {self._settings.bootstrap_servers} was lost")

    def _connect(self) -> None:
        connection = Connection(self._settings)
        self._connection = connection  # before it opens, so that `stop` can break it off
        if self._broken_off.is_set():
            connection.break_off()
        connection.open()
        self._connected_at = time.monotonic()
        if not (self._failures and self._outbox.pending(1, health=self._health)):
            self._failures = 0  # nothing waits that could fail again; what comes now is sent even before a stop
            self._on_report(DeliveryReport(DeliveryState.CONNECTED))
        # Otherwise whatever failed before may fail again: that all is well is said once a message has arrived.

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
        self._on_report(DeliveryReport(state, detail=one_line(str(exc), self._redactor), failed=max(1, lost)))
        growing = min(RETRY_MAX_SECONDS, RETRY_MIN_SECONDS * 2 ** min(self._failures - 1, 10))
        longest = REFUSED_RETRY_SECONDS if refused else growing
        self._stopping.wait(random.uniform(longest / 2, longest))

    def _send(self) -> None:
        """Hand waiting alerts to the producer, oldest first, behind those in flight."""
        connection = self._connection
        limit = 1 if self._suspects else IN_FLIGHT_RECORDS
        if connection is None or len(self._in_flight) >= limit:
            return
        newest = max(self._in_flight, default=0)
        room = limit - len(self._in_flight)
        for stored in self._outbox.pending(room, after_position=newest, health=self._health):
            if self._broken_off.is_set():
                return
            self._in_flight[stored.position] = stored
            try:
                connection.send(stored.alert, partial(self._told, stored), topic=self._topic)
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
        self._failures = 0  # not before: a connection alone does not say that the topic takes anything
        for stored in settled:
            self._in_flight.pop(stored.position, None)
            self._suspects.discard(stored.position)
        now = time.time()
        seconds = tuple(max(0.0, now - stored.alert.received_seconds) for stored in settled)
        published = tuple(max(0.0, now - stored.committed_seconds) for stored in settled)
        self._on_report(
            DeliveryReport(
                DeliveryState.CONNECTED, acknowledged_seconds=seconds, published_seconds=published, acknowledged=settled
            )
        )

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
        raise translated(cause, self._settings, topic=self._topic)

    def _bury(self, stored: StoredAlert, error: BaseException) -> None:
        reason = one_line(f"{type(error).__name__}: {plain(error)}", self._redactor)
        self._outbox.dead_letter(stored.position, reason)
        self._suspects.discard(stored.position)
        self._on_report(DeliveryReport(DeliveryState.CONNECTED, dead_lettered=1))


def probe_kafka(settings: KafkaConfig) -> KafkaReport:
    """Connect, authenticate, and say in one line what is wrong with the connection, and with each topic."""
    quieten_library()
    where = f"Kafka at {settings.bootstrap_servers}"
    who = f" as {settings.sasl_username}" if settings.sasl_mechanism else ""
    try:
        topics = describe_topics(settings)
    except DeliveryFailed as exc:
        return KafkaReport(ok=False, lines=(f"{where}: {exc}",))
    lines = (f"topic {topic.topic}: {topic.problem or topic.shape}" for topic in topics)
    return KafkaReport(ok=not any(topic.problem for topic in topics), lines=(f"{where}: connected{who}", *lines))
