"""`config.toml` and the environment in, one frozen `Config` or every problem at once out."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, PrivateAttr, ValidationError, field_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, SettingsError

from monitor.bundle import Manifest
from monitor.config.camera import CameraConfig
from monitor.config.environment import unread_variables
from monitor.config.http import HttpConfig
from monitor.config.kafka import KafkaConfig
from monitor.config.problems import problems_of, section_of
from monitor.config.section import Identifier
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
from monitor.errors import ConfigInvalid, Problem

KAFKA_FILES = ("ssl_cafile", "ssl_certfile", "ssl_keyfile", "sasl_password_file")
BEGIN = "; give --config FILE or MONITOR_CONFIG, or begin with the project's config.toml"
PATH_KEYS = {
    "evidence": ("folder",),
    "model": ("cache",),
    "outbox": ("path",),
    "kafka": KAFKA_FILES,
    "http": ("token_file",),
}


class Config(BaseSettings):
    """The whole configuration."""

    model_config = SettingsConfigDict(
        frozen=True, extra="forbid", env_prefix="MONITOR_", env_nested_delimiter="__", use_attribute_docstrings=True
    )

    instance: Identifier = "monitor"
    """Name of this instance; travels in each alert."""
    cameras: Annotated[tuple[CameraConfig, ...], Field(min_length=1)]
    """The cameras to watch."""
    model: ModelConfig = ModelConfig()
    capture: CaptureConfig = CaptureConfig()
    scoring: ScoringConfig = ScoringConfig()
    events: EventsConfig = EventsConfig()
    health: HealthConfig = HealthConfig()
    evidence: EvidenceConfig = EvidenceConfig()
    outbox: OutboxConfig = OutboxConfig()
    kafka: KafkaConfig | None = None
    http: HttpConfig = HttpConfig()
    logs: LogsConfig = LogsConfig()

    _path: Path = PrivateAttr(default=Path("config.toml"))
    _folder: Path = PrivateAttr(default_factory=Path.cwd)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Let the environment win over the file, which arrives as init settings."""
        return env_settings, init_settings

    @field_validator("cameras")
    @classmethod
    def _ids_differ(cls, cameras: tuple[CameraConfig, ...]) -> tuple[CameraConfig, ...]:
        ids = [camera.id for camera in cameras]
        repeated = sorted({name for name in ids if ids.count(name) > 1})
        if repeated:
            raise ValueError(f"camera ids repeat: {', '.join(repeated)}")
        return cameras

    @field_validator("kafka")
    @classmethod
    def _topics_differ(cls, kafka: KafkaConfig | None) -> KafkaConfig | None:
        if kafka is not None and kafka.topic == kafka.health_topic:
            raise ValueError("topic and health_topic are the same; who reads alerts would be given health, too")
        return kafka

    @property
    def path(self) -> Path:
        """The configuration file, as it was given: for messages."""
        return self._path

    @property
    def folder(self) -> Path:
        """The configuration file's folder: where a bundle given by path is looked for."""
        return self._folder

    def secrets(self) -> tuple[str, ...]:
        """Return every plain secret, for redaction alone."""
        cameras = tuple(secret for camera in self.cameras for secret in camera.secrets())
        return cameras + self.http.secrets() + (self.kafka.secrets() if self.kafka else ())


def load_config(path: Path) -> Config:
    """Read the configuration.

    Raises:
        ConfigInvalid: with every problem, each under its key.
    """
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8-sig"))  # some editors begin with a byte order mark
    except OSError as exc:
        raise ConfigInvalid(
            path,
            [
                Problem(
                    "file",
                    f"cannot be read: {exc.strerror or exc}{BEGIN if isinstance(exc, FileNotFoundError) else ''}",
                )
            ],
        ) from exc
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as exc:
        raise ConfigInvalid(path, [Problem("file", f"not a TOML file: {exc}")]) from exc
    values.pop("$schema", None)
    if _holds_nul(values):
        raise ConfigInvalid(path, [Problem("file", "holds the character U+0000, which no path, name or address has")])
    sections = {key: section_of(field) for key, field in Config.model_fields.items()}
    unread = unread_variables(values, {**sections, "cameras": None})  # those come all together, as JSON
    try:
        config = Config(**_with_absolute_paths(values, path.resolve().parent))
    except SettingsError as exc:
        raise ConfigInvalid(path, [_not_json(exc), *unread]) from None
    except ValidationError as exc:
        raise ConfigInvalid(path, [*problems_of(exc, values, Config), *unread]) from None
    if unread:
        raise ConfigInvalid(path, unread)
    config._path = path
    config._folder = path.resolve().parent
    return config


def check_against_model(config: Config, manifest: Manifest, path: Path | str, *, cameras: bool = True) -> None:
    """Check that the labels that the configuration names are the model's: those of its cameras too, where they matter.

    Raises:
        ConfigInvalid: with every unknown label, each under its key.
    """
    known = set(manifest.event_labels)
    named = [(f"events.thresholds.{label}", label) for label in config.events.thresholds]
    for index, camera in enumerate(config.cameras if cameras else ()):
        where = f"cameras[{index}] ({camera.id})"
        named += [(f"{where}.labels", label) for label in camera.labels]
        named += [(f"{where}.thresholds.{label}", label) for label in camera.thresholds]
    problems = [
        Problem(key, f"model {manifest.name} has no label {label!r}; it has {', '.join(sorted(known))}")
        for key, label in named
        if label not in known
    ]
    if problems:
        raise ConfigInvalid(path, problems)


def _not_json(exc: SettingsError) -> Problem:
    """Return the problem of a variable that stands for a whole section, or for the cameras; the error names its key."""
    name = re.sub(r'.*field "(\w+)".*', r"\1", str(exc)).upper()
    example = f"MONITOR_{name}__… sets one key of it" if name != "CAMERAS" else '[{"id": "yard", "url": "…"}]'
    return Problem(f"MONITOR_{name}", f"is not JSON: {example}")


def _holds_nul(value: Any) -> bool:
    if isinstance(value, dict | list):
        return any(map(_holds_nul, value.values() if isinstance(value, dict) else value))
    return isinstance(value, str) and "\0" in value


def _with_absolute_paths(values: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Return the file's values with its paths anchored in its folder."""
    anchored = {"evidence": {}, "model": {}, "outbox": {}, **values}
    if isinstance(anchored["evidence"], dict):
        anchored["evidence"] = {"folder": str(EvidenceConfig().folder), **anchored["evidence"]}
    if isinstance(anchored["model"], dict):
        anchored["model"] = {"cache": str(ModelConfig().cache), **anchored["model"]}
    if isinstance(anchored["outbox"], dict):
        anchored["outbox"] = {"path": str(OutboxConfig().path), **anchored["outbox"]}
    for section, keys in PATH_KEYS.items():
        if isinstance(anchored.get(section), dict):
            anchored[section] = _anchored(anchored[section], keys, folder)
    cameras = anchored.get("cameras")
    if isinstance(cameras, list):
        anchored["cameras"] = [
            _anchored(camera, ("password_file", "tls_ca_file", *_file_key(camera)), folder)
            if isinstance(camera, dict)
            else camera
            for camera in cameras
        ]
    return anchored


def _file_key(camera: Mapping[str, Any]) -> tuple[str, ...]:
    """Return `url` and `clip_url` where they are plain paths."""
    return tuple(key for key in ("url", "clip_url") if camera.get(key) and "://" not in str(camera[key]))


def _anchored(section: Mapping[str, Any], keys: tuple[str, ...], folder: Path) -> dict[str, Any]:
    return {
        key: str(folder / os.path.expanduser(value)) if key in keys and isinstance(value, str) else value
        for key, value in section.items()
    }
