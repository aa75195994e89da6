"""Log lines out: structlog, redacted by value, JSON away from a terminal. Logged at changes of state, on stderr."""

from __future__ import annotations

import logging
import sys
from collections.abc import MutableMapping
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
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )


def _redacting(redactor: Redactor) -> structlog.typing.Processor:
    def process(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        return {key: redactor.clean(value) if isinstance(value, str) else value for key, value in event.items()}

    return process
