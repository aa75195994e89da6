"""A streaming video event monitor: RTSP cameras in, alerts in Kafka out."""

__version__ = "0.1.0"
