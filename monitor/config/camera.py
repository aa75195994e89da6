"""One camera: its streams, its credentials, and what to watch for."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import SplitResult, parse_qsl, quote, unquote, urlsplit, urlunsplit

from pydantic import Field, PrivateAttr, SecretStr, field_validator, model_validator

from monitor.bundle import ThresholdPair
from monitor.config.section import (
    Identifier,
    Section,
    Share,
    existing_file,
    first_line,
    secret_file,
    secret_variable,
)

Point = tuple[Share, Share]

SECRET_PARAMETER = re.compile(r"pass|pwd|token|auth|key|secret", re.IGNORECASE)
SECRET_PAIR = re.compile(
    r"(?P<key>[^/&?=]*(?:pass|pwd|token|auth|key|secret)[^/&?=]*)=(?P<value>[^/&?]+)", re.IGNORECASE
)
"""Some recorders want user and password in the path: `/user=…&password=…&channel=1.sdp`."""
ENCODE = "percent-encode special characters of user name and password, or give them by username and password_env"
NETWORK_SCHEMES = ("rtsp", "rtsps", "http", "https", "rtp", "udp", "tcp", "srt", "rtmp", "rtmps")


class CameraConfig(Section):
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
        return secret_variable(name)

    @field_validator("password_file")
    @classmethod
    def _file_is_readable(cls, path: Path | None) -> Path | None:
        return secret_file(path)

    @field_validator("tls_ca_file")
    @classmethod
    def _authorities_exist(cls, path: Path | None) -> Path | None:
        return existing_file(path)

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
            password = first_line(self.password_file)
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
    def file_path(self) -> str:
        """Path of the file that a camera stands for which is none of the network's."""
        return unquote(urlsplit(self.url).path) if self.url.startswith("file://") else self.url

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


def _polygon_area(points: tuple[Point, ...]) -> float:
    """Shoelace formula, in units of the picture's area."""
    pairs = zip(points, points[1:] + points[:1], strict=True)
    return abs(sum(x0 * y1 - x1 * y0 for (x0, y0), (x1, y1) in pairs)) / 2


def _host(parts: SplitResult) -> str:
    return parts.netloc.rpartition("@")[2]
