"""What a HTTP request has had from the models so far, for the limits of its key and for the log."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from server.relay.events import Usage
from server.seeing.observe import Happening, LegStarted, RequestEnded, RequestStarted

BYTES_PER_TOKEN = 4
"""For an estimate of a prompt that no worker has counted."""


class Account:
    """The sum of all that the dispatcher did for one HTTP request."""

    def __init__(self) -> None:
        self.model: str | None = None
        """As the client named it; None: the dispatcher was not asked."""
        self.legs: list[str] = []
        """Who was asked, in order: "meta" or an expert's name."""
        self.usage = Usage()
        self.first_token: float | None = None
        """Seconds from the dispatcher's first step to the first token of the answer."""
        self.error: str | None = None
        """The name of the exception that ended the answer, which may have begun well."""
        self._prompt_due = False
        """Whether a prompt was read that no worker has counted."""

    def notice(self, happening: Happening) -> None:
        match happening:
            case RequestStarted():
                self.model = happening.model
            case LegStarted():
                self.legs.append(happening.model)
            case RequestEnded():
                self._close(happening)

    def _close(self, ended: RequestEnded) -> None:
        self.usage += ended.usage
        if ended.error is not None:
            self.error = type(ended.error).__name__
        first = ended.first
        if first is not None and first.first_ms is not None:
            self.first_token = self.first_token or first.first_ms / 1000
        if ended.usage.prompt_tokens == 0 and (ended.outcome != "failed" or first):
            self._prompt_due = True

    def tokens(self, body_bytes: int) -> int:
        """What the request costs: what the workers counted, and an estimate from the size of its
        body where none of them counted the prompt; none for an answer that failed before its
        first token."""
        estimate = body_bytes // BYTES_PER_TOKEN if self._prompt_due else 0
        return estimate + self.usage.prompt_tokens + self.usage.completion_tokens


_open: ContextVar[tuple[Account, ...]] = ContextVar("accounts", default=())


@contextmanager
def account() -> Iterator[Account]:
    """An account of everything that the dispatcher does within, in tasks begun there too."""
    opened = Account()
    token = _open.set((*_open.get(), opened))
    try:
        yield opened
    finally:
        _open.reset(token)


def keep_accounts(happening: Happening) -> None:
    """The observer that writes into the open accounts."""
    for opened in _open.get():
        opened.notice(happening)
