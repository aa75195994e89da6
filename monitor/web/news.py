"""What has just happened in; what a page that was away has missed out."""

from __future__ import annotations

import secrets
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from monitor.records import Alert, EvidenceReport, EvidenceResult

KEPT_NEWS = 512


@dataclass(frozen=True, slots=True)
class Item:
    """One thing that happened."""

    serial: int
    """From 1, one more with each."""
    kind: str
    """alert or evidence."""
    told: Mapping[str, str]


class News:
    """Alerts said and evidence kept, the newest few hundred. Every method may be called from any thread."""

    def __init__(self) -> None:
        self.run = secrets.token_hex(4)
        """Tells this run of the monitor from others, whose serials began at 1 as well."""
        self._items: deque[Item] = deque(maxlen=KEPT_NEWS)
        self._serial = 0
        self._lock = threading.Lock()

    def note_alert(self, alert: Alert) -> None:
        """Take an alert that was said."""
        phase = alert.phase.value
        self._put("alert", {"alert_id": alert.alert_id, "camera": alert.camera, "label": alert.label, "phase": phase})

    def note_evidence(self, report: EvidenceReport) -> None:
        """Take a clip or picture that is complete."""
        if report.result is EvidenceResult.KEPT:
            self._put("evidence", {"alert_id": report.alert_id, "camera": report.camera, "kind": report.kind.value})

    @property
    def serial(self) -> int:
        """Of the newest item; 0 before there is one."""
        return self._serial

    def after(self, serial: int) -> Sequence[Item] | None:
        """Return what came behind an item; None where that is more than is kept, or from another time."""
        with self._lock:
            oldest = self._items[0].serial if self._items else self._serial + 1
            if not oldest - 1 <= serial <= self._serial:
                return None
            return [item for item in self._items if item.serial > serial]

    def _put(self, kind: str, told: Mapping[str, str]) -> None:
        with self._lock:
            self._serial += 1
            self._items.append(Item(self._serial, kind, told))
