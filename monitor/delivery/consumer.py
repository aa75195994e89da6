"""Records of a topic in; messages that keep to their schema, each told once, out. What `monitor consume` does.

Kafka may hold a message twice after a failure. Equal ids have equal contents, so a repeated id is dropped here. The
last ids are remembered, which is more than a producer that begins again can repeat.
"""

from __future__ import annotations

import json
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from monitor.config import KafkaConfig
from monitor.delivery.kafka_client import Received, Subscription, one_line, quieten_library
from monitor.errors import DeliveryFailed
from monitor.events.messages import AlertMessage, HealthMessage
from monitor.telemetry.redaction import Redactor

REMEMBERED_IDS = 100_000
"""Ids kept to find repetitions; the oldest is forgotten first. About 20 MB."""
POLL_SECONDS = 0.5
POLL_RECORDS = 500
ATTEMPT_SECONDS = 3.0
"""Longest single attempt to connect: a stop waits no longer."""
PROBLEMS_SHOWN = 3


@dataclass(slots=True)
class ConsumerCounts:
    """What came so far."""

    told: int = 0
    """Messages handed on."""
    repeated: int = 0
    """Dropped, because their id had come before."""
    invalid: int = 0
    """Dropped, because they do not keep to the schema."""


class Consumer:
    """Reads the topic of the alerts, or that of the cameras' health.

    Args:
        settings: where Kafka is, and the names of the topics.
        health: read the messages on cameras' health instead of the alerts.
        group: the consumer group whose place is kept in Kafka; empty: none is.
        from_beginning: whether to begin at the oldest record where no place is kept.
        on_remark: told in one line, free of secrets, what a person should know: a record that is no message, a Kafka
            that has gone.
    """

    def __init__(
        self,
        settings: KafkaConfig,
        *,
        health: bool = False,
        group: str = "",
        from_beginning: bool = False,
        on_remark: Callable[[str], None],
    ) -> None:
        self.counts = ConsumerCounts()
        self._settings = settings
        self._topic = settings.health_topic if health else settings.topic
        self._schema: type[AlertMessage] | type[HealthMessage] = HealthMessage if health else AlertMessage
        self._group = group
        self._from_beginning = from_beginning
        self._on_remark = on_remark
        self._redactor = Redactor(settings.secrets())
        self._known = _KnownIds(REMEMBERED_IDS)
        self._remark = ""

    def batches(self, stop: threading.Event, *, maximum: int | None = None) -> Iterator[list[dict[str, Any]]]:
        """Yield messages as they come, in order within a camera, until asked to stop or `maximum` have been told.

        Messages are given as they stand in Kafka, with keys that this version may not know. With a group, those of a
        batch count as taken when the next one is asked for.

        Raises:
            DeliveryFailed: Kafka could not be reached at the beginning, or refuses us. That it goes away later is no
                error: it is tried again for as long as it takes.
        """
        quieten_library()
        subscription = self._open(stop)
        if subscription is None:
            return
        try:
            while not stop.is_set():
                left = POLL_RECORDS if maximum is None else min(POLL_RECORDS, maximum - self.counts.told)
                if left <= 0:
                    return
                messages = self._accepted(subscription.poll(POLL_SECONDS, limit=left))
                if messages:
                    yield messages
                self._look_at(subscription)
        finally:
            subscription.close()

    def _open(self, stop: threading.Event) -> Subscription | None:
        """Connect, in short attempts so that a stop is heeded; None when stopped.

        Raises:
            DeliveryFailed: Kafka did not answer within the configured time, or refuses us.
        """
        give_up = time.monotonic() + self._settings.request_timeout_seconds
        while not stop.is_set():
            subscription = Subscription(
                self._settings, self._topic, group=self._group, from_beginning=self._from_beginning
            )
            try:
                subscription.open(wait_seconds=min(ATTEMPT_SECONDS, self._settings.request_timeout_seconds))
            except DeliveryFailed as exc:
                if exc.refused or time.monotonic() >= give_up:
                    raise
                stop.wait(0.2)
            else:
                return subscription
        return None

    def _look_at(self, subscription: Subscription) -> None:
        """Remark when something begins or ends to keep messages from us."""
        remark = ""
        if not subscription.connected:
            remark = f"the connection to {self._settings.bootstrap_servers} was lost; trying again"
        elif not subscription.topic_exists:
            remark = f"topic {self._topic} does not exist yet; waiting for it"
        if remark != self._remark:
            self._on_remark(remark or f"topic {self._topic} is read")
            self._remark = remark

    def _accepted(self, records: list[Received]) -> list[dict[str, Any]]:
        """Return the messages among the records that are valid and new; count the others."""
        accepted = []
        for record in records:
            problem = self._problem(record)
            if problem:
                self.counts.invalid += 1
                where = f"partition {record.partition}, offset {record.offset}"
                self._on_remark(one_line(f"{where}: no message of the schema: {problem}", self._redactor))
            elif self._known.has(record.headers["ce_id"]):
                self.counts.repeated += 1
            else:
                self.counts.told += 1
                accepted.append(json.loads(record.value))
        return accepted

    def _problem(self, record: Received) -> str:
        """Return in which way a record does not keep to the schema; empty when it does."""
        if not record.headers.get("ce_id"):
            return "header ce_id is missing"
        try:
            self._schema.model_validate_json(record.value, strict=True)
        except ValidationError as exc:
            problems = exc.errors(include_url=False, include_input=False)
            told = [f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}" for problem in problems[:PROBLEMS_SHOWN]]
            more = len(problems) - len(told)
            return "; ".join(told).removeprefix(": ") + (f"; and {more} more" if more else "")
        return ""


class _KnownIds:
    """The last ids that came.

    Args:
        capacity: how many are remembered.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._ids: OrderedDict[str, None] = OrderedDict()

    def has(self, name: str) -> bool:
        """Return whether an id came before, and remember it."""
        if name in self._ids:
            self._ids.move_to_end(name)
            return True
        self._ids[name] = None
        if len(self._ids) > self._capacity:
            self._ids.popitem(last=False)
        return False
