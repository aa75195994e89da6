"""Requests for evidence and the reports on them in; which process owes which piece out."""

from __future__ import annotations

import threading
import time

from monitor.capture.life import Life
from monitor.records import (
    BeginClip,
    EndClip,
    EvidenceKind,
    EvidenceReport,
    EvidenceRequest,
    EvidenceResult,
    TakePictures,
)


class OwedEvidence:
    """Evidence that was asked for and on which no report has come. Any thread may use it."""

    def __init__(self) -> None:
        self._owed: dict[tuple[str, EvidenceKind], tuple[Life, str]] = {}
        self._lock = threading.Lock()

    def ask(self, life: Life, request: EvidenceRequest) -> None:
        """Note that a process was asked."""
        with self._lock:
            self._owed |= {(request.alert_id, kind): (life, request.camera) for kind in kinds_of(request)}

    def answer(self, report: EvidenceReport) -> None:
        """Note that a piece was reported on."""
        with self._lock:
            self._owed.pop((report.alert_id, report.kind), None)

    def clip_owner(self, request: EndClip) -> Life | None:
        """Return the process that writes the clip that is to end."""
        with self._lock:
            return self._owed.get((request.alert_id, EvidenceKind.CLIP), (None, ""))[0]

    def is_owed_by(self, life: Life) -> bool:
        """Whether a process still has evidence to make."""
        with self._lock:
            return any(owner is life for owner, _ in self._owed.values())

    def lost_with(self, life: Life, reason: str) -> tuple[EvidenceReport, ...]:
        """Forget what a process owed; return the reports on it."""
        with self._lock:
            lost = [(asked, camera) for asked, (owner, camera) in self._owed.items() if owner is life]
            for asked, _ in lost:
                del self._owed[asked]
        return tuple(lost_piece(camera, alert_id, kind, reason) for (alert_id, kind), camera in lost)


def kinds_of(request: EvidenceRequest) -> tuple[EvidenceKind, ...]:
    """Return the pieces that a request asks for; the end of a clip asks for nothing new."""
    if isinstance(request, BeginClip):
        return (EvidenceKind.CLIP,)
    return (EvidenceKind.SNAPSHOT, EvidenceKind.STRIP) if isinstance(request, TakePictures) else ()


def moment_of(request: EvidenceRequest) -> float:
    """Return the time in seconds since 1970 around which a request wants packets."""
    if isinstance(request, BeginClip):
        return request.event_seconds
    wanted = request.frame_seconds[request.most_attended] if isinstance(request, TakePictures) else None
    return time.time() if wanted is None else wanted


def lost_piece(camera: str, alert_id: str, kind: EvidenceKind, detail: str) -> EvidenceReport:
    """Return the report on a piece that nobody can make any more."""
    return EvidenceReport(camera, alert_id, kind, EvidenceResult.LOST, detail)
