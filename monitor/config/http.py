"""The HTTP port, and the token without which it serves this machine alone."""

from __future__ import annotations

import ipaddress
import os
import re
from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, PrivateAttr, SecretStr, field_validator, model_validator

from monitor.config.section import Section, first_line, secret_file, secret_variable

TOKEN = re.compile(r"[!-~]{16,1024}")
"""What an HTTP header can carry, and long enough that nobody guesses it."""


class HttpConfig(Section):
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
        return secret_variable(name)

    @field_validator("token_file")
    @classmethod
    def _file_is_readable(cls, path: Path | None) -> Path | None:
        return secret_file(path)

    @model_validator(mode="after")
    def _take_token(self) -> Self:
        if self.token_env and self.token_file is not None:
            raise ValueError("give token_env or token_file, not both")
        if self.token_env:
            self._token = SecretStr(os.environ[self.token_env])
        elif self.token_file is not None:
            self._token = SecretStr(first_line(self.token_file))
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
