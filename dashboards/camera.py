"""One camera, everything: how it is, what comes, what is made of it, what is told of it."""

from __future__ import annotations

from grafana_foundation_sdk.models.dashboard import Dashboard

from dashboards.frame import ONE, SCOPE, frame
from dashboards.panels import BLUE, GREEN, ORANGE, RED, Panel, Query, lines, number, spread, states, words

CAMERA_ROWS = "{{camera}}"


def camera() -> Dashboard:
    """Return the dashboard."""
    return frame(
        "monitor-camera",
        "One camera: its connection, its picture, what is decoded and scored of it, and what is told of it.",
        {
            "Now": [*_figures(), *_bands()],
            "Connection": _connection(),
            "Pictures": _pictures(),
            "Windows and scores": _windows(),
            "Events": _events(),
        },
        one_camera=True,
    )


def per_second(counter: str, *by: str) -> str:
    """Return the rate of one of the camera's counters, by labels beside the camera."""
    return f"sum by ({', '.join(('camera', *by))}) (rate({counter}{{{ONE}}}[$__rate_interval]))"


def _figures() -> list[Panel]:
    return [
        words(
            number(
                "Stream",
                "Whether its stream is being read.",
                Query(f"min(monitor_camera_up{{{ONE}}})"),
                steps=((0, RED), (1, GREEN)),
                span=3,
            ),
            {0: ("down", RED), 1: ("up", GREEN)},
        ),
        number(
            "State",
            "connecting, online, offline, or refused: the camera does not take our password.",
            Query(f"sum by (state) (monitor_camera_state{{{ONE}}} == 1)", "{{state}}"),
            span=3,
        ),
        number(
            "Newest frame",
            "How long ago the newest frame was decoded. While the gate lets the camera sleep, only keyframes are.",
            Query(f"time() - max(monitor_camera_last_frame_timestamp_seconds{{{ONE}}})"),
            unit="s",
            steps=((10, ORANGE), (60, RED)),
            span=3,
        ),
        words(
            number(
                "Picture",
                "Frozen: one and the same picture. Dark: no contrast.",
                Query(f"max(monitor_camera_frozen{{{ONE}}} + 2 * monitor_camera_dark{{{ONE}}})"),
                steps=((1, ORANGE),),
                span=3,
            ),
            {0: ("well", GREEN), 1: ("frozen", ORANGE), 2: ("dark", ORANGE)},
        ),
        words(
            number(
                "Gate",
                "Asleep, only keyframes are decoded; what moves wakes it.",
                Query(f"max(monitor_camera_gate_awake{{{ONE}}})"),
                span=3,
            ),
            {0: ("asleep", BLUE), 1: ("awake", GREEN)},
        ),
        number(
            "Stride",
            "How many times its usual stride lies between two of its windows; above 1 the engine does not keep up.",
            Query(f"max(monitor_stride_factor{{{ONE}}})"),
            steps=((1.5, ORANGE),),
            span=3,
        ),
        number(
            "Clock",
            "The camera's clock less the host's; a dash where the camera tells none.",
            Query(f"max(monitor_camera_clock_skew_seconds{{{ONE}}})"),
            unit="s",
            steps=((-1e9, RED), (-5, GREEN), (5, RED)),
            span=3,
        ),
        number("Events going on", "Events that have not ended.", Query(f"sum(monitor_events_active{{{ONE}}})"), span=3),
    ]


def _bands() -> list[Panel]:
    return [
        states(
            "Stream and gate",
            "Whether the stream is read, and whether the gate is awake.",
            Query(f"monitor_camera_up{{{ONE}}}", "stream"),
            Query(f"monitor_camera_clip_up{{{ONE}}}", "large stream"),
            Query(f"monitor_camera_gate_awake{{{ONE}}}", "awake"),
            meanings={0: ("no", ORANGE), 1: ("yes", GREEN)},
            span=12,
        ),
        states(
            "Troubles",
            "Frozen, dark, refused, or scored less often.",
            Query(f"monitor_camera_frozen{{{ONE}}}", "frozen"),
            Query(f"monitor_camera_dark{{{ONE}}}", "dark"),
            Query(f'monitor_camera_state{{{ONE},state="refused"}}', "refused"),
            Query(f"monitor_camera_degraded{{{ONE}}}", "scored less often"),
            meanings={0: ("no", GREEN), 1: ("yes", RED)},
            span=12,
        ),
    ]


def _connection() -> list[Panel]:
    return [
        lines(
            "Connections tried",
            "Attempts in five minutes, by what came of them.",
            Query(f"sum by (result) (increase(monitor_camera_connect_attempts_total{{{ONE}}}[5m]))", "{{result}}"),
            bars=True,
            stacked=True,
            span=6,
        ),
        lines(
            "Streams lost",
            "Losses of a running stream in five minutes, by reason; the marks are returns.",
            Query(f"sum by (reason) (increase(monitor_camera_disconnects_total{{{ONE}}}[5m]))", "{{reason}}"),
            Query(f"sum(increase(monitor_camera_reconnects_total{{{ONE}}}[5m]))", "came back"),
            bars=True,
            span=6,
        ),
        lines(
            "Failures",
            "Failed connections and lost streams in five minutes, by reason.",
            Query(f"sum by (reason) (increase(monitor_camera_failures_total{{{ONE}}}[5m]))", "{{reason}}"),
            bars=True,
            stacked=True,
            span=6,
        ),
        lines(
            "Clock",
            "The camera's clock less the host's; its own recordings and the picture's stamp are off by as much.",
            Query(f"monitor_camera_clock_skew_seconds{{{ONE}}}", CAMERA_ROWS),
            unit="s",
            steps=((5, ORANGE),),
            span=6,
        ),
    ]


def _pictures() -> list[Panel]:
    decoded, skipped = per_second("monitor_frames_decoded_total"), per_second("monitor_frames_skipped_total")
    return [
        lines(
            "Received",
            "What the camera sends.",
            Query(f"{per_second('monitor_received_bytes_total')} * 8", CAMERA_ROWS),
            unit="bps",
            span=6,
        ),
        lines(
            "Packets and frames",
            "Packets read, frames decoded, frames that the gate spared the decoder.",
            Query(per_second("monitor_packets_total"), "packets"),
            Query(decoded, "decoded"),
            Query(skipped, "spared"),
            unit="cps",
            span=6,
        ),
        lines(
            "Decoded share",
            "Decoded frames of those received. Near 1 while awake, a few per cent while asleep.",
            Query(f"{decoded} / ({decoded} + {skipped})", CAMERA_ROWS),
            unit="percentunit",
            maximum=1,
            span=6,
        ),
        lines(
            "Samples against the grid",
            "Samples taken, and the model's sampling rate, which they should reach while the gate is awake.",
            Query(per_second("monitor_frames_sampled_total"), "taken"),
            Query(f"max(monitor_sample_rate_hertz{{{SCOPE}}})", "grid"),
            unit="cps",
            span=6,
        ),
        lines(
            "The gate wakes",
            "Wake-ups in five minutes, by cause.",
            Query(f"sum by (cause) (increase(monitor_camera_gate_wakeups_total{{{ONE}}}[5m]))", "{{cause}}"),
            bars=True,
            stacked=True,
        ),
        lines(
            "Lost on the way",
            "Packets that the decoder refused, and samples that reached no window, by reason.",
            Query(per_second("monitor_decode_errors_total"), "not decoded"),
            Query(per_second("monitor_frames_dropped_total", "reason"), "{{reason}}"),
            unit="cps",
        ),
        lines(
            "Kept for clips",
            "Packets of the last seconds, in memory.",
            Query(f"monitor_packet_ring_bytes{{{ONE}}}", CAMERA_ROWS),
            Query(f"monitor_clip_ring_bytes{{{ONE}}}", "large stream"),
            unit="bytes",
        ),
    ]


def _windows() -> list[Panel]:
    return [
        lines(
            "Windows",
            "Windows scored, not scored for want of pictures, and decided after the aim.",
            Query(per_second("monitor_windows_scored_total"), "scored"),
            Query(per_second("monitor_windows_skipped_total"), "not scored"),
            Query(per_second("monitor_windows_late_total"), "late"),
            unit="cps",
        ),
        lines(
            "Stride",
            "How many times its usual stride lies between two of its windows.",
            Query(f"monitor_stride_factor{{{ONE}}}", CAMERA_ROWS),
            steps=((1.5, ORANGE),),
        ),
        spread(
            "Scores, all cameras of the monitor",
            "How scores are spread; by label, not by camera, to keep the number of series small. "
            "This camera's own line is on the monitor's page.",
            Query(f"sum by (le) (increase(monitor_score_bucket{{{SCOPE}}}[$__rate_interval]))", "{{le}}"),
            unit="percentunit",
        ),
    ]


def _events() -> list[Panel]:
    return [
        lines(
            "Events told",
            "Messages in five minutes, by label and phase.",
            Query(
                f"sum by (label, phase) (increase(monitor_alerts_total{{{ONE}}}[5m]))",
                "{{label}} {{phase}}",
            ),
            bars=True,
        ),
        lines(
            "Events going on",
            "Events that have started and not ended.",
            Query(f"monitor_events_active{{{ONE}}}", CAMERA_ROWS),
        ),
        lines(
            "Events not told",
            "Events in five minutes that were too short, or came within the cool-down.",
            Query(f"sum by (reason) (increase(monitor_events_suppressed_total{{{ONE}}}[5m]))", "{{reason}}"),
            bars=True,
            stacked=True,
        ),
    ]
