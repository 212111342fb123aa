"""Log lines, as text or JSON: each says which request it belongs to, and none shows an API key."""

from __future__ import annotations

import json
import logging
import re
import sys
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, Literal
from urllib.parse import quote

import msgspec
from opentelemetry import trace

from server.edge.keys import PREFIX

LINE = "%(levelname)s %(name)s: %(message)s"
ACCESS_LOGGER = "server.seeing.access"
"""One line a request, at INFO; all other loggers tell of warnings and worse."""

request_id: ContextVar[str | None] = ContextVar("request_id", default=None)
"""The id of the request that is being answered here; set at the HTTP edge."""

_SECRET = re.compile(re.escape(PREFIX) + r"[\w-]+")

MOST_CHARACTERS = 200
_HARMLESS = re.compile(rf"[\w/.~-]{{0,{MOST_CHARACTERS}}}", re.ASCII)
"""Text that percent-encoding leaves as it is."""

LogFormat = Literal["text", "json"]


class LineFormatter(logging.Formatter):
    """Lines with the request's id at their end. Whatever looks like an API key is blotted out,
    tracebacks and other libraries' messages included."""

    def __init__(self) -> None:
        super().__init__(LINE)

    def formatMessage(self, record: logging.LogRecord) -> str:
        line, current = super().formatMessage(record), request_id.get()
        return f"{line} [{current}]" if current else line

    def format(self, record: logging.LogRecord) -> str:
        return _blotted(super().format(record))


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, logger, message, the ids of the request and of its
    trace, and the fields that the record has as `extra={"fields": …}`. Keys are blotted out."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if current := request_id.get():
            line["request_id"] = current
        span = trace.get_current_span().get_span_context()
        if span.is_valid:
            line["trace_id"] = trace.format_trace_id(span.trace_id)
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        line |= getattr(record, "fields", {})
        return _blotted(_json(line))


def _json(line: dict[str, Any]) -> str:
    try:
        return msgspec.json.encode(line, enc_hook=str).decode()
    except UnicodeEncodeError:  # lone surrogates, which only escapes can show
        return json.dumps(line, default=str)


def harmless(text: str) -> str:
    """What a client wrote, fit to be part of a line: percent-encoded, and not too long."""
    if _HARMLESS.fullmatch(text):
        return text
    return quote(text, errors="replace")[:MOST_CHARACTERS]


def _blotted(line: str) -> str:
    return _SECRET.sub(f"{PREFIX}…", line)


def log_to_stderr(form: LogFormat | None = None) -> None:
    """Warnings and worse of all libraries, and the access log, to standard error. `form` None:
    text on a terminal, JSON elsewhere."""
    text = form == "text" or (form is None and sys.stderr.isatty())
    handler = logging.StreamHandler()
    handler.setFormatter(LineFormatter() if text else JsonFormatter())
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False  # not shown
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    logging.getLogger(ACCESS_LOGGER).setLevel(logging.INFO)
