"""Log lines: each says which request it belongs to, and none shows an API key."""

from __future__ import annotations

import logging
import re
from contextvars import ContextVar

from server.keys import PREFIX

LINE = "%(levelname)s %(name)s: %(message)s"

request_id: ContextVar[str | None] = ContextVar("request_id", default=None)
"""The id of the request that is being answered here; set at the HTTP edge."""

_SECRET = re.compile(re.escape(PREFIX) + r"[\w-]+")


class LineFormatter(logging.Formatter):
    """Lines with the request's id at their end. Whatever looks like an API key is blotted out,
    tracebacks and other libraries' messages included."""

    def __init__(self) -> None:
        super().__init__(LINE)

    def formatMessage(self, record: logging.LogRecord) -> str:
        line, current = super().formatMessage(record), request_id.get()
        return f"{line} [{current}]" if current else line

    def format(self, record: logging.LogRecord) -> str:
        return _SECRET.sub(f"{PREFIX}…", super().format(record))


def log_to_stderr() -> None:
    """Warnings and worse of all libraries to standard error."""
    handler = logging.StreamHandler()
    handler.setFormatter(LineFormatter())
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
