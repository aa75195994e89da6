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


def readable_file(path: Path | None) -> Path | None:
    """Return a path where it is a text file that can be read."""
    if path is None:
        return None
    try:
        path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        raise ValueError(f"{path} cannot be read: {getattr(exc, 'strerror', None) or 'not text'}") from None
    return path


def first_line(path: Path) -> str:
    """Return the first line of a text file; empty where it has none."""
    return (path.read_text(encoding="utf-8").splitlines() or [""])[0]


def checked_variable(name: str) -> str:
    """Return a variable's name where it is set; the message shows it only where it looks like one."""
    if not name or name in os.environ:
        return name
    shown = name if VARIABLE.fullmatch(name) else "(not shown: it may be the password itself)"
    raise ValueError(f"environment variable {shown} is not set")
