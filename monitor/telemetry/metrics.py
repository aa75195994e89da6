"""Every metric the program has, declared once. Prefix `monitor_`, base units, bounded labels.

The rooms never import this: they report in frozen records, and the service writes them down here.
"""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

CONTENT_TYPE = CONTENT_TYPE_LATEST
LATENCY_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 60.0)
STAGE_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)
BATCH_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Metrics:
    """The metrics of one running monitor, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
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
        self.packets = Counter("monitor_packets", "Packets read.", by_camera, registry=registry)
        self.received_bytes = Counter("monitor_received_bytes", "Bytes of packets read.", by_camera, registry=registry)
        self.frames_decoded = Counter("monitor_frames_decoded", "Frames decoded.", by_camera, registry=registry)
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
        self.outbox_errors = Counter(
            "monitor_outbox_errors", "Commits that failed and were tried again.", registry=registry
        )
        self.outbox_dropped = Counter(
            "monitor_outbox_dropped", "Alerts refused by a full outbox, by phase.", ["phase"], registry=registry
        )
        self.dead_letters = Gauge(
            "monitor_outbox_dead_letters", "Alerts that Kafka refused for themselves.", registry=registry
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
