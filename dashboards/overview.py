"""The first look: what is down, what is told, whether it is in time, what piles up."""

from __future__ import annotations

from grafana_foundation_sdk.models.dashboard import Dashboard

from dashboards.frame import ONE, SCOPE, frame
from dashboards.panels import GREEN, ORANGE, RED, Panel, Query, lines, number, rows, words

STARTED = f'monitor_alerts_total{{{ONE},phase="started"}}'
DECISION = f"monitor_capture_to_decision_seconds_bucket{{{SCOPE}}}"
ACKNOWLEDGED = f"monitor_capture_to_acknowledged_seconds_bucket{{{SCOPE}}}"
YES_NO = {0: ("down", RED), 1: ("up", GREEN)}


def overview() -> Dashboard:
    """Return the dashboard."""
    return frame(
        "monitor-overview",
        "What is down, how often events are told, whether decisions are in time, and what piles up.",
        {
            "What is down": [*_figures(), *_lists()],
            "Alerts": _alerts(),
            "Latency against its aim": _latency(),
            "Load and delivery": _load(),
        },
    )


def quantile(share: float, buckets: str) -> str:
    """Return the expression of a histogram's quantile over all that is chosen."""
    return f"histogram_quantile({share}, sum by (le) (rate({buckets}[$__rate_interval])))"


def _figures() -> list[Panel]:
    return [
        number(
            "Monitors that answer",
            "Monitors that Prometheus can scrape.",
            Query(f"sum(up{{{SCOPE}}})"),
            steps=(),
            span=3,
        ),
        number(
            "Cameras down",
            "Cameras whose stream is not being read.",
            Query(f"sum(1 - monitor_camera_up{{{ONE}}})"),
            steps=((1, RED),),
            span=3,
        ),
        number(
            "Frozen or dark",
            "Cameras whose stream is alive and whose picture shows nothing.",
            Query(f"sum(monitor_camera_frozen{{{ONE}}}) + sum(monitor_camera_dark{{{ONE}}})"),
            steps=((1, ORANGE),),
            span=3,
        ),
        number(
            "Scored less often",
            "Cameras whose stride is longer since the engine does not keep up.",
            Query(f"sum(monitor_camera_degraded{{{ONE}}})"),
            steps=((1, ORANGE),),
            span=3,
        ),
        number(
            "Late windows, last hour",
            "Share of windows decided after the latency aim; the objective allows 1%.",
            Query(f"max(job_instance:monitor_windows_late:ratio_rate1h{{{SCOPE}}})"),
            unit="percentunit",
            steps=((0.01, ORANGE), (0.06, RED)),
            span=3,
        ),
        words(
            number(
                "Kafka",
                "Whether Kafka takes the messages of every topic; a dash where none is configured.",
                Query(f"min(monitor_kafka_up{{{SCOPE}}})"),
                steps=((0, RED), (1, GREEN)),
                span=3,
            ),
            YES_NO,
        ),
        number(
            "Waiting alerts",
            "Alerts in the outbox that Kafka has not acknowledged.",
            Query(f"sum(monitor_outbox_records{{{SCOPE}}})"),
            steps=((100, ORANGE), (10000, RED)),
            span=3,
        ),
        number(
            "Events going on",
            "Events that have started and not ended.",
            Query(f"sum(monitor_events_active{{{ONE}}})"),
            span=3,
        ),
    ]


def _lists() -> list[Panel]:
    who = {"instance": "monitor", "camera": "camera"}
    return [
        rows(
            "Rules that fire",
            "Alerts of the Prometheus rules that fire now; the camera leads to its dashboard.",
            Query(f'ALERTS{{{SCOPE},alertname=~"Monitor.*",alertstate="firing"}}'),
            columns={"alertname": "rule", "severity": "severity", **who},
            camera_link=True,
        ),
        rows(
            "Cameras that are not online",
            "Connecting, offline, or refusing our password; the camera leads to its dashboard.",
            Query(f'monitor_camera_state{{{ONE},state!="online"}} == 1'),
            columns={**who, "state": "state"},
            camera_link=True,
        ),
        rows(
            "Events in the chosen time",
            "Events told, by camera and label; the camera leads to its dashboard.",
            Query(f"topk(50, round(sum by (instance, camera, label) (increase({STARTED}[$__range]))) > 0)"),
            columns={**who, "label": "label", "Value": "events"},
            camera_link=True,
        ),
    ]


def _alerts() -> list[Panel]:
    return [
        lines(
            "Events told, by label",
            "Starts of events a minute.",
            Query(f"sum by (label) (rate({STARTED}[$__rate_interval])) * 60", "{{label}}"),
            unit="cpm",
            bars=True,
            stacked=True,
        ),
        lines(
            "Events told, by camera",
            "The ten cameras with the most starts of events in an hour.",
            Query(f"topk(10, sum by (camera) (increase({STARTED}[1h])))", "{{camera}}"),
        ),
        lines(
            "Events not told",
            "Events that were too short, or came within the cool-down, a minute.",
            Query(
                f"sum by (reason) (rate(monitor_events_suppressed_total{{{ONE}}}[$__rate_interval])) * 60",
                "{{reason}}",
            ),
            unit="cpm",
        ),
    ]


def _latency() -> list[Panel]:
    aim = Query(f"max(monitor_latency_aim_seconds{{{SCOPE}}})", "aim")
    return [
        lines(
            "From frame to decision",
            "From the arrival of a window's newest frame to the decision; the aim is one stride and half a second.",
            Query(quantile(0.5, DECISION), "median"),
            Query(quantile(0.95, DECISION), "95%"),
            Query(quantile(0.99, DECISION), "99%"),
            aim,
            unit="s",
        ),
        lines(
            "From frame to Kafka's acknowledgement",
            "From the arrival of an alert's newest frame to Kafka's acknowledgement.",
            Query(quantile(0.5, ACKNOWLEDGED), "median"),
            Query(quantile(0.95, ACKNOWLEDGED), "95%"),
            aim,
            unit="s",
        ),
        lines(
            "Late windows against the objective",
            "Share of windows decided after the aim. The lines: 1% spends the month's budget in a month, 6% in five "
            "days, 14.4% in two.",
            Query(f"job_instance:monitor_windows_late:ratio_rate5m{{{SCOPE}}}", "{{instance}} 5 m"),
            Query(f"job_instance:monitor_windows_late:ratio_rate1h{{{SCOPE}}}", "{{instance}} 1 h"),
            unit="percentunit",
            steps=((0.01, ORANGE), (0.06, RED), (0.144, RED)),
        ),
    ]


def _load() -> list[Panel]:
    return [
        lines(
            "Cameras by state",
            "How many cameras are online, connecting, offline, or refuse our password.",
            Query(f"sum by (state) (monitor_camera_state{{{ONE}}})", "{{state}}"),
            stacked=True,
            span=6,
        ),
        lines(
            "Cameras scored less often",
            "Cameras whose stride is longer since the engine does not keep up.",
            Query(f"sum by (instance) (monitor_camera_degraded{{{ONE}}})", "{{instance}}"),
            steps=((1, ORANGE),),
            span=6,
        ),
        lines(
            "Waiting alerts",
            "Alerts in the outbox that Kafka has not acknowledged.",
            Query(f"monitor_outbox_records{{{SCOPE}}}", "{{instance}}"),
            span=6,
        ),
        lines(
            "Age of the oldest waiting alert",
            "How long the oldest alert in the outbox has waited; 0 when none waits.",
            Query(f"monitor_outbox_oldest_age_seconds{{{SCOPE}}}", "{{instance}}"),
            unit="s",
            steps=((300, RED),),
            span=6,
        ),
    ]
