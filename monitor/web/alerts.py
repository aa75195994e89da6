"""Alerts of the store in; pages of them, and the paths of what there is to look at, out."""

from __future__ import annotations

from collections.abc import Sequence

from monitor.events.evidence import clip_name, snapshot_name, strip_name
from monitor.web.view import AlertFilter, AlertView, View

MEDIA_TYPES = {".jpg": "image/jpeg", ".mp4": "video/mp4"}
MOST_POSITION = 2**63 - 1
"""The store counts in 64 bits."""
NAMES = {"snapshot": snapshot_name, "strip": strip_name, "clip": clip_name}


def position_of(text: str) -> int | None:
    """Return the position that an address names; None where it names none."""
    if not text.isdecimal() or len(text) > len(str(MOST_POSITION)):
        return None
    return min(int(text), MOST_POSITION)


def page_of(
    view: View, wanted: AlertFilter, *, before: int | None, limit: int
) -> tuple[Sequence[AlertView], int | None]:
    """Return a page of alerts, newest first, and the position behind which the next one begins; None on the last."""
    found = view.alerts(wanted, limit=limit + 1, before=before)
    return found[:limit], found[limit - 1].position if len(found) > limit else None


def evidence_of(view: View, alert_id: str) -> dict[str, str]:
    """Return the paths of an alert's files that are complete: `snapshot`, `strip`, `clip`."""
    names = {kind: name_of(alert_id) for kind, name_of in NAMES.items()}
    return {kind: f"/media/{name}" for kind, name in names.items() if view.media(name) is not None}
