"""Scripted OpenAI-compatible workers that answer over real HTTP and behave like vLLM.

A worker's behaviour is a function from the request body to a `Reply`. What vLLM does itself is
done here too: stop token ids and strings, `max_tokens`, usage in every chunk, the logits gate.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Literal, Self

from aiohttp import web

from server.relay.snapshot import Endpoint

PROMPT_TOKENS = 10
EXPERT_LOGPROB = -0.25


@dataclass(frozen=True)
class ExpertToken:
    """A place in an answer where the model's raw top-1 is an expert token."""

    id: int


Token = str | ExpertToken | dict[str, Any]
"""A text token, an expert token, or a raw delta (e.g. of a tool call) that counts as a token."""

Failure = Literal["cut", "close", "error", "garbage", "abort", "stall"]


@dataclass(frozen=True)
class Reply:
    """What a worker writes. With `failure`, it breaks after `fail_after` tokens in that way."""

    tokens: Sequence[Token] = ()
    finish_reason: str = "stop"
    status: int = 200
    error: Any = None
    """Body of an answer that is not 200, and its headers."""
    headers: dict[str, str] = field(default_factory=dict)
    failure: Failure | None = None
    fail_after: int = 0
    delay: float = 0.0
    """Seconds before each token."""
    linger: float = 0.0
    """Seconds between the finish reason and what follows it."""
    prompt_tokens: int = PROMPT_TOKENS
    usage: bool = True
    role: bool = True
    """Whether the role is told before the first token, and not with it."""


Behaviour = Callable[[dict[str, Any]], Reply]


def says(*tokens: Token, **how: Any) -> Behaviour:
    """The same answer to every request."""
    return lambda body: Reply(tokens, **how)


def refuses(status: int, message: str, **error: Any) -> Behaviour:
    """vLLM's error body."""
    body = {"message": message, "type": "BadRequestError", "param": None, "code": status, **error}
    return lambda _: Reply(status=status, error={"error": body})


def in_turn(*behaviours: Behaviour) -> Behaviour:
    """One behaviour for each request, the last one for all that follow."""
    left = list(behaviours)
    return lambda body: (left.pop(0) if len(left) > 1 else left[0])(body)


def continues(*tokens: Token) -> Behaviour:
    """A model whose answer is always the same text: a resumed one goes on where it was cut."""

    def behave(body: dict[str, Any]) -> Reply:
        skip = len(_written(body))
        rest: list[Token] = []
        for token in tokens:
            size = len(token) if isinstance(token, str) else 0
            if skip >= size and skip > 0:
                skip -= size
            else:
                rest.append(token[skip:] if isinstance(token, str) else token)
                skip = 0
        return Reply(rest)

    return behave


def _written(body: dict[str, Any]) -> str:
    """The part of the answer that the request holds already; raw prompts end in a colon."""
    if "prompt" in body:
        return str(body["prompt"]).partition(":")[2]
    return body["messages"][-1]["content"] if body.get("continue_final_message") else ""


@dataclass
class Received:
    """A request that a worker got, and how it ended."""

    body: dict[str, Any]
    headers: dict[str, str]
    peer: Any = None
    """The address at the other end of its connection."""
    aborted: bool = False
    """The orchestrator closed the connection before the answer was complete."""
    over: asyncio.Event = field(default_factory=asyncio.Event)


class FakeWorker:
    """A worker on a free loopback port: `async with FakeWorker(says("Hi")) as worker: …`."""

    def __init__(self, behave: Behaviour, model: str = "fake") -> None:
        self.behave = behave
        self.model = model
        self.counts = True
        """Whether it has vLLM's `/tokenize`."""
        self.key: str | None = None
        """The API key that it wants."""
        self.received: list[Received] = []
        self._runner: web.AppRunner | None = None
        self._port = 0

    @property
    def endpoint(self) -> Endpoint:
        return Endpoint(f"http://127.0.0.1:{self._port}/v1", self.model)

    @property
    def endpoints(self) -> tuple[Endpoint, ...]:
        return (self.endpoint,)

    @property
    def bodies(self) -> list[dict[str, Any]]:
        return [received.body for received in self.received]

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Listen, at the port of before if there was one."""
        self._runner = web.AppRunner(
            self.application(), handler_cancellation=True, shutdown_timeout=0.1
        )
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self._port)
        await site.start()
        self._port = self._runner.addresses[0][1]

    def application(self) -> web.Application:
        """The routes."""
        app = web.Application(middlewares=[self._authorized])
        app.router.add_post("/v1/chat/completions", self.chat)
        app.router.add_post("/v1/completions", self.chat)
        app.router.add_get("/v1/models", self._models)
        if self.counts:
            app.router.add_post("/tokenize", self._tokenize)
        return app

    async def stop(self) -> None:
        """Close the port: from now on connections are refused."""
        if self._runner:
            await self._runner.cleanup()
            self._runner = None

    async def kill(self) -> None:
        """Stop as by `kill -9`: every connection is reset."""
        assert self._runner is not None
        assert self._runner.server is not None
        for connection in self._runner.server.connections:
            if connection.transport is not None:
                connection.transport.abort()
        await self.stop()

    @web.middleware
    async def _authorized(self, request: web.Request, handler: Any) -> web.StreamResponse:
        if self.key and request.headers.get("Authorization") != f"Bearer {self.key}":
            return web.json_response({"error": "Unauthorized"}, status=401)
        answer: web.StreamResponse = await handler(request)
        return answer

    async def _models(self, request: web.Request) -> web.Response:
        return web.json_response({"data": [{"id": self.model, "max_model_len": 2048}]})

    async def _tokenize(self, request: web.Request) -> web.Response:
        body = await request.json()
        self.received.append(Received(body, dict(request.headers)))
        words = [word for message in body["messages"] for word in str(message["content"]).split()]
        return web.json_response({"count": len(words), "tokens": []})

    async def chat(self, request: web.Request) -> web.StreamResponse:
        peer = request.transport.get_extra_info("peername") if request.transport else None
        received = Received(await request.json(), dict(request.headers), peer)
        self.received.append(received)
        try:
            return await self._answer(request, received.body)
        except (asyncio.CancelledError, ConnectionResetError):
            received.aborted = True
            raise
        finally:
            received.over.set()

    async def _answer(self, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        reply = self.behave(body)
        if reply.status != 200:
            return web.json_response(reply.error, status=reply.status, headers=reply.headers)
        assert body["stream"] is True
        assert body.get("n", 1) == 1
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        writer = _TextWriter(body, reply) if "prompt" in body else _Writer(body, reply)
        for chunk in writer.opening():
            await response.write(chunk)
        for step in range(len(reply.tokens) + 1):
            if reply.failure and step == reply.fail_after:
                return await self._break(request, response, writer, reply.failure)
            await asyncio.sleep(reply.delay)
            for chunk in writer.step(step):
                await response.write(chunk)
            if writer.finished:
                break
        await asyncio.sleep(reply.linger)
        for chunk in writer.closing():
            await response.write(chunk)
        await asyncio.sleep(0.002)  # the end of the body is a packet of its own
        await response.write_eof()
        return response

    async def _break(
        self, request: web.Request, response: web.StreamResponse, writer: _Writer, how: Failure
    ) -> web.StreamResponse:
        if how == "stall":
            await asyncio.sleep(3600)
        if how == "garbage":
            await response.write(b'data: {"choices": [{"delta": {"cont\n\n')
        if how == "error":
            error = {"message": "engine died at 0xdead", "type": "InternalServerError", "code": 500}
            await response.write(_data({"error": error}) + b"data: [DONE]\n\n")
        if how == "abort":
            await response.write(writer.chunk({"content": ""}, finish_reason="abort"))
        if how == "cut":
            with suppress(AttributeError):
                request.transport.abort()  # type: ignore[union-attr]
            return response
        await response.write_eof()
        return response


class _Writer:
    """vLLM's streaming behaviour for one request, one token a step."""

    def __init__(self, body: dict[str, Any], reply: Reply) -> None:
        self._body = body
        self._reply = reply
        self._stop = [body["stop"]] if isinstance(body.get("stop"), str) else body.get("stop") or []
        self._text = ""
        self._sent = 0
        self._tokens = 0
        self.finished = False

    def opening(self) -> list[bytes]:
        first = [b": hello\r\n\r\n", self.chunk({"role": "assistant", "content": ""})]
        return first if self._reply.role else []

    def closing(self) -> list[bytes]:
        chunks = [b"data: [DONE]\n\n"]
        if self._reply.usage and self._body.get("stream_options", {}).get("include_usage"):
            chunks.insert(0, _data({"choices": [], "usage": self._usage()}))
        return chunks

    def step(self, index: int) -> list[bytes]:
        if index == len(self._reply.tokens):
            self._tokens += 1  # the end-of-sequence token
            return [self._finish(self._reply.finish_reason, None, "<eos>")]
        token = self._reply.tokens[index]
        if isinstance(token, ExpertToken):
            if not self._allowed(token.id):
                return []
            self._tokens += 1
            return [self._finish("stop", token.id, f"<|{token.id}|>")]
        self._tokens += 1
        if isinstance(token, dict):
            chunks = [self.chunk(token)]
        else:
            self._text += token
            if (stop := self._matched()) is not None:
                return [self._finish("stop", stop, token)]
            chunks = [self.chunk({"content": self._free()}, self._logprobs(token, -0.5))]
        if self._tokens == self._body.get("max_tokens"):
            chunks.append(self._finish("length", None, None))
        return chunks

    def _allowed(self, token_id: int) -> bool:
        """The logits gate: is this expert token allowed, here?"""
        xargs = self._body.get("vllm_xargs", {})
        here = self._tokens == 0 or xargs.get("trivium_position") == "anywhere"
        allowed = token_id in xargs.get("trivium_experts", ())
        assert not allowed or token_id in self._body["stop_token_ids"]
        return allowed and here

    def _matched(self) -> str | None:
        for stop in self._stop:
            if (at := self._text.find(stop)) >= 0:
                keep = len(stop) if self._body.get("include_stop_str_in_output") else 0
                self._text = self._text[: at + keep]
                return str(stop)
        return None

    def _free(self, *, all: bool = False) -> str:
        """Text that cannot belong to a stop string any more."""
        held = 0 if all else max((len(stop) - 1 for stop in self._stop), default=0)
        end = max(self._sent, len(self._text) - held)
        free, self._sent = self._text[self._sent : end], end
        return free

    def _finish(self, reason: str, stop_reason: int | str | None, token: str | None) -> bytes:
        self.finished = True
        logprob = EXPERT_LOGPROB if isinstance(stop_reason, int) else -0.5
        logprobs = self._logprobs(token, logprob) if token is not None else None
        delta = {"content": self._free(all=True)}
        return self.chunk(delta, logprobs, finish_reason=reason, stop_reason=stop_reason)

    def _logprobs(self, token: str | None, logprob: float | None) -> dict[str, Any] | None:
        if not self._body.get("logprobs"):
            return None
        return {"content": [{"token": token, "logprob": logprob, "top_logprobs": []}]}

    def chunk(
        self, delta: dict[str, Any], logprobs: dict[str, Any] | None = None, **choice: Any
    ) -> bytes:
        body: dict[str, Any] = {
            "id": "chatcmpl-worker",
            "object": "chat.completion.chunk",
            "created": 1,
            "model": self._body["model"],
            "choices": [{"index": 0, "delta": delta, "logprobs": logprobs, **choice}],
        }
        if self._reply.usage and self._body.get("stream_options", {}).get("continuous_usage_stats"):
            body["usage"] = self._usage()
        return _data(body)

    def _usage(self) -> dict[str, int]:
        prompt = self._reply.prompt_tokens
        return {
            "prompt_tokens": prompt,
            "completion_tokens": self._tokens,
            "total_tokens": prompt + self._tokens,
        }


class _TextWriter(_Writer):
    """The same for `/v1/completions`; an echoed prompt is one token."""

    def opening(self) -> list[bytes]:
        if not self._body.get("echo"):
            return []
        prompt = self._body["prompt"]
        text = prompt if isinstance(prompt, str) else "".join(map(chr, prompt))
        return [self.chunk({"content": text}, self._logprobs(text, None))]

    def chunk(
        self, delta: dict[str, Any], logprobs: dict[str, Any] | None = None, **choice: Any
    ) -> bytes:
        text = delta.get("content") or ""
        choice = {"index": 0, "text": text, "logprobs": logprobs, **choice}
        body: dict[str, Any] = {"id": "cmpl-worker", "object": "text_completion", "created": 1}
        body |= {"model": self._body["model"], "choices": [choice]}
        if self._body.get("stream_options", {}).get("continuous_usage_stats"):
            body["usage"] = self._usage()
        return _data(body)

    def _logprobs(self, token: str | None, logprob: float | None) -> dict[str, Any] | None:
        if self._body.get("logprobs") is None:
            return None
        top = None if logprob is None else {token: logprob}
        return {
            "tokens": [token],
            "token_logprobs": [logprob],
            "top_logprobs": [top],
            "text_offset": [0],
        }


def _data(body: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(body, ensure_ascii=False).encode() + b"\n\n"
