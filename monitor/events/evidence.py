"""A change in an event's life in; which files to keep of it, and the links that its messages carry, out. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from monitor.config import EvidenceConfig
from monitor.records import BeginClip, EndClip, EventChange, EvidenceRequest, Phase, Score, TakePictures

SPARE_SECONDS = 60.0
"""How much longer than the longest event a clip may get whose end was never told."""


@dataclass(frozen=True, slots=True)
class EvidenceLinks:
    """Where the files of one alert are found; None where none is kept."""

    snapshot: str | None = None
    strip: str | None = None
    clip: str | None = None


NO_LINKS = EvidenceLinks()


def snapshot_name(alert_id: str) -> str:
    """Return the file name of an alert's snapshot."""
    return f"{alert_id}.jpg"


def strip_name(alert_id: str) -> str:
    """Return the file name of an alert's attention strip."""
    return f"{alert_id}.strip.jpg"


def clip_name(alert_id: str) -> str:
    """Return the file name of an alert's clip."""
    return f"{alert_id}.mp4"


def links_of(alert_id: str, base_url: str) -> EvidenceLinks:
    """Return the links of an alert: the base, with a slash, and the file's name."""
    base = base_url.rstrip("/")
    return EvidenceLinks(
        snapshot=f"{base}/{snapshot_name(alert_id)}",
        strip=f"{base}/{strip_name(alert_id)}",
        clip=f"{base}/{clip_name(alert_id)}",
    )


def most_attended(score: Score) -> int | None:
    """Return the slot of the window's frame with the highest weight; None in a window of gaps alone."""
    weights = score.attention_per_slot
    held = [slot for slot, seconds in enumerate(score.window.frame_seconds) if seconds is not None]
    return max(held, key=lambda slot: weights[slot], default=None)


def requests_for(
    change: EventChange, alert_id: str, settings: EvidenceConfig, *, longest_seconds: float
) -> tuple[EvidenceRequest, ...]:
    """Return what is to be kept now: pictures and a clip's beginning at the start, the clip's end at the end.

    Args:
        change: what the tracker said.
        alert_id: names the files.
        settings: pre-roll and post-roll.
        longest_seconds: how long an event may last.
    """
    if change.phase is Phase.STARTED:
        begin = BeginClip(
            camera=change.camera,
            alert_id=alert_id,
            file_name=clip_name(alert_id),
            from_seconds=change.started_seconds - settings.pre_seconds,
            event_seconds=change.started_seconds,
            latest_seconds=change.started_seconds + longest_seconds + settings.post_seconds + SPARE_SECONDS,
        )
        return begin, *_pictures(change, alert_id)
    if change.phase is Phase.ENDED:
        ended = change.changed_seconds if change.ended_seconds is None else change.ended_seconds
        return (EndClip(change.camera, alert_id, until_seconds=ended + settings.post_seconds),)
    return ()


def _pictures(change: EventChange, alert_id: str) -> tuple[TakePictures, ...]:
    chosen = most_attended(change.score)
    if chosen is None:
        return ()
    return (
        TakePictures(
            camera=change.camera,
            alert_id=alert_id,
            snapshot_name=snapshot_name(alert_id),
            strip_name=strip_name(alert_id),
            frame_seconds=change.score.window.frame_seconds,
            attention=tuple(float(weight) for weight in change.score.attention_per_slot),
            most_attended=chosen,
        ),
    )
