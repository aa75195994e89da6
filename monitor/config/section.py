"""What the sections of the configuration have in common: their base, the types of their values, checks of files."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Seconds = Annotated[float, Field(ge=0.0, le=86_400.0)]
PositiveSeconds = Annotated[float, Field(gt=0.0, le=86_400.0)]
Share = Annotated[float, Field(ge=0.0, le=1.0)]
Identifier = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")]

VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]*")


class Section(BaseModel):
    """Base of all sections: frozen, no unknown keys; the docstrings of the keys are their descriptions."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


def existing_file(path: Path | None) -> Path | None:
    """Return a path where it is a file."""
    try:
        if path is None or path.is_file():
            return path
    except OSError as exc:
        raise ValueError(f"{path} cannot be looked at: {exc.strerror}") from None
    raise ValueError(f"{path} is not a file")


def secret_file(path: Path | None) -> Path | None:
    """Return a path where it is a text file whose first line holds something."""
    if path is None:
        return None
    try:
        filled = bool(first_line(path))
    except (OSError, UnicodeDecodeError) as exc:
        raise ValueError(f"{path} cannot be read: {getattr(exc, 'strerror', None) or 'not text'}") from None
    if not filled:
        raise ValueError(f"{path} is empty; the secret is its first line")
    return path


def first_line(path: Path) -> str:
    """Return the first line of a text file; empty where it has none."""
    return (path.read_text(encoding="utf-8-sig").splitlines() or [""])[0]


def secret_variable(name: str) -> str:
    """Return a variable's name where it is set; the message shows it only where it looks like one.

    An empty secret is none: to log in without one, again and again, locks accounts.
    """
    if not name or os.environ.get(name):
        return name
    shown = name if VARIABLE.fullmatch(name) else "(not shown: it may be the password itself)"
    raise ValueError(f"environment variable {shown} is {'empty' if name in os.environ else 'not set'}")
