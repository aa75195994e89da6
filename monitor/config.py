"""The configuration: `config.toml` and the environment in, one frozen `Config` or every problem at once out.

Loading reads the file, the environment variables `MONITOR_…` (nested keys with `__`, for example
`MONITOR_KAFKA__BOOTSTRAP_SERVERS`) and the files and variables that hold secrets; nothing else.
Paths in the file are relative to the file's folder, those in the environment to the working directory.
"""

from __future__ import annotations

import ipaddress
import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import SplitResult, parse_qsl, quote, unquote, urlsplit, urlunsplit

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, SettingsError

from monitor.bundle import Manifest, ThresholdPair
from monitor.errors import ConfigInvalid, Problem

Seconds = Annotated[float, Field(ge=0.0, le=86_400.0)]
PositiveSeconds = Annotated[float, Field(gt=0.0, le=86_400.0)]
Share = Annotated[float, Field(ge=0.0, le=1.0)]
Identifier = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")]
Point = tuple[Share, Share]

KAFKA_FILES = ("ssl_cafile", "ssl_certfile", "ssl_keyfile", "sasl_password_file")
PATH_KEYS = {
    "evidence": ("folder",),
    "model": ("cache",),
    "outbox": ("path",),
    "kafka": KAFKA_FILES,
    "http": ("token_file",),
}
TOKEN = re.compile(r"[!-~]{16,1024}")
"""What an HTTP header can carry, and long enough that nobody guesses it."""
SECRET_PARAMETER = re.compile(r"pass|pwd|token|auth|key|secret", re.IGNORECASE)
SECRET_PAIR = re.compile(
    r"(?P<key>[^/&?=]*(?:pass|pwd|token|auth|key|secret)[^/&?=]*)=(?P<value>[^/&?]+)", re.IGNORECASE
)
"""Some recorders want user and password in the path: `/user=…&password=…&channel=1.sdp`."""
ENCODE = "percent-encode special characters of user name and password, or give them by username and password_env"
VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]*")
NETWORK_SCHEMES = ("rtsp", "rtsps", "http", "https", "rtp", "udp", "tcp", "srt", "rtmp", "rtmps")


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class CameraConfig(_Section):
    """One camera to watch."""

    id: Identifier
    """Name of the camera in metrics, alerts and on the command line; never changes once alerts have been sent."""
    url: Annotated[str, Field(min_length=1, repr=False)]
    """rtsp://, rtsps://, http(s):// or a file (played at its own pace). Credentials may stand in it, but are
    better kept in `username` and `password_env` or `password_file`; they are never shown."""
    clip_url: Annotated[str, Field(repr=False)] = ""
    """The camera's large stream, where `url` names its small one: only read, never decoded, and what clips, snapshots
    and strips are made of. The same user name and password serve for both. Empty: evidence is made of `url`."""
    name: Annotated[str, Field(max_length=200)] = ""
    """For people; the id when empty."""
    site: Annotated[str, Field(max_length=200)] = ""
    """Where the camera hangs; travels in each alert."""
    tags: Annotated[tuple[Annotated[str, Field(max_length=64)], ...], Field(max_length=16)] = ()
    """Free words that travel in each alert."""
    transport: Literal["tcp", "udp"] = "tcp"
    """How RTSP carries the pictures. tcp loses nothing; udp is for cameras that know no other."""
    username: str = ""
    """User name for the camera."""
    password_env: str = ""
    """Environment variable that holds the password."""
    password_file: Path | None = None
    """File that holds the password (its first line)."""
    hwaccel: Literal["", "none", "cuda", "vaapi"] = ""
    """In place of capture.hwaccel for this camera; empty: as there."""
    gate: Literal["", "auto", "off"] = ""
    """In place of capture.gate for this camera; empty: as there."""
    tls_verify: bool = False
    """Whether to check the camera's certificate (rtsps, https); off, since most cameras sign their own."""
    tls_ca_file: Path | None = None
    """Authorities that may have signed it; left out: the system's."""
    zone: Annotated[tuple[Point, ...], Field(max_length=64)] = ()
    """Polygon [[x, y], …] in 0..1 of the picture; only what lies inside is looked at. Empty: the whole picture."""
    labels: tuple[str, ...] = ()
    """Labels of the model to watch for; empty: all but the background."""
    thresholds: Mapping[str, ThresholdPair] = Field(default_factory=dict)
    """Per label: `{on = 0.8, off = 0.5}` in place of the model's own."""
    priority: Annotated[int, Field(ge=0, le=9)] = 5
    """How important it is, 9 most: its samples are scored first, and thinned last when scoring cannot keep up."""

    _password: SecretStr = PrivateAttr(default=SecretStr(""))
    _username: str = PrivateAttr(default="")

    @field_validator("url", "clip_url")
    @classmethod
    def _usable_address(cls, url: str) -> str:
        """Check an address; the messages hold nothing of it, since a password may stand in it."""
        scheme, separator, rest = url.partition("://")
        if not separator:
            return url
        if scheme not in (*NETWORK_SCHEMES, "file"):
            raise ValueError(f"the scheme before :// is not one of {', '.join(NETWORK_SCHEMES)}, file")
        try:
            parts = urlsplit(url)
            host, _port = parts.hostname, parts.port
        except ValueError:
            raise ValueError("host or port of the address cannot be read; " + ENCODE) from None
        if scheme in NETWORK_SCHEMES and not host:
            raise ValueError("the address names no host; " + ENCODE)
        if scheme in NETWORK_SCHEMES and "@" in rest and "@" not in parts.netloc:
            raise ValueError("the part before @ holds / ? or #; " + ENCODE)
        return url

    @field_validator("password_env")
    @classmethod
    def _variable_is_set(cls, name: str) -> str:
        return _checked_variable(name)

    @field_validator("password_file")
    @classmethod
    def _file_is_readable(cls, path: Path | None) -> Path | None:
        return _readable_file(path)

    @field_validator("tls_ca_file")
    @classmethod
    def _authorities_exist(cls, path: Path | None) -> Path | None:
        return _existing_file(path)

    @field_validator("zone")
    @classmethod
    def _zone_has_area(cls, zone: tuple[Point, ...]) -> tuple[Point, ...]:
        if zone and len(zone) < 3:
            raise ValueError("a zone needs at least three points")
        if zone and _polygon_area(zone) < 1e-4:
            raise ValueError("the zone's area is next to nothing")
        return zone

    @model_validator(mode="after")
    def _take_secrets(self) -> Self:
        if self.password_env and self.password_file is not None:
            raise ValueError("give password_env or password_file, not both")
        if (self.password_env or self.password_file is not None) and not (self.username or "@" in self.url):
            raise ValueError("a password needs a username")
        if self.clip_url == self.url:
            raise ValueError("clip_url is the same as url; leave it out")
        self._take_credentials(urlsplit(self.url))
        return self

    def _take_credentials(self, address: SplitResult) -> None:
        """Take user name and password from their own keys or, where those are empty, from an address."""
        password = unquote(address.password or "")
        if self.password_env:
            password = os.environ[self.password_env]
        elif self.password_file is not None:
            password = _first_line(self.password_file)
        self._password = SecretStr(password)
        self._username = self.username or unquote(address.username or "")

    @property
    def clip(self) -> CameraConfig | None:
        """The large stream, as a camera to connect to; None where there is none."""
        return self.at(self.clip_url) if self.clip_url else None

    def at(self, url: str) -> CameraConfig:
        """Return the same camera with another of its streams in place of `url`, and no large one.

        The credentials are the camera's own, save where the address brings some.
        """
        other = self.model_copy(update={"url": url, "clip_url": ""})
        if "@" in urlsplit(url).netloc:
            other._take_credentials(urlsplit(url))
        return other

    @property
    def is_network(self) -> bool:
        """Whether the stream comes over the network (a file is paced by us)."""
        return urlsplit(self.url).scheme in NETWORK_SCHEMES

    @property
    def display_url(self) -> str:
        """The address without credentials and query: for logs and people."""
        parts = urlsplit(self.url)
        if not self.is_network:
            return self.url
        path = SECRET_PAIR.sub(r"\g<key>=…", parts.path)
        return urlunsplit(parts._replace(netloc=_host(parts), path=path, query=""))

    @property
    def login_url(self) -> SecretStr:
        """The address with credentials, percent-encoded: for the connection alone."""
        parts = urlsplit(self.url)
        if not self.is_network or not self._username:
            return SecretStr(self.url)
        user, password = quote(self._username, safe=""), quote(self._password.get_secret_value(), safe="")
        return SecretStr(urlunsplit(parts._replace(netloc=f"{user}:{password}@{_host(parts)}")))

    @property
    def shared_url(self) -> str:
        """The address as it may be copied into a configuration: without credentials, each secret value as `…`."""
        parts = urlsplit(self.url)
        if not self.is_network:
            return self.url
        path, query = (SECRET_PAIR.sub(r"\g<key>=…", part) for part in (parts.path, parts.query))
        return urlunsplit(parts._replace(netloc=_host(parts), path=path, query=query))

    def secrets(self) -> tuple[str, ...]:
        """Return the plain secrets of this camera, for redaction alone: passwords, and tokens in path and query."""
        found = {self._password.get_secret_value()}
        for parts in (urlsplit(url) for url in (self.url, self.clip_url)):
            found |= {value for key, value in parse_qsl(parts.query) if SECRET_PARAMETER.search(key)}
            found |= {pair["value"] for pair in SECRET_PAIR.finditer(parts.path)}
            if parts.scheme in NETWORK_SCHEMES:
                found.add(unquote(parts.password or ""))
        return tuple(found - {""})


class ModelConfig(_Section):
    """Which event model scores the windows, and on what."""

    bundle: Annotated[str, Field(min_length=1, max_length=200)] = "fight"
    """Folder of a bundle, or the name of one that ships with the program (`demo`, `fight`)."""
    engine: Literal["auto", "tensorrt", "openvino", "onnxruntime"] = "auto"
    """What runs it; auto tries TensorRT, then OpenVINO, then ONNX Runtime, and takes the first that reproduces the
    bundle's golden outputs."""
    precision: Literal["auto", "fp32", "fp16", "bf16", "int8"] = "auto"
    """What the backbone reckons in; auto takes what is measured fastest of those that reproduce the golden outputs; a
    replay then takes fp32, so that its answers do not depend on the measurement. fp16 and int8 need `monitor compile`
    once; where it was not run, fp32 serves and a log line says so."""
    cache: Path = Path("var/engines")
    """Folder that `monitor compile` fills and the engines look into."""
    threads: Annotated[int, Field(ge=0, le=256)] = 0
    """Processor threads of the engine; 0: half of the cores, so that capture keeps the others."""
    shadow: Annotated[str, Field(max_length=200)] = ""
    """A second bundle, named likewise, that scores the same windows when there is time; only where it disagrees is
    reported, never as an alert. Empty: none."""


class CaptureConfig(_Section):
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


class ScoringConfig(_Section):
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


class EventsConfig(_Section):
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


class HealthConfig(_Section):
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


class EvidenceConfig(_Section):
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


class OutboxConfig(_Section):
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


class KafkaConfig(_Section):
    """Where alerts go. Leave the section out to keep them in the outbox only."""

    bootstrap_servers: Annotated[str, Field(min_length=1)]
    """host:port, comma-separated."""
    topic: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,249}$")] = "monitor.alerts"
    """Topic of the alerts; the key is the camera's id."""
    health_topic: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,249}$")] = "monitor.cameras"
    """Topic of the messages on cameras' health: offline, online, refused, frozen, dark."""
    request_timeout_seconds: PositiveSeconds = 10.0
    """How long one attempt may take before it is tried again."""
    create_topics: bool = False
    """Whether to make the topics that do not exist, once Kafka is reached."""
    partitions: Annotated[int, Field(ge=0, le=10_000)] = 0
    """Of a topic that we make; 0: as many as the broker makes by itself."""
    replication: Annotated[int, Field(ge=0, le=100)] = 0
    """Replicas of each partition of a topic that we make; 0: as many as the broker makes by itself."""
    compression: Literal["none", "gzip", "lz4", "zstd"] = "none"
    """Compression of the records."""
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    """As in Kafka's documentation."""
    ssl_cafile: Path | None = None
    """Authorities that may have signed the broker's certificate."""
    ssl_certfile: Path | None = None
    """Our certificate, for mutual TLS."""
    ssl_keyfile: Path | None = None
    """Its key."""
    sasl_mechanism: Literal["", "PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = ""
    """As in Kafka's documentation."""
    sasl_username: str = ""
    """User name at the broker."""
    sasl_password_env: str = ""
    """Environment variable that holds the password."""
    sasl_password_file: Path | None = None
    """File that holds the password (its first line)."""

    _password: SecretStr = PrivateAttr(default=SecretStr(""))

    @field_validator("sasl_password_env")
    @classmethod
    def _variable_is_set(cls, name: str) -> str:
        return _checked_variable(name)

    @field_validator("sasl_password_file")
    @classmethod
    def _file_is_readable(cls, path: Path | None) -> Path | None:
        return _readable_file(path)

    @field_validator("ssl_cafile", "ssl_certfile", "ssl_keyfile")
    @classmethod
    def _file_exists(cls, path: Path | None) -> Path | None:
        return _existing_file(path)

    @field_validator("bootstrap_servers")
    @classmethod
    def _servers_have_ports(cls, servers: str) -> str:
        for server in servers.split(","):
            host, _, port = server.strip().rpartition(":")
            if not host or "@" in host or not port.isdigit() or not 0 < int(port) < 65536:
                raise ValueError("must be host:port, comma-separated, without user names and passwords")
        return servers

    @model_validator(mode="after")
    def _take_secrets(self) -> Self:
        if self.security_protocol.startswith("SASL") and not self.sasl_mechanism:
            raise ValueError(f"security_protocol {self.security_protocol} needs sasl_mechanism")
        named = [self.sasl_password_env, self.sasl_password_file]
        if self.sasl_mechanism and not (self.sasl_username and any(named)):
            raise ValueError("sasl_mechanism needs sasl_username and sasl_password_env or sasl_password_file")
        if all(named):
            raise ValueError("give sasl_password_env or sasl_password_file, not both")
        if self.sasl_password_env:
            self._password = SecretStr(os.environ[self.sasl_password_env])
        elif self.sasl_password_file is not None:
            self._password = SecretStr(_first_line(self.sasl_password_file))
        return self

    @property
    def sasl_password(self) -> SecretStr:
        """The password at the broker; empty when none is set."""
        return self._password

    def secrets(self) -> tuple[str, ...]:
        """Return the plain secrets of this section, for redaction alone."""
        return tuple(secret for secret in (self._password.get_secret_value(),) if secret)


class HttpConfig(_Section):
    """The one HTTP port: /metrics, /live, /ready and the page."""

    host: Annotated[str, Field(min_length=1)] = "127.0.0.1"
    """Address to listen on."""
    port: Annotated[int, Field(ge=0, le=65535)] = 8080
    """Port to listen on; 0 takes a free one and logs it."""
    token_env: str = ""
    """Environment variable that holds the token which people log in to the page with, and programs send as
    `Authorization: Bearer`; 16 characters or more. Without a token the page is for this machine alone."""
    token_file: Path | None = None
    """File that holds the token (its first line)."""

    _token: SecretStr = PrivateAttr(default=SecretStr(""))

    @field_validator("token_env")
    @classmethod
    def _variable_is_set(cls, name: str) -> str:
        return _checked_variable(name)

    @field_validator("token_file")
    @classmethod
    def _file_is_readable(cls, path: Path | None) -> Path | None:
        return _readable_file(path)

    @model_validator(mode="after")
    def _take_token(self) -> Self:
        if self.token_env and self.token_file is not None:
            raise ValueError("give token_env or token_file, not both")
        if self.token_env:
            self._token = SecretStr(os.environ[self.token_env])
        elif self.token_file is not None:
            self._token = SecretStr(_first_line(self.token_file))
        elif not self.is_local:
            raise ValueError(
                f"host {self.host} can be reached from other machines: give token_env or token_file, "
                "or host 127.0.0.1 to serve this machine alone"
            )
        named = self.token_env or self.token_file
        if named and not TOKEN.fullmatch(self._token.get_secret_value()):
            raise ValueError("the token needs 16 characters or more, letters, digits or signs without spaces")
        return self

    @property
    def is_local(self) -> bool:
        """Whether only this machine can reach the address."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    @property
    def token(self) -> SecretStr:
        """What people and programs have to know; empty where nothing is asked for."""
        return self._token

    def secrets(self) -> tuple[str, ...]:
        """Return the plain secrets of this section, for redaction alone."""
        return tuple(secret for secret in (self._token.get_secret_value(),) if secret)


class LogsConfig(_Section):
    """What is logged, on standard error."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    """Least severity that is written."""
    format: Literal["auto", "json", "text"] = "auto"
    """auto: text on a terminal, JSON elsewhere."""


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
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as exc:
        raise ConfigInvalid(path, [Problem("file", f"cannot be read: {exc.strerror or exc}")]) from exc
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as exc:
        raise ConfigInvalid(path, [Problem("file", f"not a TOML file: {exc}")]) from exc
    values.pop("$schema", None)
    try:
        config = Config(**_with_absolute_paths(values, path.resolve().parent))
    except SettingsError as exc:
        raise ConfigInvalid(path, [Problem("environment", f"a MONITOR_ variable is not JSON: {exc}")]) from None
    except ValidationError as exc:
        errors = exc.errors(include_url=False)
        problems = [_problem(error, values) for error in errors if not _follows(error, values)]
        raise ConfigInvalid(path, problems) from None
    config._folder = path.resolve().parent
    return config


def check_against_model(config: Config, manifest: Manifest, path: Path | str) -> None:
    """Check that the labels that the configuration names are the model's.

    Raises:
        ConfigInvalid: with every unknown label, each under its key.
    """
    known = set(manifest.event_labels)
    named = [(f"events.thresholds.{label}", label) for label in config.events.thresholds]
    for index, camera in enumerate(config.cameras):
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


def _problem(error: ErrorDetails, values: Mapping[str, Any]) -> Problem:
    reason = error["msg"].removeprefix("Value error, ")
    if error["type"] == "extra_forbidden":
        reason = "unknown key"
    elif error["type"] == "missing":
        reason = "is missing"
    return Problem(_key(error["loc"], values), reason)


def _follows(error: ErrorDetails, values: Mapping[str, Any]) -> bool:
    """Whether an error only follows from others: no camera is left because each one is wrong."""
    return error["type"] == "too_short" and error["loc"] == ("cameras",) and bool(values.get("cameras"))


def _key(location: tuple[int | str, ...], values: Mapping[str, Any]) -> str:
    """Spell a location as a person would look for it: `cameras[1] (yard).url`."""
    key = ""
    here: Any = values
    for part in location:
        if isinstance(part, int):
            here = here[part] if isinstance(here, list) and part < len(here) else None
            name = here.get("id") if isinstance(here, dict) else None
            key += f"[{part}]" + (f" ({name})" if isinstance(name, str) else "")
        else:
            here = here.get(part) if isinstance(here, dict) else None
            key += f".{part}" if key else part
    return key or "configuration"


def _existing_file(path: Path | None) -> Path | None:
    try:
        if path is None or path.is_file():
            return path
    except OSError as exc:
        raise ValueError(f"{path} cannot be looked at: {exc.strerror}") from None
    raise ValueError(f"{path} is not a file")


def _readable_file(path: Path | None) -> Path | None:
    """Return a path where it is a text file that can be read."""
    if path is None:
        return None
    try:
        path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        raise ValueError(f"{path} cannot be read: {getattr(exc, 'strerror', None) or 'not text'}") from None
    return path


def _first_line(path: Path) -> str:
    return (path.read_text(encoding="utf-8").splitlines() or [""])[0]


def _checked_variable(name: str) -> str:
    """Return a variable's name where it is set; the message shows it only where it looks like one."""
    if not name or name in os.environ:
        return name
    shown = name if VARIABLE.fullmatch(name) else "(not shown: it may be the password itself)"
    raise ValueError(f"environment variable {shown} is not set")


def _polygon_area(points: tuple[Point, ...]) -> float:
    """Shoelace formula, in units of the picture's area."""
    pairs = zip(points, points[1:] + points[:1], strict=True)
    return abs(sum(x0 * y1 - x1 * y0 for (x0, y0), (x1, y1) in pairs)) / 2


def _host(parts: SplitResult) -> str:
    return parts.netloc.rpartition("@")[2]
