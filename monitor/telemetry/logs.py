"""Log lines out: structlog, redacted by value, JSON away from a terminal. Logged at changes of state, on stderr."""

from __future__ import annotations

import logging
import sys
from collections.abc import MutableMapping
from contextlib import suppress
from typing import Any

import structlog

from monitor.telemetry.redaction import Redactor


def configure_logs(*, level: str, style: str, redactor: Redactor) -> None:
    """Set up structlog for the whole process, once, at start.

    Args:
        level: least severity written: debug, info, warning or error.
        style: `json`, `text`, or `auto` for text on a terminal and JSON elsewhere.
        redactor: cleans every value of every line.
    """
    as_text = style == "text" or (style == "auto" and sys.stderr.isatty())
    renderer = structlog.dev.ConsoleRenderer() if as_text else structlog.processors.JSONRenderer()
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            _redacting(redactor),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=lambda *_: _StandardError(),
        cache_logger_on_first_use=False,
    )
    root = logging.getLogger()
    root.handlers = [_Forwarded(logging.WARNING)]


class Said:
    """What was said last of each subject, so that what stays as it is is not said again. Any thread may use it."""

    def __init__(self) -> None:
        self._states: dict[str, str] = {}

    def changes(self, subject: str, state: str) -> bool:
        """Note how a subject is, empty when all is well; whether that differs from what was noted before."""
        before, self._states[subject] = self._states.get(subject, ""), state
        return before != state


class _StandardError:
    """Writes a line to standard error; where nobody reads it any more, or the disk is full, the line is lost.

    The program must outlive its log.
    """

    def msg(self, message: str) -> None:
        with suppress(OSError, ValueError):
            sys.stderr.write(f"{message}\n")  # in one piece: threads write at once
            sys.stderr.flush()

    debug = info = warning = error = critical = exception = msg


class _Forwarded(logging.Handler):
    """Sends what libraries log by the standard library the same way: one format, redacted."""

    def emit(self, record: logging.LogRecord) -> None:
        log = structlog.get_logger(record.name)
        log.warning("library_warning", library=record.name, message=record.getMessage(), exc_info=record.exc_info)


def _redacting(redactor: Redactor) -> structlog.typing.Processor:
    def process(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        return {key: _cleaned(value, redactor) for key, value in event.items()}

    return process


def _cleaned(value: Any, redactor: Redactor) -> Any:
    """Return a value without secrets, whatever it holds."""
    if isinstance(value, str):
        return redactor.clean(value)
    if isinstance(value, dict):
        return {key: _cleaned(inner, redactor) for key, inner in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_cleaned(inner, redactor) for inner in value]
    return value
