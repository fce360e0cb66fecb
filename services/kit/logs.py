"""Structured logs: one JSON object a line, with the ids of the call that it belongs to, and no secrets."""

from __future__ import annotations

import logging
import sys
from collections.abc import MutableMapping
from typing import Any

import structlog

from services.kit.call import current_call

SECRET_WORDS = ("password", "token", "secret", "authorization", "cookie", "signature", "key_pem", "card")
"""A value whose key contains one of these is never written."""


def configure_logs(service: str, *, style: str = "json", level: str = "info") -> None:
    """Set up structlog, and what libraries log through the standard module, for this process.

    Args:
        service: name put on every line.
        style: ``json`` for machines, ``console`` for people.
        level: the least severe level that is written.
    """
    threshold = logging.getLevelNamesMapping()[level.upper()]
    renderer: Any = structlog.dev.ConsoleRenderer() if style == "console" else structlog.processors.JSONRenderer()

    def add_service(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        event["service"] = service
        return event

    shared: list[Any] = [
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        add_service,
        add_call,
        redact,
        structlog.processors.format_exc_info,
    ]
    structlog.configure(
        processors=[*shared, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stdout),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(processor=renderer, foreign_pre_chain=shared))
    logging.basicConfig(handlers=[handler], level=max(threshold, logging.WARNING), force=True)


def add_call(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Name the call that the line belongs to."""
    call = current_call()
    if call is not None:
        event.setdefault("request_id", call.request_id)
        event.setdefault("rpc", call.method)
        if call.trace_id:
            event.setdefault("trace_id", call.trace_id)
    return event


def redact(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Blank the values of keys that sound like secrets."""
    for key in event:
        if any(word in key.lower() for word in SECRET_WORDS):
            event[key] = "[redacted]"
    return event
