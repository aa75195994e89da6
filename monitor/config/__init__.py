"""The configuration: `config.toml` and the environment in, one frozen `Config` or every problem at once out.

Loading reads the file, the environment variables `MONITOR_…` (nested keys with `__`, for example
`MONITOR_KAFKA__BOOTSTRAP_SERVERS`; one that stands for no key is a problem) and the files and variables that hold
secrets; nothing else.
Paths in the file are relative to the file's folder, those in the environment to the working directory.
"""

from monitor.config.camera import CameraConfig
from monitor.config.http import HttpConfig
from monitor.config.kafka import KafkaConfig
from monitor.config.loading import Config, check_against_model, load_config
from monitor.config.stages import (
    CaptureConfig,
    EventsConfig,
    EvidenceConfig,
    HealthConfig,
    LogsConfig,
    ModelConfig,
    OutboxConfig,
    ScoringConfig,
)

__all__ = [
    "CameraConfig",
    "CaptureConfig",
    "Config",
    "EventsConfig",
    "EvidenceConfig",
    "HealthConfig",
    "HttpConfig",
    "KafkaConfig",
    "LogsConfig",
    "ModelConfig",
    "OutboxConfig",
    "ScoringConfig",
    "check_against_model",
    "load_config",
]
