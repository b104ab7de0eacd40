"""Logging: one line for each event, to standard error, as text or JSON.

Statements, parameters, rows and passwords are never logged, at any level: callers pass names, counts and addresses.
Should one pass a URL all the same, its password is masked, and tracebacks are written without local variables.
"""

from __future__ import annotations

import logging
import re
import sys
from typing import TYPE_CHECKING, TextIO

import structlog

if TYPE_CHECKING:
    from structlog.typing import EventDict, Processor, WrappedLogger

    from proxy.config.sections import LogSection

_NAME = "rowtap"
_CREDENTIALS = re.compile(r"(?<=://)([^/@:\s]*):[^/@\s]*@")

_COMMON: tuple[Processor, ...] = (
    structlog.stdlib.add_log_level,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
)


def configure(settings: LogSection, stream: TextIO | None = None) -> None:
    """Send everything that is logged, other libraries' warnings included, to ``stream``, by default standard error.

    May be called again at any time: it applies to loggers that ``get`` returned before, too.
    """
    stream = sys.stderr if stream is None else stream
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=_COMMON,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *_renderers(settings, stream)],
        )
    )
    root = logging.getLogger()
    for old in list(root.handlers):
        if getattr(old, "rowtap", False):
            root.removeHandler(old)
    handler.rowtap = True  # type: ignore[attr-defined]  # marks the handler to replace at the next call
    root.addHandler(handler)
    root.setLevel(settings.level.upper())
    structlog.configure(
        processors=[structlog.stdlib.filter_by_level, *_COMMON, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )


def get(**context: object) -> structlog.stdlib.BoundLogger:
    """A logger whose lines all have the fields of ``context``, such as ``connection=17``."""
    logger: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(_NAME, **context)
    return logger


def debug_enabled() -> bool:
    """Whether lines of level debug are written now; asked once where finding out what to write costs something."""
    return logging.getLogger(_NAME).isEnabledFor(logging.DEBUG)


def _renderers(settings: LogSection, stream: TextIO) -> list[Processor]:
    if settings.format == "json":
        return [structlog.processors.format_exc_info, _without_credentials, structlog.processors.JSONRenderer()]
    text = structlog.dev.ConsoleRenderer(
        colors=stream.isatty(),
        pad_event_to=0,
        exception_formatter=structlog.dev.plain_traceback,
    )
    return [_without_credentials, text]


def _without_credentials(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    for name, value in event.items():
        if isinstance(value, str) and "://" in value:
            event[name] = _CREDENTIALS.sub(r"\1:***@", value)
    return event
