"""The records that travel between stages: what capture tells scoring, scoring tells events, events tell delivery.

All are frozen. Times are seconds since the Unix epoch (UTC) as float unless the name says otherwise;
in a replay they are seconds since the start of the video.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray


class CameraState(StrEnum):
    """Where a camera stands, as its capture thread sees it."""

    CONNECTING = "connecting"
    ONLINE = "online"
    OFFLINE = "offline"
    REFUSED = "refused"
    """The camera refused our credentials; retried slowly, since cameras lock accounts."""


class FailureReason(StrEnum):
    """Why a stream failed. Decides the message and how soon to try again."""

    REFUSED = "refused"
    NOT_FOUND = "not_found"
    NAME_NOT_RESOLVED = "name_not_resolved"
    CONNECTION_REFUSED = "connection_refused"
    TIMED_OUT = "timed_out"
    STALLED = "stalled"
    DECODE_ERROR = "decode_error"
    UNSUPPORTED = "unsupported"
    ENDED = "ended"
    SERVER_ERROR = "server_error"
    WORKER_LOST = "worker_lost"
    INTERNAL = "internal"
    """Our own unexpected error."""


class DropReason(StrEnum):
    """Why a sample never reached a window."""

    CAPTURE_QUEUE = "capture_queue"
    """The worker's queue to the service was full."""
    SCORING_QUEUE = "scoring_queue"
    """The service's queue to the engine was full."""
    LATE = "late"
    """A sample of the same slot, or of a later one, had already been scored."""


class GateState(StrEnum):
    """How much of a camera's stream is decoded."""

    OFF = "off"
    """All of it, by configuration."""
    AWAKE = "awake"
    """All of it, since something moves, or moved a short while ago."""
    IDLE = "idle"
    """Keyframes, since nothing moves."""
    UNSUITED = "unsuited"
    """All of it, since the stream's keyframes come too seldom, or are none."""


class WakeReason(StrEnum):
    """What woke an idle camera."""

    SIZES = "sizes"
    """The packets between the keyframes became larger or smaller than is usual for it."""
    PICTURE = "picture"
    """A keyframe differed from the one before."""
    STREAM = "stream"
    """The stream's keyframes are of no use any more."""


class ClockSource(StrEnum):
    """Which clock a time came from."""

    RTCP = "rtcp"
    HOST = "host"


@dataclass(frozen=True, slots=True)
class Sample:
    """What is taken from a camera for one slot of the sampling grid, scaled for the model."""

    camera: str
    slot: int
    """The grid's cell that this sample fills: `capture.sampler.slot_of(time_seconds, sample_fps)`."""
    time_seconds: float
    """When the newest picture was seen, on the host's clock, free of network bursts."""
    received_seconds: float
    """When the newest picture's packet had arrived, on the host's clock; latency counts from here."""
    camera_seconds: float | None
    """The newest picture's time on the camera's own clock (RTCP sender report); None when it tells none."""
    pictures: NDArray[np.uint8]
    """(K, H, W, 3) uint8 RGB, newest last, `context_spacing_seconds` apart."""
    idle: bool = False
    """Whether the camera's gate was idle: the slots behind this one are left out, unless it wakes."""
    idle_slots: int = 0
    """Slots right before this one that an idle gate left out."""


@dataclass(frozen=True, slots=True)
class CameraStatus:
    """A change of a camera's state."""

    camera: str
    state: CameraState
    time_seconds: float
    reason: FailureReason | None = None
    detail: str = ""
    """One line for a person, redacted; empty when all is well."""
    attempt: int = 0
    """How many connections in a row have failed."""
    retry_seconds: float | None = None
    """How long until the next attempt; None when none is planned."""
    software_because: str = ""
    """Why an online camera is decoded in software although hardware was asked for; empty when it is as asked."""


@dataclass(frozen=True, slots=True)
class ClipStreamStatus:
    """A camera's large stream, which clips are made of, came or was lost; detection does not depend on it."""

    camera: str
    online: bool
    reason: FailureReason | None = None
    detail: str = ""
    """One line for a person, redacted; empty when all is well."""
    retry_seconds: float | None = None
    """How long until the next attempt; None when none is planned."""


@dataclass(frozen=True, slots=True)
class CaptureCounts:
    """What one camera's capture thread counted since it last told: differences, not totals."""

    camera: str
    packets: int = 0
    bytes_received: int = 0
    frames_decoded: int = 0
    frames_skipped: int = 0
    """Not decoded, since nothing needs them."""
    decode_errors: int = 0
    samples: int = 0
    dropped: Mapping[DropReason, int] = field(default_factory=dict)
    last_frame_seconds: float | None = None
    skew_seconds: float | None = None
    """The camera's clock less the host's; None when the camera tells no clock."""
    ring_bytes: int | None = None
    """What the packets kept for evidence take; None when none are kept."""
    clip_ring_bytes: int | None = None
    """Likewise of the large stream; None where the camera has none."""
    contrast: float | None = None
    """Standard deviation of the newest sample's picture, in grey levels 0 to 255; None without a sample."""
    gate: GateState | None = None
    """Where the camera's gate stands."""
    woken: Mapping[WakeReason, int] = field(default_factory=dict)
    """How often it woke."""
    change: float | None = None
    """Largest mean difference between neighbouring samples' pictures, in grey levels; None without two samples."""


@dataclass(frozen=True, slots=True)
class Window:
    """T consecutive slots of one camera's sampling grid, each an embedding or a gap."""

    camera: str
    first_slot: int
    start_seconds: float
    """Beginning of the first slot: `first_slot / sample_fps`; equal on every replica."""
    end_seconds: float
    """End of the last slot."""
    embeddings: NDArray[np.float32]
    """(T, D) float32; zeros where the slot is a gap."""
    mask: NDArray[np.bool_]
    """(T,) bool; True where the slot holds an embedding."""
    frame_seconds: tuple[float | None, ...]
    """T times of the newest picture of each slot's sample; None where the slot is a gap."""
    received_seconds: float
    """Arrival of the newest sample in the window."""
    camera_seconds: float | None
    """The newest sample's time on the camera's own clock."""
    degraded: bool = False
    """True when load shedding lengthened the stride before this window."""
    idle_seconds: float = 0.0
    """How much of the time since the window before an idle gate left out: nothing moved, so what held then went on."""

    @property
    def coverage(self) -> float:
        """Share of the slots that hold an embedding, 0 to 1."""
        return float(self.mask.mean())


@dataclass(frozen=True, slots=True)
class Score:
    """The head's answer for one window."""

    window: Window
    probabilities: NDArray[np.float32]
    """(L,) float32, one per label of the bundle, sums to 1."""
    attention: NDArray[np.float32]
    """(R, T) float32; each hop's weights over the slots sum to 1, gaps have 0."""

    @property
    def attention_per_slot(self) -> NDArray[np.float32]:
        """(T,) float32: the hops' mean, sums to 1. What a person is shown."""
        merged: NDArray[np.float32] = self.attention.mean(axis=0)
        return merged


class HealthState(StrEnum):
    """How a camera is, as it is told to consumers; connection before picture."""

    ONLINE = "online"
    OFFLINE = "offline"
    REFUSED = "refused"
    FROZEN = "frozen"
    """Pictures arrive and are all the same one."""
    DARK = "dark"
    """Pictures arrive and show no contrast."""


@dataclass(frozen=True, slots=True)
class HealthChange:
    """A change of a camera's health that has held long enough to be told."""

    camera: str
    state: HealthState
    previous: HealthState | None
    """What was told before; None for the first."""
    since_seconds: float
    """When the state began to hold."""
    changed_seconds: float
    """When it had held long enough."""
    reason: FailureReason | None
    """For offline and refused."""
    detail: str
    """One line for a person, redacted."""


class Phase(StrEnum):
    """A moment in an event's life."""

    STARTED = "started"
    UPDATED = "updated"
    ENDED = "ended"


class ChangeReason(StrEnum):
    """Why an event was updated or ended."""

    PEAK = "peak"
    CLASS = "class"
    END = "end"
    MAX_LENGTH = "max_length"
    CAMERA_LOST = "camera_lost"
    SHUTDOWN = "shutdown"
    RECOVERED = "recovered"
    CAMERA_REMOVED = "camera_removed"
    """A reload of the configuration took the camera away."""
    LABEL_REMOVED = "label_removed"
    """Another model, or a reload of the configuration, watches for the label no longer."""


@dataclass(frozen=True, slots=True)
class Threshold:
    """Where an event begins and where it stops, in probability; `off` is at most `on`."""

    on: float
    off: float


@dataclass(frozen=True, slots=True)
class EventChange:
    """One step in the life of an event: what the tracker says, and what an alert is made of."""

    camera: str
    label: str
    phase: Phase
    reason: ChangeReason | None
    """None for a start."""
    sequence: int
    """0 for the start, then one more with each change."""
    started_seconds: float
    """Start of the event's first window; with camera and label it makes the alert's id."""
    changed_seconds: float
    """When this change was decided, in the time of the samples."""
    ended_seconds: float | None
    """End of the last window that held; None while the event goes on."""
    smoothed_score: float
    """The smoothed probability at this change, 0 to 1."""
    peak_score: float
    peak_seconds: float
    """Most attended frame's time in the window of the peak."""
    threshold: Threshold
    score: Score
    """The window that decided this change; for an end without one, the last that held."""


@dataclass(frozen=True, slots=True)
class Alert:
    """One message for the sink, complete: what rests in the outbox and goes to Kafka as it is."""

    alert_id: str
    sequence: int
    camera: str
    label: str
    """The event's label; empty for a message on the camera's health."""
    phase: Phase
    received_seconds: float
    """Arrival of the newest frame of the deciding window; capture-to-acknowledged counts from here."""
    topic: str
    """What its topic was called when it was said; it goes to where the configuration says as it is sent."""
    headers: tuple[tuple[str, bytes], ...]
    """CloudEvents binary-mode headers."""
    value: bytes
    """The JSON message, UTF-8."""


class EvidenceKind(StrEnum):
    """What a person looks at."""

    SNAPSHOT = "snapshot"
    STRIP = "strip"
    CLIP = "clip"


class EvidenceResult(StrEnum):
    """What became of a piece of evidence."""

    KEPT = "kept"
    FAILED = "failed"
    """It could not be made."""
    LOST = "lost"
    """The capture process that should have made it was not there, or died over it."""


@dataclass(frozen=True, slots=True)
class BeginClip:
    """Keep the packets of a camera from a time on, as a file."""

    camera: str
    alert_id: str
    file_name: str
    from_seconds: float
    """The clip begins with the keyframe at or before it."""
    event_seconds: float
    """Where the stream has a break, the clip is of the side on which this time lies."""
    latest_seconds: float
    """The clip ends here even if nobody says so."""


@dataclass(frozen=True, slots=True)
class EndClip:
    """Complete a clip once the packets up to a time have come."""

    camera: str
    alert_id: str
    until_seconds: float


@dataclass(frozen=True, slots=True)
class TakePictures:
    """Keep the most attended frame of a window, and the window as a strip."""

    camera: str
    alert_id: str
    snapshot_name: str
    strip_name: str
    frame_seconds: tuple[float | None, ...]
    """T times of the window's frames; None where the slot is a gap."""
    attention: tuple[float, ...]
    """T weights in the decision."""
    most_attended: int
    """Slot of the frame with the highest weight."""


EvidenceRequest = BeginClip | EndClip | TakePictures


@dataclass(frozen=True, slots=True)
class ShowCamera:
    """Somebody looks at a camera: show it as it is now."""

    camera: str


@dataclass(frozen=True, slots=True)
class CameraPicture:
    """A camera's newest keyframe, made small for a page."""

    camera: str
    seconds: float
    """When it was seen."""
    jpeg: bytes


@dataclass(frozen=True, slots=True)
class EvidenceReport:
    """What became of one piece of evidence."""

    camera: str
    alert_id: str
    kind: EvidenceKind
    result: EvidenceResult
    detail: str = ""
    """One line for a person: why it failed, or why a clip ended before its time."""
    bytes: int = 0
    """Of the file."""
    cpu_seconds: float = 0.0
    """Processor time that it took."""
    seconds: float = 0.0
    """Length of a clip."""
