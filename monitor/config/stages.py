"""How the stages work: the model, capture, scoring, events, health, evidence, the outbox and logs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from monitor.bundle import ThresholdPair
from monitor.config.section import PositiveSeconds, Seconds, Section, Share


class ModelConfig(Section):
    """Which event model scores the windows, and on what."""

    bundle: Annotated[str, Field(min_length=1, max_length=200)] = "fight"
    """Folder of a bundle, or the name of one that ships with the program (`demo`, `fight`)."""
    engine: Literal["auto", "tensorrt", "openvino", "onnxruntime"] = "auto"
    """What runs it; auto tries TensorRT, then OpenVINO, then ONNX Runtime, and takes the first that reproduces the
    bundle's golden outputs."""
    precision: Literal["auto", "fp32", "fp16", "bf16", "int8"] = "auto"
    """What the backbone computes in; auto takes what is measured fastest of those that reproduce the golden outputs; a
    replay then takes fp32, so that its answers do not depend on the measurement. fp16 and int8 need `monitor compile`
    once; where it was not run, fp32 serves and a log line says so."""
    cache: Path = Path("var/engines")
    """Folder that `monitor compile` fills and the engines look into."""
    threads: Annotated[int, Field(ge=0, le=256)] = 0
    """Processor threads of the engine; 0: half of the cores, so that capture keeps the others."""
    shadow: Annotated[str, Field(max_length=200)] = ""
    """A second bundle, named likewise, that scores the same windows when there is time; only where it disagrees is
    reported, never as an alert. Empty: none."""


class CaptureConfig(Section):
    """How streams are read."""

    workers: Annotated[int, Field(ge=0, le=256)] = 0
    """Capture processes; 0: one for each eight cameras, at most one a core."""
    hwaccel: Literal["none", "cuda", "vaapi"] = "none"
    """What decodes: the processor, or a device where there is one for a stream; a log line says why there is none."""
    gate: Literal["auto", "off"] = "auto"
    """auto: while nothing moves in a camera's picture only its keyframes are decoded, and scored; what moves wakes it,
    and what came since the last keyframe is decoded after the fact. off: everything is decoded."""
    gate_quiet_seconds: Annotated[float, Field(ge=2.0, le=3600.0)] = 10.0
    """How long nothing may move before a camera counts as idle."""
    connect_timeout_seconds: PositiveSeconds = 5.0
    """How long a camera may take to answer."""
    stall_timeout_seconds: PositiveSeconds = 5.0
    """How long a connected camera may send nothing before it counts as stalled."""
    retry_min_seconds: PositiveSeconds = 0.5
    """Upper bound of the first wait before a new connection; doubles with each failure, with full jitter."""
    retry_max_seconds: PositiveSeconds = 3.0
    """Upper bound of the longest wait; with connect_timeout_seconds the longest time until a camera that is there
    again is seen."""
    refused_retry_seconds: PositiveSeconds = 60.0
    """Wait after a refused password, since cameras lock accounts."""
    queue_samples: Annotated[int, Field(ge=1, le=10_000)] = 64
    """Samples that may wait in a capture process; when full the oldest is dropped and counted."""
    worker_bytes: Annotated[int, Field(ge=0, le=1_000_000_000_000)] = 0
    """Memory that a capture process may hold before a fresh one takes over its cameras; 0: 256 MiB, and for each of its
    cameras 96 MiB and evidence.ring_bytes."""


class ScoringConfig(Section):
    """How samples become scores."""

    batch_samples: Annotated[int, Field(ge=1, le=256)] = 8
    """Most samples in one run of the backbone."""
    batch_wait_seconds: Seconds = 0.05
    """Longest wait of a sample for others to share its batch."""
    queue_samples: Annotated[int, Field(ge=1, le=100_000)] = 256
    """Samples of all cameras that may wait for the engine; when full, a camera that holds more than its share loses
    its oldest, which is counted."""
    shed_wait_seconds: Seconds = 0.5
    """When a sample waits longer than this, strides lengthen to 2 and 4 times, least important cameras first, before
    any sample is dropped; 0: never."""
    shed_recover_seconds: PositiveSeconds = 10.0
    """How long waits have to be short again before strides shrink."""
    minimum_coverage: Share = 0.6
    """Share of a window's slots that must hold a picture; windows with less are not scored, and counted."""


class EventsConfig(Section):
    """When scores become events. Thresholds come from the model; override them per label or per camera."""

    smoothing_windows: Annotated[int, Field(ge=1, le=100)] = 2
    """Scores of this many windows are averaged."""
    minimum_seconds: Seconds = 0.0
    """How long a label must hold before an event is told, counted from the end of its first window."""
    merge_gap_seconds: Seconds = 2.0
    """A label that comes back within this time continues its event."""
    cool_down_seconds: Seconds = 5.0
    """After an event's end the same label starts no new one on that camera for this time."""
    maximum_seconds: PositiveSeconds = 120.0
    """An event that lasts longer is ended with reason max_length; what goes on becomes a new event."""
    update_seconds: PositiveSeconds = 5.0
    """Least time between two updates of an event."""
    thresholds: Mapping[str, ThresholdPair] = Field(default_factory=dict)
    """Per label: `{on = 0.8, off = 0.5}` in place of the model's own."""


class HealthConfig(Section):
    """When a camera's state of health is told. A state has to hold for its time first."""

    offline_seconds: Seconds = 10.0
    """How long a camera is away before it is told as offline. A refused password is told at once."""
    online_seconds: Seconds = 2.0
    """How long it is back before it is told as online."""
    frozen_seconds: Seconds = 60.0
    """How long the same picture has to come before the camera is told as frozen; 0: never."""
    frozen_change: Annotated[float, Field(ge=0.0, le=255.0)] = 0.02
    """Mean difference, in grey levels, up to which two pictures are the same one."""
    dark_seconds: Seconds = 10.0
    """How long the picture has to be without contrast before the camera is told as dark; 0: never."""
    dark_contrast: Annotated[float, Field(ge=0.0, le=127.0)] = 4.0
    """Standard deviation, in grey levels, up to which a picture has no contrast."""


class EvidenceConfig(Section):
    """What a person can look at: clips, snapshots and attention strips of events."""

    enabled: bool = True
    """Whether any is kept."""
    folder: Path = Path("var/media")
    """Where the files lie, named by alert id; made when missing."""
    base_url: str = "media"
    """What the links in alerts begin with: the page's own /media by default; an address once it is public."""
    upload_url: Annotated[str, Field(pattern=r"^(s3://[^/@\s]+(/[^@\s]*)?)?$")] = ""
    """`s3://bucket/folder` that files are copied to as they are completed; needs the extra `s3`, and credentials as S3
    clients take them (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, or a role). Empty: none."""
    upload_endpoint_url: Annotated[str, Field(pattern=r"^(https?://[^/@\s]+(/[^@\s]*)?)?$")] = ""
    """Address of the store where it is not Amazon's."""
    pre_seconds: Annotated[float, Field(ge=0.0, le=60.0)] = 5.0
    """How long before the event its clip begins, at the latest; it begins with a keyframe."""
    post_seconds: Annotated[float, Field(ge=0.0, le=600.0)] = 5.0
    """How long after the event its clip goes on."""
    ring_seconds: Annotated[float, Field(ge=1.0, le=600.0)] = 15.0
    """Packets of the last seconds kept in memory for each camera; more where pre_seconds, the model's window and
    events.minimum_seconds together need it."""
    ring_bytes: Annotated[int, Field(ge=100_000, le=4_000_000_000)] = 16_000_000
    """Bytes of them a camera at most; the oldest go first."""
    keep_days: Annotated[float, Field(gt=0, le=3650)] = 30.0
    """Files older than this are removed."""
    keep_bytes: Annotated[int, Field(ge=1_000_000)] = 10_000_000_000
    """Bytes of the folder at most; the oldest files go first."""


class OutboxConfig(Section):
    """The durable store of alerts."""

    path: Path = Path("var/outbox.sqlite")
    """Database file; its folder is made when missing."""
    keep_days: Annotated[float, Field(gt=0, le=3650)] = 30.0
    """Alerts older than this are forgotten once they have been delivered."""
    maximum_records: Annotated[int, Field(ge=100, le=100_000_000)] = 1_000_000
    """Undelivered alerts at most; past nine tenths of it, updates are dropped and counted; starts and ends never are
    before it is full."""
    maximum_bytes: Annotated[int, Field(ge=100_000)] = 1_073_741_824
    """Bytes of the undelivered alerts' messages at most; the same rules as for `maximum_records`."""


class LogsConfig(Section):
    """What is logged, on standard error."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    """Least severity that is written."""
    format: Literal["auto", "json", "text"] = "auto"
    """auto: text on a terminal, JSON elsewhere."""
