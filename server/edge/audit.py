"""The audit log: who did what to the experts and the keys, one JSON object a line."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.edge.auth import ADMIN_PATH, key_of, only_looks
from server.workers.registration import Progress

MOST_CHARACTERS = 200
"""Of what an action or an object is called: it comes from the client."""
LOCAL = "local"
"""Stands for a key where a person at this machine acts, or the server itself."""

log = logging.getLogger(__name__)


class AuditLog:
    """Appends to a file that its owner alone may read. It is opened for each line, so that it can
    be moved away at any time."""

    def __init__(self, path: Path, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._path, self._now = path, now

    def write(
        self, key: str | None, action: str, object: str | None, outcome: str, **more: str | int
    ) -> None:
        """One line. `key` is the name of an API key; None: the request had none that counts.

        A disk that takes no more stops nobody: the fault is in the other log.
        """
        line: dict[str, str | int | None] = {"time": self._now().isoformat(), "key": key}
        line |= {"action": action, "object": object, "outcome": outcome, **more}
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with open(self._path, "a", encoding="utf-8", opener=_private) as file:
                file.write(json.dumps(line, ensure_ascii=True) + "\n")
        except OSError as error:
            log.error("the audit log cannot be written: %s (%s by %s)", error, action, key)

    def registration(self, progress: Progress) -> None:
        """How a registration ended; the line of its request may say no more than that it began."""
        if progress.state == "done":
            self.write(LOCAL, "experts.registration", progress.name, "ok")
        elif progress.state == "failed":
            reason = f"failed at: {progress.step}"
            self.write(LOCAL, "experts.registration", progress.name, reason)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


class Auditing:
    """Middleware: a line for every call of the admin API that changes something or is refused."""

    def __init__(self, app: ASGIApp, audit: AuditLog) -> None:
        self._app, self._audit = app, audit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not scope["path"].startswith(ADMIN_PATH):
            await self._app(scope, receive, send)
            return
        status = 0

        async def send_and_note(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, send_and_note)
        finally:
            self._note(scope, status)

    def _note(self, scope: Scope, status: int) -> None:
        if 0 < status < 400 and only_looks(scope["method"], scope["path"]):
            return
        state = scope.get("state", {})
        key, rest = key_of(scope), scope["path"].removeprefix(ADMIN_PATH).strip("/")
        action, name = _what(scope["method"], rest)
        name = name or state.get("object")
        self._audit.write(
            key.name if key else None,
            action[:MOST_CHARACTERS],
            name[:MOST_CHARACTERS] if name else None,
            _outcome(status),
            status=status,
            request=str(state.get("request_id")),
        )


def _what(method: str, rest: str) -> tuple[str, str]:
    """Action and object of a call; `rest` is its path after ADMIN_PATH: an expert's name, or for
    POST something to be done with all of them."""
    if method == "POST":
        return f"experts.{rest or 'add'}", ""
    verb = {"GET": "show" if rest else "list", "DELETE": "remove"}.get(method, method)
    return f"experts.{verb}", rest


def _outcome(status: int) -> str:
    if status == 0:
        return "no answer"
    return "ok" if status < 400 else "refused" if status < 500 else "failed"
