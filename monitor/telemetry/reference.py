"""The declared metrics in; their reference, docs/metrics.md, out. What has no meaning or no place in it is an error."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from prometheus_client import Histogram
from prometheus_client.metrics import MetricWrapperBase

from monitor.telemetry.metrics import Metrics

GROUPS: dict[str, tuple[str, ...]] = {
    "Cameras": ("monitor_camera_",),
    "Pictures": (
        "monitor_packets",
        "monitor_received_",
        "monitor_frames_",
        "monitor_decode_",
        "monitor_sample_rate_",
        "monitor_packet_ring_",
    ),
    "Capture processes": ("monitor_capture_worker",),
    "Model and engine": ("monitor_model_", "monitor_engine_", "monitor_shadow_", "monitor_inference_"),
    "Batches and stages": ("monitor_batch_", "monitor_stage_", "monitor_stride_"),
    "Windows and scores": ("monitor_windows_", "monitor_window_", "monitor_score"),
    "Latency": ("monitor_capture_to_", "monitor_latency_"),
    "Events": ("monitor_alerts", "monitor_events_"),
    "Outbox": ("monitor_outbox_",),
    "Kafka": ("monitor_kafka_", "monitor_publish_", "monitor_alerts_published"),
    "Evidence": ("monitor_evidence", "monitor_media_", "monitor_clip_"),
    "Program": ("monitor_build_", "monitor_page_", "monitor_disk_", "process_"),
}
"""Heading to the beginnings of its metrics' names, in the order of the way the data runs; the longest one counts."""

LABELS = {
    "bundle": "a model that scores in the shadow",
    "camera": "a camera's id, as configured",
    "cause": "what woke a camera's gate",
    "engine": "what runs the model: `openvino`, `onnxruntime`, `tensorrt`",
    "folder": "`outbox` or `media`",
    "kind": "of evidence: `clip`, `snapshot`, `strip`",
    "label": "what the model recognises; the background is left out",
    "measure": "of likeness to the golden outputs",
    "name": "of the model",
    "part": "of the model: `backbone`, `head`",
    "phase": "of an event: `started`, `updated`, `ended`",
    "precision": "that the engine calculates with",
    "python": "version of Python",
    "reason": "why: of a failure, a drop, or an event that is not told",
    "result": "what came of an attempt",
    "sha256": "first digits of the hash of the model's files",
    "stage": "a step of the work on a batch or a score",
    "state": "of a camera: `connecting`, `online`, `offline`, `refused`",
    "topic": "of Kafka",
    "verdict": "of the shadow model: `agrees`, `disagrees`",
    "version": "of the program, or of the model",
    "worker": "number of a capture process; its replacement has the same",
}
UNITS = ("seconds", "bytes", "hertz", "ratio")
NUMBERS = ("_parity", "_factor")
"""Endings of what neither counts nor has a unit."""

HEAD = """# Metrics

Everything that `/metrics` tells, made of the code by `monitor schema metrics`. Names, labels and units are an
interface: a change of them stands in the changelog. Counters begin with 0 where their labels are known beforehand, so
that the first event has an increase. Of a camera that is no longer watched every series disappears.
"""


@dataclass(frozen=True, slots=True)
class DeclaredMetric:
    """One metric, as it is declared."""

    name: str
    """As Prometheus stores it; of a histogram without `_bucket`, `_sum` and `_count`."""
    kind: str
    """counter, gauge or histogram."""
    labels: tuple[str, ...]
    meaning: str
    buckets: tuple[float, ...] = ()
    """Upper bounds of a histogram, without infinity."""

    @property
    def unit(self) -> str:
        """What is counted or measured."""
        base = self.name.removesuffix("_total")
        unit = next((unit for unit in UNITS if base.endswith(f"_{unit}")), "")
        if unit == "ratio" or (self.buckets and self.buckets[-1] == 1.0 and not unit):
            return "0 to 1"
        if base.endswith(NUMBERS):
            return "number"
        return unit or ("0 or 1" if self.meaning.startswith("1 ") else "1" if base.endswith("_info") else "count")

    @property
    def group(self) -> str:
        """The heading that it stands under.

        Raises:
            ValueError: it has none.
        """
        fitting = [
            (len(beginning), group)
            for group, beginnings in GROUPS.items()
            for beginning in beginnings
            if self.name.startswith(beginning)
        ]
        if not fitting:
            raise ValueError(f"{self.name} has no group; give the beginning of its name to one in {__name__}.GROUPS")
        return max(fitting)[1]


def declared_metrics() -> list[DeclaredMetric]:
    """Return every metric, in the order of declaration.

    Raises:
        ValueError: one has no meaning, or a label that is not explained.
    """
    metrics = Metrics()
    ours = [_declared(collector) for collector in vars(metrics).values() if isinstance(collector, MetricWrapperBase)]
    known = {metric.name for metric in ours}
    others = [
        DeclaredMetric(family.name + ("_total" if family.type == "counter" else ""), family.type, (), _said(family))
        for family in metrics.registry.collect()
    ]
    found = ours + [other for other in others if other.name not in known]
    for metric in found:
        unexplained = [label for label in metric.labels if label not in LABELS]
        if not metric.meaning.strip():
            raise ValueError(f"{metric.name} is declared without a meaning")
        if unexplained:
            raise ValueError(f"{metric.name} has the label {unexplained[0]}, which {__name__}.LABELS does not explain")
    return found


def reference_text() -> str:
    """Return docs/metrics.md.

    Raises:
        ValueError: a metric has no meaning, no group, or a label that is not explained.
    """
    found = declared_metrics()
    grouped = {group: [metric for metric in found if metric.group == group] for group in GROUPS}
    sections = [line for group, metrics in grouped.items() if metrics for line in _section(group, metrics)]
    used = sorted({label for metric in found for label in metric.labels})
    labels = ["## Labels", "", "| label | meaning |", "|---|---|", *(f"| `{name}` | {LABELS[name]} |" for name in used)]
    return "\n".join([HEAD, *sections, *labels]) + "\n"


def _section(group: str, metrics: list[DeclaredMetric]) -> Iterator[str]:
    yield from (f"## {group}", "", "| name | type | labels | unit | meaning |", "|---|---|---|---|---|")
    for metric in metrics:
        labels = ", ".join(f"`{label}`" for label in metric.labels)
        yield f"| `{metric.name}` | {metric.kind} | {labels} | {metric.unit} | {metric.meaning} |"
    yield ""
    for metric in metrics:
        if metric.buckets:
            yield f"Buckets of `{metric.name}`: {', '.join(f'{bound:g}' for bound in metric.buckets)}."
            yield ""


def _declared(collector: MetricWrapperBase) -> DeclaredMetric:
    [family] = collector.describe()
    bounds = tuple(collector._upper_bounds[:-1]) if isinstance(collector, Histogram) else ()
    return DeclaredMetric(
        name=family.name + ("_total" if family.type == "counter" else ""),
        kind=family.type,
        labels=tuple(collector._labelnames),
        meaning=_said(family),
        buckets=bounds,
    )


def _said(family: object) -> str:
    return str(getattr(family, "documentation", ""))
