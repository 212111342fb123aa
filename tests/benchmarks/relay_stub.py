"""A worker that costs next to nothing: vLLM's bytes, made beforehand, over raw asyncio.

It is the meta worker (`/trivium/head`) and the expert of `trivium bench relay` in one process. What
it writes depends on a word in the question:

    (none)           all chunks, at once: as fast as the socket takes them
    single-writes    all chunks, each in a write of its own
    steady           all chunks, one every 2 ms
    slow             all chunks, one every 100 ms
    handoff-start    meta: the expert token; expert: all chunks
    handoff-middle   meta: half of the chunks and the expert token; expert: the other half
    alone            meta: no expert token, whatever else is said
"""

from __future__ import annotations

import argparse
import asyncio
import json
from dataclasses import dataclass
from typing import Any

import uvloop

from tests.benchmarks.relay_text import CHUNKS, TEXTS

EXPERT_MODEL = "expert"
FIRST_ID, SLOTS, HIDDEN = 49152, 4, 8
"""What the meta worker says of its vocabulary and its hidden states."""
PROMPT_TOKENS = 30
PAUSES = {"single-writes": 0.0, "steady": 0.002, "slow": 0.1}
"""Seconds between chunks that are written apart."""
HEADERS = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
    b"transfer-encoding: chunked\r\n\r\n"
)


@dataclass(frozen=True)
class Script:
    """One answer: HTTP chunks, the last of which is the end of the body."""

    parts: tuple[bytes, ...]
    whole: bytes

    @classmethod
    def of(cls, texts: tuple[str, ...], model: str, stop_reason: int | None, usage: bool) -> Script:
        """vLLM 0.32's events: role, texts, finish, usage, `[DONE]`; `usage` in each if asked."""
        bodies = [_chunk(model, {"role": "assistant", "content": ""}, 0, usage)]
        bodies += [_chunk(model, {"content": t}, i, usage) for i, t in enumerate(texts, start=1)]
        finish = {"finish_reason": "stop", "stop_reason": stop_reason}
        bodies.append(_chunk(model, {"content": ""}, len(texts) + 1, usage, **finish))
        last = _envelope(model, [], len(texts) + 1, usage=True)
        events = [*bodies, last, "[DONE]"]
        parts = [_http_chunk(f"data: {event}\n\n".encode()) for event in events]
        # What follows the last text comes at once, as from vLLM.
        parts[-3:] = [b"".join([*parts[-3:], b"0\r\n\r\n"])]
        parts[0] = HEADERS + parts[0]
        return cls(tuple(parts), b"".join(parts))


def _chunk(model: str, delta: dict[str, str], tokens: int, usage: bool, **choice: Any) -> str:
    filled = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": None, **choice}
    return _envelope(model, [filled | {"token_ids": None}], tokens, usage)


def _envelope(model: str, choices: list[Any], tokens: int, usage: bool) -> str:
    body: dict[str, Any] = {
        "id": "chatcmpl-8f3c0a5be2d94d0f9a6b7c1d2e3f4a5b",
        "object": "chat.completion.chunk",
        "created": 1_760_000_000,
        "model": model,
        "choices": choices,
    }
    if usage:
        total = PROMPT_TOKENS + tokens
        counts = {"prompt_tokens": PROMPT_TOKENS, "total_tokens": total}
        body["usage"] = counts | {"completion_tokens": tokens}
    return json.dumps(body, ensure_ascii=False, separators=(",", ":"))


def _http_chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


class Scripts:
    """Every answer that the stub gives, made once."""

    def __init__(self) -> None:
        self.head = ""
        """The version of the head that was given."""
        half = CHUNKS // 2
        self._made = {
            (texts, model, stop, usage): Script.of(texts, model, stop, usage)
            for texts in (TEXTS, TEXTS[:half], TEXTS[half:], ())
            for model in ("meta", EXPERT_MODEL)
            for stop in (None, FIRST_ID)
            for usage in (False, True)
        }

    def choose(self, body: dict[str, Any], question: str) -> Script:
        usage = bool((body.get("stream_options") or {}).get("continuous_usage_stats"))
        routed = "alone" not in question and "trivium_experts" in body.get("vllm_xargs", {})
        half = CHUNKS // 2
        if body["model"] == EXPERT_MODEL:
            texts = TEXTS[half:] if "handoff-middle" in question else TEXTS
            return self._made[texts, EXPERT_MODEL, None, usage]
        if routed and "handoff-start" in question:
            return self._made[(), "meta", FIRST_ID, usage]
        if routed and "handoff-middle" in question:
            return self._made[TEXTS[:half], "meta", FIRST_ID, usage]
        return self._made[TEXTS, "meta", None, usage]


class Stub(asyncio.Protocol):
    """One connection. Requests come one after the other, each in any number of reads."""

    def __init__(self, scripts: Scripts) -> None:
        self._scripts = scripts
        self._received = b""
        self._task: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._transport = transport

    def connection_lost(self, error: Exception | None) -> None:
        if self._task is not None:
            self._task.cancel()

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, blank, rest = self._received.partition(b"\r\n\r\n")
        if not blank:
            return
        length = _content_length(head)
        if len(rest) < length:
            return
        self._received = rest[length:]
        self._answer(head, rest[:length])

    def _answer(self, head: bytes, body: bytes) -> None:
        if head.startswith(b"POST /v1/chat/completions "):
            self._chat(json.loads(body))
        elif b" /trivium/head " in head:
            if head.startswith(b"PUT"):
                self._scripts.head = json.loads(body)["version"]
            layout = {"first_id": FIRST_ID, "slots": SLOTS, "hidden_size": HIDDEN}
            self._json({"version": self._scripts.head, "fingerprint": "stub", **layout})
        else:
            self._json({"data": [{"id": n, "max_model_len": 8192} for n in ("meta", EXPERT_MODEL)]})

    def _chat(self, body: dict[str, Any]) -> None:
        question = next(m["content"] for m in body["messages"] if m["role"] == "user")
        script = self._scripts.choose(body, str(question))
        pause = next((seconds for word, seconds in PAUSES.items() if word in question), None)
        if pause is None:
            self._transport.write(script.whole)
        else:
            self._task = asyncio.create_task(self._write_apart(script, pause))

    async def _write_apart(self, script: Script, pause: float) -> None:
        """The role and the first text at once, as vLLM does; then part by part."""
        self._transport.write(b"".join(script.parts[:2]))
        for part in script.parts[2:]:
            await asyncio.sleep(pause)
            self._transport.write(part)

    def _json(self, content: Any) -> None:
        body = json.dumps(content).encode()
        head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
        self._transport.write(head % len(body) + body)


def _content_length(head: bytes) -> int:
    _, found, value = head.lower().partition(b"\r\ncontent-length:")
    return int(value.partition(b"\r\n")[0]) if found else 0


async def serve(port: int) -> None:
    scripts, loop = Scripts(), asyncio.get_running_loop()
    server = await loop.create_server(lambda: Stub(scripts), "127.0.0.1", port, backlog=2048)
    await server.serve_forever()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    uvloop.run(serve(parser.parse_args().port))


if __name__ == "__main__":
    main()
