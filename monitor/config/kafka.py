"""Kafka: where alerts go, and how to log in there."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, PrivateAttr, SecretStr, field_validator, model_validator

from monitor.config.section import PositiveSeconds, Section, existing_file, first_line, secret_file, secret_variable


class KafkaConfig(Section):
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
        return secret_variable(name)

    @field_validator("sasl_password_file")
    @classmethod
    def _file_is_readable(cls, path: Path | None) -> Path | None:
        return secret_file(path)

    @field_validator("ssl_cafile", "ssl_certfile", "ssl_keyfile")
    @classmethod
    def _file_exists(cls, path: Path | None) -> Path | None:
        return existing_file(path)

    @field_validator("bootstrap_servers")
    @classmethod
    def _servers_have_ports(cls, servers: str) -> str:
        for server in servers.split(","):
            host, _, port = server.strip().rpartition(":")
            if not host or "@" in host or not port.isdigit() or not 0 < int(port) < 65536:
                raise ValueError("must be host:port, comma-separated, without user names and passwords")
        return servers

    @model_validator(mode="after")
    def _protocol_fits(self) -> Self:
        """Refuse what would be left out without a word: a login that is not made, a certificate that is not checked."""
        protocol = self.security_protocol
        logins = (self.sasl_mechanism, self.sasl_username, self.sasl_password_env, self.sasl_password_file)
        if any(logins) and not protocol.startswith("SASL"):
            raise ValueError(f"security_protocol {protocol} logs in nowhere; with sasl_… keys it is SASL_SSL")
        files = (self.ssl_cafile, self.ssl_certfile, self.ssl_keyfile)
        if any(files) and not protocol.endswith("SSL"):
            raise ValueError(f"security_protocol {protocol} is not encrypted; with ssl_… keys it is SSL or SASL_SSL")
        return self

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
            self._password = SecretStr(first_line(self.sasl_password_file))
        return self

    @property
    def sasl_password(self) -> SecretStr:
        """The password at the broker; empty when none is set."""
        return self._password

    def secrets(self) -> tuple[str, ...]:
        """Return the plain secrets of this section, for redaction alone."""
        return tuple(secret for secret in (self._password.get_secret_value(),) if secret)
