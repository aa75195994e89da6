"""Every metric the program has, declared once. Prefix `monitor_`, base units, bounded labels.

The rooms never import this: they report in frozen records, and the service writes them down here.
"""

from __future__ import annotations

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.exposition import CONTENT_TYPE_LATEST

CONTENT_TYPE = CONTENT_TYPE_LATEST
LATENCY_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.7, 0.9, 1.0, 1.2, 1.5, 2.0, 3.0, 5.0, 10.0, 60.0)
"""Close together around the aim, one stride and half a second: 0.9 s and 1.0 s for the bundles that ship."""
STAGE_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)
BATCH_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
RECONNECT_BUCKETS = (0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 60.0, 300.0, 1800.0, 7200.0)
SHARE_BUCKETS = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0)


class Metrics:
    """The metrics of one running monitor, in a registry of their own."""

    def __init__(self) -> None:
        # A second series for each counter, which nobody asks for; its author left this call untyped.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)  # of the service itself, under the names that Prometheus gives them
        by_camera = ["camera"]

        self.camera_up = Gauge(
            "monitor_camera_up", "1 while the camera's stream is being read, else 0.", by_camera, registry=registry
        )
        self.camera_reconnects = Counter(
            "monitor_camera_reconnects", "Connections that were made anew after a loss.", by_camera, registry=registry
        )
        self.camera_failures = Counter(
            "monitor_camera_failures",
            "Failed connections and lost streams by failure class.",
            ["camera", "reason"],
            registry=registry,
        )
        self.camera_last_frame = Gauge(
            "monitor_camera_last_frame_timestamp_seconds",
            "When the last frame was decoded.",
            by_camera,
            registry=registry,
        )
        self.camera_skew = Gauge(
            "monitor_camera_clock_skew_seconds",
            "The camera's clock (RTCP sender report) less the host's.",
            by_camera,
            registry=registry,
        )
        self.camera_state = Gauge(
            "monitor_camera_state",
            "1 for the state that the camera is in, 0 for the others.",
            ["camera", "state"],
            registry=registry,
        )
        self.connect_attempts = Counter(
            "monitor_camera_connect_attempts",
            "Connections tried, by what came of them.",
            ["camera", "result"],
            registry=registry,
        )
        self.disconnects = Counter(
            "monitor_camera_disconnects",
            "Streams that were lost while they ran, by reason.",
            ["camera", "reason"],
            registry=registry,
        )
        self.reconnect_seconds = Histogram(
            "monitor_camera_reconnect_seconds",
            "From the loss of a running stream to its next frame.",
            buckets=RECONNECT_BUCKETS,
            registry=registry,
        )
        self.camera_frozen = Gauge(
            "monitor_camera_frozen",
            "1 while the camera shows one and the same picture, else 0.",
            by_camera,
            registry=registry,
        )
        self.camera_dark = Gauge(
            "monitor_camera_dark", "1 while the camera's picture has no contrast, else 0.", by_camera, registry=registry
        )
        self.gate_awake = Gauge(
            "monitor_camera_gate_awake",
            "1 while the camera is decoded whole, 0 while its gate sleeps and keyframes alone are.",
            by_camera,
            registry=registry,
        )
        self.gate_wakeups = Counter(
            "monitor_camera_gate_wakeups",
            "Times that the camera's gate woke, by cause: sizes, picture, stream.",
            ["camera", "cause"],
            registry=registry,
        )
        self.sample_rate = Gauge(
            "monitor_sample_rate_hertz", "Samples that the model takes of each camera, a second.", registry=registry
        )
        self.packets = Counter("monitor_packets", "Packets read.", by_camera, registry=registry)
        self.received_bytes = Counter("monitor_received_bytes", "Bytes of packets read.", by_camera, registry=registry)
        self.frames_decoded = Counter("monitor_frames_decoded", "Frames decoded.", by_camera, registry=registry)
        self.frames_skipped = Counter(
            "monitor_frames_skipped", "Frames not decoded, since no sample needs them.", by_camera, registry=registry
        )
        self.decode_errors = Counter(
            "monitor_decode_errors", "Packets that the decoder refused.", by_camera, registry=registry
        )
        self.samples = Counter("monitor_frames_sampled", "Samples taken on the grid.", by_camera, registry=registry)
        self.dropped = Counter(
            "monitor_frames_dropped", "Samples that never reached a window.", ["camera", "reason"], registry=registry
        )
        self.windows_scored = Counter("monitor_windows_scored", "Windows scored.", by_camera, registry=registry)
        self.windows_skipped = Counter(
            "monitor_windows_skipped", "Windows not scored for want of coverage.", by_camera, registry=registry
        )
        self.windows_late = Counter(
            "monitor_windows_late",
            "Windows decided later than the latency aim after their newest frame had arrived.",
            by_camera,
            registry=registry,
        )
        self.window_coverage = Histogram(
            "monitor_window_coverage",
            "Share of a scored window's slots that hold a picture.",
            buckets=SHARE_BUCKETS,
            registry=registry,
        )
        self.score = Histogram(
            "monitor_score", "Probability of a label in a window.", ["label"], buckets=SHARE_BUCKETS, registry=registry
        )
        self.latency_aim = Gauge(
            "monitor_latency_aim_seconds",
            "Longest time to a decision that counts as in time: the model's stride and half a second.",
            registry=registry,
        )
        self.batch_samples = Histogram(
            "monitor_batch_samples", "Samples in one run of the backbone.", buckets=BATCH_BUCKETS, registry=registry
        )
        self.stage_seconds = Histogram(
            "monitor_stage_seconds",
            "Time of one step of a stage: wait (oldest sample of a batch), embed, head, decide, commit.",
            ["stage"],
            buckets=STAGE_BUCKETS,
            registry=registry,
        )
        self.inference_seconds = Histogram(
            "monitor_inference_seconds",
            "Time of the engine on one batch, by part: backbone, head (with the rings).",
            ["engine", "part"],
            buckets=STAGE_BUCKETS,
            registry=registry,
        )
        self.batch_wait = Histogram(
            "monitor_batch_wait_seconds",
            "How long the oldest sample of a batch waited for it.",
            buckets=STAGE_BUCKETS,
            registry=registry,
        )
        self.degraded = Gauge(
            "monitor_camera_degraded",
            "1 while a camera is thinned because scoring cannot keep up, else 0.",
            by_camera,
            registry=registry,
        )
        self.stride_factor = Gauge(
            "monitor_stride_factor",
            "How many times longer than the model's a camera's stride is.",
            by_camera,
            registry=registry,
        )
        self.model_swaps = Counter(
            "monitor_model_swaps",
            "New models while running, by result: swapped, refused, rolled_back, restart_needed, shadow_refused.",
            ["result"],
            registry=registry,
        )
        self.shadow_windows = Counter(
            "monitor_shadow_windows",
            "Windows that a second model scored as well, by whether it agrees or disagrees.",
            ["bundle", "verdict"],
            registry=registry,
        )
        self.capture_to_decision = Histogram(
            "monitor_capture_to_decision_seconds",
            "From the arrival of a window's newest frame to the tracker's decision.",
            buckets=LATENCY_BUCKETS,
            registry=registry,
        )
        self.capture_to_acknowledged = Histogram(
            "monitor_capture_to_acknowledged_seconds",
            "From the arrival of an alert's newest frame to Kafka's acknowledgement.",
            buckets=LATENCY_BUCKETS,
            registry=registry,
        )
        self.publish_seconds = Histogram(
            "monitor_publish_seconds",
            "From an alert's commit to the outbox to Kafka's acknowledgement.",
            buckets=LATENCY_BUCKETS,
            registry=registry,
        )
        self.alerts = Counter("monitor_alerts", "Alerts committed.", ["camera", "label", "phase"], registry=registry)
        self.suppressed = Counter(
            "monitor_events_suppressed", "Events not told, by reason.", ["camera", "reason"], registry=registry
        )
        self.active_events = Gauge("monitor_events_active", "Events that go on.", by_camera, registry=registry)
        self.outbox_records = Gauge(
            "monitor_outbox_records", "Alerts that wait for their acknowledgement.", registry=registry
        )
        self.outbox_bytes = Gauge("monitor_outbox_bytes", "Bytes of the waiting alerts.", registry=registry)
        self.outbox_oldest = Gauge(
            "monitor_outbox_oldest_age_seconds",
            "Age of the oldest waiting alert; 0 when none waits.",
            registry=registry,
        )
        self.outbox_filled = Gauge(
            "monitor_outbox_filled_ratio",
            "Share of the outbox's bounds, records or bytes, whichever is nearer, that is used up.",
            registry=registry,
        )
        self.outbox_errors = Counter(
            "monitor_outbox_errors", "Commits that failed and were tried again.", registry=registry
        )
        self.outbox_dropped = Counter(
            "monitor_outbox_dropped", "Alerts refused by a full outbox, by phase.", ["phase"], registry=registry
        )
        self.dead_letters = Gauge(
            "monitor_outbox_dead_letters",
            "Alerts put aside: Kafka refused them for themselves, or the disk has damaged them.",
            registry=registry,
        )
        self.kafka_up = Gauge(
            "monitor_kafka_up", "1 while Kafka takes the topic's messages, else 0.", ["topic"], registry=registry
        )
        self.published = Counter(
            "monitor_alerts_published", "Attempts to publish, by result.", ["result"], registry=registry
        )
        self.ring_bytes = Gauge(
            "monitor_packet_ring_bytes", "Packets kept in memory for evidence.", by_camera, registry=registry
        )
        self.clip_up = Gauge(
            "monitor_camera_clip_up",
            "1 while the camera's large stream is being read, else 0; only where one is configured.",
            by_camera,
            registry=registry,
        )
        self.clip_ring_bytes = Gauge(
            "monitor_clip_ring_bytes",
            "Packets of the large stream kept in memory for evidence.",
            by_camera,
            registry=registry,
        )
        self.evidence = Counter(
            "monitor_evidence",
            "Clips, snapshots and strips of events, by result.",
            ["kind", "result"],
            registry=registry,
        )
        self.evidence_cpu = Counter(
            "monitor_evidence_cpu_seconds", "Processor time spent on evidence.", ["kind"], registry=registry
        )
        self.media_bytes = Gauge("monitor_media_bytes", "Bytes in the media folder.", registry=registry)
        self.disk_free = Gauge(
            "monitor_disk_free_bytes",
            "Room on the disk that holds a folder of ours: outbox, media.",
            ["folder"],
            registry=registry,
        )
        self.disk_size = Gauge(
            "monitor_disk_size_bytes", "Size of the disk that holds a folder of ours.", ["folder"], registry=registry
        )
        self.worker_restarts = Counter(
            "monitor_capture_worker_restarts", "Capture processes replaced.", registry=registry
        )
        self.workers = Gauge("monitor_capture_workers", "Capture processes running.", registry=registry)
        self.worker_cpu = Counter(
            "monitor_capture_worker_cpu_seconds",
            "Processor time of a capture process and those before it.",
            ["worker"],
            registry=registry,
        )
        self.worker_resident = Gauge(
            "monitor_capture_worker_resident_bytes", "Memory of a capture process.", ["worker"], registry=registry
        )
        self.workers_recycled = Counter(
            "monitor_capture_worker_recycled",
            "Capture processes replaced while they worked, since they held too much memory or threads that hung.",
            registry=registry,
        )
        self.uploads = Counter(
            "monitor_media_uploads", "Attempts to copy a media file to the bucket.", ["result"], registry=registry
        )
        self.engine_parity = Gauge(
            "monitor_engine_parity",
            "How well the engine reproduces the golden outputs: least cosine, largest errors.",
            ["engine", "measure"],
            registry=registry,
        )
        self.model_info = Gauge(
            "monitor_model_info",
            "1; the model that scores.",
            ["name", "version", "sha256", "engine", "precision"],
            registry=registry,
        )
        self.page_streams = Gauge(
            "monitor_page_streams", "Browsers that look on: pages that are open and kept true.", registry=registry
        )
        self.build_info = Gauge("monitor_build_info", "1; the program.", ["version", "python"], registry=registry)

    def render(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        return generate_latest(self.registry)

    def forget_camera(self, camera: str) -> None:
        """Remove every series of a camera that is no longer watched."""
        for collector in vars(self).values():
            names = getattr(collector, "_labelnames", ())
            if "camera" in names:
                collector.remove_by_labels({"camera": camera})
