"""Client of one worker: an OpenAI-compatible chat request in, typed events out."""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Protocol

import aiohttp
import msgspec

from server.api.chat.schemas import ChatCompletionRequest
from server.api.completions.logprobs import chat_choice
from server.edge.addresses import Addresses
from server.errors import (
    ContextTooLong,
    TriviumError,
    UpstreamBusy,
    UpstreamError,
    UpstreamFailed,
    UpstreamRejected,
    UpstreamTimeout,
)
from server.relay.chunks import plain_events
from server.relay.connections import KEEP_SECONDS, CannotConnect, Connection, Connections
from server.relay.events import Finished, RawDelta, TextDelta, Usage, WorkerBatch, WorkerEvent
from server.relay.snapshot import Endpoint
from server.relay.sse import EventTooLarge, SSEParser

CHAT = ChatCompletionRequest.path
HEADERS = {"Content-Type": "application/json", "Accept": "text/event-stream"}
MAX_MESSAGE = 1000
MOST_LEVELS = 100
"""Of JSON that is passed on. pydantic writes 255, and an answer puts some around it."""
MAX_ERROR_BYTES = 64 * 1024
MAX_ANSWER_BYTES = 64 * 2**20
"""Of an answer that is no stream."""
ASK_SECONDS = 30.0
"""For such an answer."""
PASSED_STATUSES = frozenset({400, 409, 413, 422, 429})
"""A worker's 4xx that is the client's affair; the others (401, 404, …) are faults of ours."""

_CONTEXT = re.compile(r"context.length|max_model_len|maximum model length|context window", re.I)
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")

leg_headers: ContextVar[Mapping[str, str]] = ContextVar("leg_headers")
"""What else to send with the request of the leg that begins here: the trace context."""

log = logging.getLogger(__name__)


class ChatUpstream(Protocol):
    """What dispatch needs of the workers."""

    def stream_chat(
        self,
        endpoint: Endpoint,
        body: Mapping[str, Any],
        path: str = CHAT,
        timeouts: Timeouts | None = None,
        total: float | None = None,
    ) -> AsyncGenerator[WorkerBatch, None]:
        """Events of one answer with one choice, as they come. Ends normally only after a
        `Finished`.

        `total` is how long it may take in all (s).

        `Finished` comes just before the delta of its own chunk; `Usage` is cumulative. Closing
        the generator closes the connection, so that the worker aborts the request.

        Raises UpstreamError.
        """
        ...


@dataclass(frozen=True)
class Timeouts:
    """Seconds: to connect, to the first bytes of the answer, between two reads then, and for what
    follows the finish reason."""

    connect: float = 5.0
    first_token: float = 300.0
    """A prompt's prefill, which takes minutes where a CPU is slow or many wait."""
    stall: float = 120.0
    """A step of a busy engine, with other requests' prefill in it."""
    tail: float = 2.0
    close: float = 0.05
    """For the end of the body after `[DONE]`, so that the connection can be used again."""


def worker_session(addresses: Addresses | None = None) -> aiohttp.ClientSession:
    """A session for all that is asked of workers besides answers: are they up, which rows have
    they? With `addresses` it connects to permitted ones only."""
    kept = KEEP_SECONDS
    connector = (
        addresses.connector(kept)
        if addresses
        else aiohttp.TCPConnector(limit=0, keepalive_timeout=kept)
    )
    return aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar())


class Upstream:
    """ChatUpstream over connections that the application's lifespan owns."""

    def __init__(self, connections: Connections, timeouts: Timeouts | None = None) -> None:
        self._connections = connections
        self._timeouts = timeouts or Timeouts()
        self._running: set[Connection] = set()

    def cut(self, error: TriviumError) -> None:
        """End every running stream: where it is read, `error` is raised."""
        for answer in self._running:
            answer.fail(error)

    async def stream_chat(
        self,
        endpoint: Endpoint,
        body: Mapping[str, Any],
        path: str = CHAT,
        timeouts: Timeouts | None = None,
        total: float | None = None,
    ) -> AsyncGenerator[WorkerBatch, None]:
        """See ChatUpstream. `body` is sent as it is, so it must ask for a stream."""
        timeouts = timeouts or self._timeouts
        with _upstream_errors(endpoint):
            answer = await self._begun(
                f"{endpoint.base_url}{path}",
                body,
                {**HEADERS, **endpoint.authorization, **leg_headers.get({})},
                timeouts.connect,
                timeouts.first_token,
                total,
            )
            try:
                if answer.status != 200:
                    raise await _refusal(answer)
                async for batch in _batches(answer, timeouts):
                    yield batch
            finally:
                self._leave(answer)

    async def ask(self, endpoint: Endpoint, path: str, body: Mapping[str, Any]) -> bytes | None:
        """What the worker answers to `body` at `path`, which begins beside `/v1`; None where it
        has no such path. Raises UpstreamError."""
        url = f"{endpoint.base_url.removesuffix('/v1')}{path}"
        with _upstream_errors(endpoint):
            answer = await self._begun(
                url,
                body,
                {**HEADERS, "Accept": "application/json", **endpoint.authorization},
                self._timeouts.connect,
                ASK_SECONDS,
                ASK_SECONDS,
            )
            try:
                if answer.status == 404:
                    return None
                if answer.status != 200:
                    raise await _refusal(answer)
                whole = b""
                while chunk := await answer.read():
                    whole += chunk
                    if len(whole) > MAX_ANSWER_BYTES:
                        raise UpstreamFailed("the model's server answered with too much")
                return whole
            finally:
                self._leave(answer)

    async def _begun(
        self,
        url: str,
        body: Mapping[str, Any],
        headers: Mapping[str, str],
        connect: float,
        silence: float,
        total: float | None,
    ) -> Connection:
        """An answer whose status is known; whoever gets it calls `_leave` at last. A kept
        connection that its worker closed at this moment is no failure: another one is taken."""
        sent, clock = _encoded(body), asyncio.get_running_loop().time
        end = None if total is None else clock() + total
        while True:
            answer = await self._connections.post(
                url,
                sent,
                headers,
                connect=connect,
                silence=silence,
                total=None if end is None else max(0.0, end - clock()),
            )
            self._running.add(answer)
            try:
                await answer.head()
            except BaseException as error:
                self._leave(answer)
                if not (isinstance(error, OSError) and answer.stale):
                    raise
            else:
                return answer

    def _leave(self, answer: Connection) -> None:
        self._running.discard(answer)
        answer.release()


async def _batches(answer: Connection, timeouts: Timeouts) -> AsyncGenerator[WorkerBatch, None]:
    stream, begun = _Stream(), False
    while not stream.done:
        read = await _read(answer, timeouts.tail if stream.finished else None)
        if not begun:
            begun = True
            answer.limit_silence(timeouts.stall)
        if batch := stream.take(read):
            yield batch
        if stream.fault is not None:
            raise stream.fault
    await _read(answer, timeouts.close)


async def _read(answer: Connection, patience: float | None) -> bytes:
    """Bytes as they come; b"" at the end, or when `patience` (s) is given and runs out."""
    if patience is None or answer.at_end:
        return await answer.read()
    try:
        async with asyncio.timeout(patience):
            return await answer.read()
    except OSError:  # TimeoutError is one
        return b""


def _encoded(body: Mapping[str, Any]) -> bytes:
    """JSON; lone surrogates as they came, escaped."""
    try:
        return msgspec.json.encode(body)
    except UnicodeEncodeError:
        return json.dumps(body).encode()


class _Stream:
    """The bytes of one answer, parsed up to `[DONE]` or the end. Once the finish reason is known,
    a broken tail does no harm."""

    def __init__(self) -> None:
        self._parser = SSEParser()
        self.finished = False
        self.done = False
        self.fault: UpstreamError | EventTooLarge | None = None
        """What went wrong, after the events of the same read."""

    def take(self, read: bytes) -> list[WorkerEvent]:
        """The events of one read; b"" is the end of the stream."""
        if not read:
            self._end()
            return []
        batch: list[WorkerEvent] = []
        try:
            for data in self._parser.feed(read):
                if (plain := plain_events(data)) is not None:
                    batch += plain
                elif data == b"[DONE]" and self.finished:
                    self.done = True
                    break
                else:
                    self._parse(data, batch)
        except (UpstreamError, EventTooLarge) as error:
            self.fault = error
        return batch

    def _parse(self, data: bytes, batch: list[WorkerEvent]) -> None:
        try:
            for event in parse_event(data):
                batch.append(event)
                self.finished = self.finished or event.kind == "finished"
        except UpstreamError:
            if not self.finished:
                raise

    def _end(self) -> None:
        self.done = True
        if not self.finished:
            self.fault = UpstreamFailed("the model's stream was cut before the end of the answer")


def parse_event(data: bytes) -> Iterator[WorkerEvent]:
    """Events of one `chat.completion.chunk`: usage first, then finish, then delta.

    Raises UpstreamError for an error event, and for data that is no chunk.
    """
    chunk = _load(data)
    if chunk.get("error"):
        raise worker_error(chunk["error"], status=None)
    try:
        if chunk.get("usage"):
            yield _usage(chunk["usage"])
        for choice in (chunk.get("choices") or [])[:1]:
            yield from _choice(chat_choice(choice) if "text" in choice else choice)
    except (AttributeError, KeyError, TypeError, ValueError):
        raise UpstreamFailed("the model's server sent an event that is no chat chunk") from None


def _choice(choice: Mapping[str, Any]) -> Iterator[WorkerEvent]:
    """`Finished` comes before the delta of its own chunk: it says how to take its last token. Of
    the delta come thoughts first, then text, then calls, as models write them."""
    delta, logprobs = choice.get("delta") or {}, choice.get("logprobs") or None
    reason, stop_reason = choice.get("finish_reason"), choice.get("stop_reason")
    text = _checked(delta.get("content"), str)
    if logprobs is not None:
        _checked(logprobs.get("content"), list)
        _check_depth(logprobs)
    _checked(delta.get("tool_calls") or None, list)
    if reason in ("abort", "error"):
        raise UpstreamFailed("the model's server gave up in the middle of the answer")
    if reason is not None:
        yield Finished(str(reason), _checked(stop_reason, int, str))
    fields = {k: v for k, v in delta.items() if k not in ("content", "role") and v}
    _check_depth(fields)
    calls = {k: fields.pop(k) for k in ("tool_calls",) if k in fields}
    told = None if text else logprobs
    if fields:
        yield RawDelta(fields, logprobs=told)
    if text or (logprobs and not fields and not calls):
        yield TextDelta(text or "", logprobs=logprobs)
    if calls:
        yield RawDelta(calls, logprobs=None if fields else told)


def _check_depth(value: Any, left: int = MOST_LEVELS) -> None:
    """Raise ValueError for what is nested so deeply that it could not be written again."""
    if not left:
        raise ValueError("nested too deeply")
    if isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            _check_depth(item, left - 1)


def _usage(usage: Mapping[str, Any]) -> Usage:
    prompt, completion = (
        usage.get("prompt_tokens_details") or {},
        usage.get("completion_tokens_details") or {},
    )
    return Usage(
        int(usage.get("prompt_tokens") or 0),
        int(usage.get("completion_tokens") or 0),
        _checked(prompt.get("cached_tokens"), int),
        _checked(completion.get("reasoning_tokens"), int),
    )


def _checked(value: Any, *kinds: type) -> Any:
    """`value`, which is None or one of `kinds`. Raises TypeError."""
    if value is not None and not isinstance(value, kinds):
        raise TypeError(f"{value!r:.50} where {kinds} belong")
    return value


def _load(data: bytes) -> dict[str, Any]:
    """The JSON object in `data`, with lone surrogates replaced: they cannot be sent on."""
    with suppress(msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        if isinstance(chunk := msgspec.json.decode(data.decode()), dict):
            return chunk
    try:
        chunk = json.loads(data.decode())
        if _SURROGATE.search(data):
            whole = json.dumps(chunk, ensure_ascii=False).encode("utf-8", "replace")
            chunk = json.loads(whole)
    except (ValueError, RecursionError):
        raise UpstreamFailed("the model's server sent an event that is not JSON") from None
    if not isinstance(chunk, dict):
        raise UpstreamFailed("the model's server sent an event that is no chat chunk")
    return chunk


def worker_error(error: Any, status: int | None) -> UpstreamError:
    """The exception for a worker's error object; `status` None: it came inside a stream."""
    fields: Mapping[str, Any] = error if isinstance(error, dict) else {"message": error}
    code, param = fields.get("code"), fields.get("param")
    if status is None:
        status = (
            code if isinstance(code, int) else 400 if code == "context_length_exceeded" else 500
        )
    message = _clean(fields.get("message"))
    if status not in PASSED_STATUSES:
        return UpstreamFailed(f"the model's server failed with status {status}")
    param = param if isinstance(param, str) else None
    if code == "context_length_exceeded" or (status == 400 and _CONTEXT.search(message)):
        return ContextTooLong(message, param=param)
    if status == 429:
        return UpstreamBusy(message, status=status, param=param)
    return UpstreamRejected(message, status=status, param=param)


async def _refusal(answer: Connection) -> UpstreamError:
    """The exception for an answer that is not 200, whatever its body is."""
    raw = b""
    while len(raw) < MAX_ERROR_BYTES and (chunk := await answer.read()):
        raw += chunk
    try:
        body = json.loads(raw)
        error = body.get("error", body) if isinstance(body, dict) else None
    except (ValueError, RecursionError):
        error = None
    log.warning("worker answered %d: %s", answer.status, _clean(raw.decode("utf-8", "replace")))
    return worker_error(error, answer.status)


def _clean(message: object) -> str:
    """One line of a worker's message, fit to be shown to a client."""
    text = message if isinstance(message, str) else "the model's server refused the request"
    text = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return text if len(text) <= MAX_MESSAGE else text[:MAX_MESSAGE] + "…"


@contextmanager
def _upstream_errors(endpoint: Endpoint) -> Iterator[None]:
    """Our exceptions for those of the connection. The address goes to the log, not into the
    message."""
    try:
        yield
    except TimeoutError as error:
        log.warning("worker %s: %r", endpoint.base_url, error)
        raise UpstreamTimeout("the model's server did not answer in time") from error
    except CannotConnect as error:
        log.warning("worker %s: %r", endpoint.base_url, error)
        raise UpstreamFailed("the model's server cannot be reached") from error
    except OSError as error:
        log.warning("worker %s: %r", endpoint.base_url, error)
        raise UpstreamFailed("the connection to the model's server broke") from error
    except EventTooLarge as error:
        log.warning("worker %s: %s", endpoint.base_url, error)
        raise UpstreamFailed("the model's server sent an event that is too large") from error
