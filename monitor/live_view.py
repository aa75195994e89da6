"""The running monitor in; what its page, its probes and its programs' interface show of it, out."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import structlog

from monitor.delivery.kafka import DeliveryState
from monitor.delivery.media import MediaFolder
from monitor.delivery.outbox import Outbox, OutboxReader, OutboxStats, messages_in
from monitor.errors import OutboxUnavailable
from monitor.reporting import PipelineView, Reporter
from monitor.roster import Roster
from monitor.telemetry.logs import Said
from monitor.web.view import AlertFilter, AlertView, CameraView, Health, MonitorView

log = structlog.get_logger()
_Row = TypeVar("_Row")

BEAT_SECONDS = 0.5
STALE_BEATS = 20


class LiveView:
    """What can be seen of the monitor (`monitor.web.view.View`). Any thread may ask.

    Args:
        reporter: knows what the rooms have reported.
        roster: knows cameras and model.
        outbox: the open store of alerts.
        media: the folder of evidence.
        threads: name of each part that must go on, and whether it does.
    """

    def __init__(
        self,
        *,
        reporter: Reporter,
        roster: Roster,
        outbox: Outbox,
        media: MediaFolder,
        threads: Mapping[str, Callable[[], bool]],
    ) -> None:
        self._reporter = reporter
        self._roster = roster
        self._outbox = outbox
        self._media = media
        self._threads = threads
        self._said = Said()
        self._beat = time.monotonic()

    def beat(self) -> None:
        """Note that the main thread does its rounds; it has to every `BEAT_SECONDS`."""
        self._beat = time.monotonic()

    def live(self) -> Health:
        """Whether the process does its work."""
        beating = time.monotonic() - self._beat < BEAT_SECONDS * STALE_BEATS
        running = {name: runs() for name, runs in self._threads.items()}
        parts = {name: "running" if runs else "not running" for name, runs in running.items()}
        return Health(ok=beating and all(running.values()), parts={"main": "beating" if beating else "hangs", **parts})

    def ready(self) -> Health:
        """Whether events are recognised and kept, and Kafka does not refuse us."""
        pipeline = self._reporter.pipeline()
        refused = pipeline.delivery is DeliveryState.REFUSED
        full = pipeline.outbox is not None and pipeline.outbox.full
        parts = {
            "engine": f"{pipeline.engine} {pipeline.precision}".strip() or "none",
            "outbox": pipeline.outbox_error or _fullness(pipeline.outbox),
            "kafka": "not configured" if self._roster.config.kafka is None else _delivery(pipeline),
        }
        running = all(runs() for runs in self._threads.values())
        return Health(ok=running and not (refused or full or pipeline.outbox_error), parts=parts)

    def metrics(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        return self._reporter.metrics.render()

    def cameras(self) -> Sequence[CameraView]:
        """Return each camera as it stands."""
        watched = self._roster.watched()
        return [replace(view, watched=watched.get(view.id, {})) for view in self._reporter.cameras()]

    def monitor(self) -> MonitorView:
        """Return model, engine and delivery as they stand."""
        return self._reporter.monitor(self._roster.config.instance)

    def media(self, name: str) -> Path | None:
        """Return a file of evidence; None where there is none of that name."""
        return self._media.find(name) if self._roster.config.evidence.enabled else None

    def alerts(self, wanted: AlertFilter, *, limit: int, before: int | None = None) -> Sequence[AlertView]:
        """Return the newest alerts, newest first; none while the outbox cannot be read, which the page says."""
        newest = self._read(
            lambda history: history.newest_of_each(
                limit,
                camera=wanted.camera,
                label=wanted.label,
                since_seconds=wanted.since_seconds,
                until_seconds=wanted.until_seconds,
                before=before,
            )
        )
        return [AlertView(position, message) for position, value in newest for message in messages_in([value])]

    def alert(self, alert_id: str) -> Sequence[Mapping[str, Any]]:
        """Return the messages of one alert; none where it is not known, or while the outbox cannot be read."""
        return list(messages_in(self._read(lambda history: history.messages_of(alert_id))))

    def _read(self, read: Callable[[OutboxReader], list[_Row]]) -> list[_Row]:
        """Return what is read of the outbox; nothing while it cannot be."""
        try:
            with self._outbox.reader() as history:
                found = read(history)
        except OutboxUnavailable as exc:
            if self._said.changes("alerts", str(exc)):
                log.warning("outbox_not_read", reason=str(exc))
            return []
        self._said.changes("alerts", "")
        return found


def _delivery(pipeline: PipelineView) -> str:
    state = pipeline.delivery.value if pipeline.delivery else "connecting"
    return f"{state} {pipeline.delivery_detail}".strip()


def _fullness(stats: OutboxStats | None) -> str:
    if stats is None or not stats.crowded:
        return "writable"
    return "full" if stats.full else "crowded: updates are dropped, so that starts and ends find room"
