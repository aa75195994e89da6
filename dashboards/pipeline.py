"""What stands behind the cameras: model, engine, stages, outbox, Kafka, processes, disks."""

from __future__ import annotations

from grafana_foundation_sdk.models.dashboard import Dashboard

from dashboards.frame import SCOPE, frame
from dashboards.overview import ACKNOWLEDGED, DECISION, quantile
from dashboards.panels import GREEN, ORANGE, RED, Panel, Query, lines, number, rows, spread, states

DAY, WEEK = "1d", "1w"
PUBLISHED = f"monitor_publish_seconds_bucket{{{SCOPE}}}"


def pipeline() -> Dashboard:
    """Return the dashboard."""
    return frame(
        "monitor-pipeline",
        "Model and engine, stages and batches, outbox and Kafka, evidence, processes and disks.",
        {
            "Model and engine": _model(),
            "Stages": _stages(),
            "Windows and scores": _scores(),
            "Outbox": _outbox(),
            "Kafka": _kafka(),
            "Evidence and disks": _evidence(),
            "Processes": _processes(),
        },
    )


def rate(counter: str, by: str, labels: str = "") -> str:
    """Return a counter's rate, by a label."""
    return f"sum by ({by}) (rate({counter}{{{SCOPE}{labels}}}[$__rate_interval]))"


def mean(histogram: str, by: str = "instance") -> str:
    """Return what a histogram observed on average."""
    return f"{rate(histogram + '_sum', by)} / {rate(histogram + '_count', by)}"


def quantile_by(share: float, buckets: str, by: str) -> str:
    """Return the expression of a histogram's quantile, by labels."""
    return f"histogram_quantile({share}, sum by (le, {by}) (rate({buckets}{{{SCOPE}}}[$__rate_interval])))"


def _model() -> list[Panel]:
    return [
        rows(
            "Models that score",
            "Name, version, contents and engine, by monitor.",
            Query(f"monitor_model_info{{{SCOPE}}}"),
            columns={
                "instance": "monitor",
                "name": "model",
                "version": "version",
                "sha256": "contents",
                "engine": "engine",
                "precision": "precision",
            },
        ),
        rows(
            "Programs",
            "Version of the program and its Python, by monitor.",
            Query(f"monitor_build_info{{{SCOPE}}}"),
            columns={"instance": "monitor", "version": "version", "python": "Python"},
            span=4,
        ),
        number(
            "Engine against golden outputs",
            "Least cosine between the engine's embeddings and the bundle's golden ones; 1 is the same.",
            Query(f'min(monitor_engine_parity{{{SCOPE},measure="cosine"}})'),
            steps=((0, RED), (0.99, ORANGE), (0.999, GREEN)),
        ),
        lines(
            "Engine's errors",
            "Largest differences from the golden outputs, by measure.",
            Query(f'max by (engine, measure) (monitor_engine_parity{{{SCOPE},measure!="cosine"}})', "{{measure}}"),
        ),
        lines(
            "Shadow model",
            "Windows that a model in the shadow decided like the one that serves, and otherwise.",
            Query(rate("monitor_shadow_windows_total", "bundle, verdict"), "{{bundle}} {{verdict}}"),
            unit="cps",
            span=12,
        ),
        lines(
            "Model swaps",
            "Models put in service while running, in an hour, by result.",
            Query(f"sum by (result) (increase(monitor_model_swaps_total{{{SCOPE}}}[1h]))", "{{result}}"),
            bars=True,
            span=12,
        ),
    ]


def _stages() -> list[Panel]:
    return [
        lines(
            "Steps, 95%",
            "How long a step takes: waiting for a batch, backbone, head, decision, commit.",
            Query(quantile_by(0.95, "monitor_stage_seconds_bucket", "stage"), "{{stage}}"),
            unit="s",
        ),
        lines(
            "Share of the time",
            "How much of a second the steps take together; embed and head near 1: the engine is the limit.",
            Query(rate("monitor_stage_seconds_sum", "stage", ',stage!="wait"'), "{{stage}}"),
            unit="percentunit",
            steps=((0.8, ORANGE),),
        ),
        lines(
            "Inference",
            "Time of one run of a part of the model, mean and 95%, by engine.",
            Query(mean("monitor_inference_seconds", "engine, part"), "{{engine}} {{part}} mean"),
            Query(quantile_by(0.95, "monitor_inference_seconds_bucket", "engine, part"), "{{engine}} {{part}} 95%"),
            unit="s",
        ),
        lines(
            "Samples in a batch",
            "Mean and 95% of the samples in one run of the backbone.",
            Query(mean("monitor_batch_samples"), "{{instance}} mean"),
            Query(quantile_by(0.95, "monitor_batch_samples_bucket", "instance"), "{{instance}} 95%"),
        ),
        lines(
            "Wait for a batch",
            "How long samples wait for company, mean and 95%.",
            Query(mean("monitor_batch_wait_seconds"), "{{instance}} mean"),
            Query(quantile_by(0.95, "monitor_batch_wait_seconds_bucket", "instance"), "{{instance}} 95%"),
            unit="s",
        ),
        spread(
            "From frame to decision",
            "How the time to a decision is spread.",
            Query(f"sum by (le) (increase({DECISION}[$__rate_interval]))", "{{le}}"),
            unit="s",
        ),
    ]


def _scores() -> list[Panel]:
    recorded = f"job_instance_label:monitor_score:mean1h{{{SCOPE}}}"
    return [
        lines(
            "Windows",
            "Windows scored, not scored for want of pictures, and decided after the aim.",
            Query(rate("monitor_windows_scored_total", "instance"), "{{instance}} scored"),
            Query(rate("monitor_windows_skipped_total", "instance"), "{{instance}} not scored"),
            Query(rate("monitor_windows_late_total", "instance"), "{{instance}} late"),
            unit="cps",
        ),
        lines(
            "Coverage of scored windows",
            "Mean share of a window's slots that hold a picture.",
            Query(mean("monitor_window_coverage"), "{{instance}}"),
            unit="percentunit",
            maximum=1,
        ),
        lines(
            "Samples dropped",
            "Samples that reached no window, by the queue that was full; late ones came after their slot.",
            Query(rate("monitor_frames_dropped_total", "reason"), "{{reason}}"),
            unit="cps",
        ),
        lines(
            "Mean score against its past",
            "Mean score of the last hour, and at the same time a day and a week before.",
            Query(recorded, "{{label}} now"),
            Query(f"{recorded} offset {DAY}", "{{label}} a day before"),
            Query(f"{recorded} offset {WEEK}", "{{label}} a week before"),
            unit="percentunit",
        ),
        spread(
            "Scores",
            "How scores are spread.",
            Query(f"sum by (le) (increase(monitor_score_bucket{{{SCOPE}}}[$__rate_interval]))", "{{le}}"),
            unit="percentunit",
        ),
        lines(
            "Longer strides",
            "Cameras scored less often than usual, and the longest stride as a multiple of the usual one.",
            Query(f"sum by (instance) (monitor_camera_degraded{{{SCOPE}}})", "{{instance}} cameras"),
            Query(f"max by (instance) (monitor_stride_factor{{{SCOPE}}})", "{{instance}} longest"),
        ),
    ]


def _outbox() -> list[Panel]:
    return [
        lines(
            "Waiting alerts",
            "Alerts that Kafka has not acknowledged.",
            Query(f"monitor_outbox_records{{{SCOPE}}}", "{{instance}}"),
        ),
        lines(
            "Bytes of the waiting alerts",
            "Bytes of their messages.",
            Query(f"monitor_outbox_bytes{{{SCOPE}}}", "{{instance}}"),
            unit="bytes",
        ),
        lines(
            "Used up",
            "Share of the outbox's bounds; from nine tenths on updates are dropped.",
            Query(f"monitor_outbox_filled_ratio{{{SCOPE}}}", "{{instance}}"),
            unit="percentunit",
            steps=((0.9, RED),),
            maximum=1,
        ),
        lines(
            "Age of the oldest waiting alert",
            "0 when none waits.",
            Query(f"monitor_outbox_oldest_age_seconds{{{SCOPE}}}", "{{instance}}"),
            unit="s",
            steps=((300, RED),),
        ),
        lines(
            "Failed commits and dropped alerts",
            "Commits that failed and were tried again, and alerts refused by a full outbox, in five minutes.",
            Query(f"sum by (instance) (increase(monitor_outbox_errors_total{{{SCOPE}}}[5m]))", "{{instance}} failed"),
            Query(f"sum by (phase) (increase(monitor_outbox_dropped_total{{{SCOPE}}}[5m]))", "dropped {{phase}}"),
            bars=True,
        ),
        lines(
            "Dead letters",
            "Alerts put aside and not sent again: Kafka refused them for themselves, or the disk has damaged them.",
            Query(f"monitor_outbox_dead_letters{{{SCOPE}}}", "{{instance}}"),
            steps=((1, ORANGE),),
        ),
    ]


def _kafka() -> list[Panel]:
    return [
        states(
            "Kafka takes messages",
            "By topic.",
            Query(f"monitor_kafka_up{{{SCOPE}}}", "{{instance}} {{topic}}"),
            meanings={0: ("no", RED), 1: ("yes", GREEN)},
            span=8,
        ),
        lines(
            "Attempts to publish",
            "Messages a second, by result.",
            Query(rate("monitor_alerts_published_total", "result"), "{{result}}"),
            unit="cps",
        ),
        lines(
            "From frame to acknowledgement",
            "From the arrival of an alert's newest frame to Kafka's acknowledgement.",
            Query(quantile(0.5, ACKNOWLEDGED), "median"),
            Query(quantile(0.95, ACKNOWLEDGED), "95%"),
            Query(quantile(0.99, ACKNOWLEDGED), "99%"),
            unit="s",
        ),
        lines(
            "From commit to acknowledgement",
            "How long alerts rest in the outbox until Kafka has them.",
            Query(quantile(0.5, PUBLISHED), "median"),
            Query(quantile(0.99, PUBLISHED), "99%"),
            unit="s",
        ),
    ]


def away(suffix: str, by: str) -> str:
    """Return a series of the time that cameras were away, over an hour, since it is seldom."""
    return f"sum by ({by}) (rate(monitor_camera_reconnect_seconds{suffix}{{{SCOPE}}}[1h]))"


def _evidence() -> list[Panel]:
    return [
        lines(
            "Evidence",
            "Clips, snapshots and strips in five minutes, by what became of them.",
            Query(f"sum by (kind, result) (increase(monitor_evidence_total{{{SCOPE}}}[5m]))", "{{kind}} {{result}}"),
            bars=True,
            span=6,
        ),
        lines(
            "Processor time for evidence",
            "Share of one core.",
            Query(rate("monitor_evidence_cpu_seconds_total", "kind"), "{{kind}}"),
            unit="percentunit",
            span=6,
        ),
        lines(
            "Copies to the bucket",
            "Attempts in five minutes, by result.",
            Query(f"sum by (result) (increase(monitor_media_uploads_total{{{SCOPE}}}[5m]))", "{{result}}"),
            bars=True,
            span=6,
        ),
        lines(
            "Media and packet rings",
            "Bytes in the media folder, and packets kept in memory for clips.",
            Query(f"monitor_media_bytes{{{SCOPE}}}", "{{instance}} media"),
            Query(f"sum by (instance) (monitor_packet_ring_bytes{{{SCOPE}}})", "{{instance}} rings"),
            unit="bytes",
            span=6,
        ),
        lines(
            "Room on the disks",
            "Free share of the disk that holds each folder.",
            Query(
                f"monitor_disk_free_bytes{{{SCOPE}}} / monitor_disk_size_bytes{{{SCOPE}}}", "{{instance}} {{folder}}"
            ),
            unit="percentunit",
            maximum=1,
            span=12,
        ),
        lines(
            "Connections that came back",
            "How long cameras that came back within the hour had been away, mean and 95%.",
            Query(f"{away('_sum', 'instance')} / {away('_count', 'instance')}", "{{instance}} mean"),
            Query(f"histogram_quantile(0.95, {away('_bucket', 'le, instance')})", "{{instance}} 95%"),
            unit="s",
            span=12,
        ),
    ]


def _processes() -> list[Panel]:
    return [
        lines(
            "Processor, capture processes",
            "Cores used, by worker.",
            Query(rate("monitor_capture_worker_cpu_seconds_total", "instance, worker"), "{{instance}} {{worker}}"),
        ),
        lines(
            "Memory, capture processes",
            "Resident bytes, by worker.",
            Query(f"monitor_capture_worker_resident_bytes{{{SCOPE}}}", "{{instance}} {{worker}}"),
            unit="bytes",
        ),
        lines(
            "Capture processes",
            "How many run, and how many were replaced in five minutes: died, or recycled for their memory.",
            Query(f"monitor_capture_workers{{{SCOPE}}}", "{{instance}} run"),
            Query(f"increase(monitor_capture_worker_restarts_total{{{SCOPE}}}[5m])", "{{instance}} died"),
            Query(f"increase(monitor_capture_worker_recycled_total{{{SCOPE}}}[5m])", "{{instance}} recycled"),
        ),
        lines(
            "Processor, service",
            "Cores used by the process that scores, decides and delivers.",
            Query(rate("process_cpu_seconds_total", "instance"), "{{instance}}"),
            span=6,
        ),
        lines(
            "Memory, service",
            "Resident bytes of the same process.",
            Query(f"process_resident_memory_bytes{{{SCOPE}}}", "{{instance}}"),
            unit="bytes",
            span=6,
        ),
        lines(
            "Open files, service",
            "Files and sockets it holds open, of those it may.",
            Query(f"process_open_fds{{{SCOPE}}} / process_max_fds{{{SCOPE}}}", "{{instance}}"),
            unit="percentunit",
            span=6,
        ),
        lines(
            "Open pages",
            "Browsers that look on: pages that are open and kept true.",
            Query(f"monitor_page_streams{{{SCOPE}}}", "{{instance}}"),
            span=6,
        ),
    ]
