"""A fake meta worker over real HTTP: bags of words for hidden states, a real linear gate.

It answers as the vLLM meta worker with Trivium's plugins does: head, captures, `/v1/models`,
and chat completions that obey the head it was given. Streams are scripted: `writer.behave`.
"""

from __future__ import annotations

import base64
import zlib
from typing import Any, Self

import numpy as np
from aiohttp import web
from safetensors.numpy import load

from router.head import Background
from tests.fakes import FakeWorker, says

HIDDEN, FIRST_ID = 256, 1000
TOKENS = ("Yes", ".", " So", " it", " is", ".")


class FakeMeta:
    """`async with FakeMeta() as meta: meta.url`. `alive` False hides the model."""

    def __init__(self, slots: int = 4, model: str = "meta") -> None:
        self.slots, self.model = slots, model
        self.alive = True
        self.refuses_heads = False
        self.pushes = 0
        self.writer = FakeWorker(says(*TOKENS), model)
        self.restart()

    def restart(self) -> None:
        """Forget the head, as a process that was started anew."""
        self.version = ""
        self.rows = np.zeros((3, self.slots, HIDDEN), np.float32)
        self.bias = np.full((3, self.slots), -np.inf, np.float32)
        self.background = Background.none(HIDDEN)
        self.captures: dict[str, list[np.ndarray]] = {}
        self.keeps_captures = True

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=64 * 2**20)  # heads of many experts
        app.router.add_get("/v1/models", self._models)
        app.router.add_get("/trivium/head", self._get_head)
        app.router.add_put("/trivium/head", self._put_head)
        app.router.add_post("/trivium/captures", self._take_captures)
        app.router.add_post("/v1/chat/completions", self._chat)
        app.router.add_post("/v1/completions", self.writer.chat)
        self._runner = web.AppRunner(app)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._runner.cleanup()

    async def _models(self, request: web.Request) -> web.Response:
        models = [{"id": self.model, "max_model_len": 8192}] if self.alive else []
        return web.json_response({"data": models})

    async def _get_head(self, request: web.Request) -> web.Response:
        layout = {"first_id": FIRST_ID, "slots": self.slots, "fingerprint": "fake"}
        return web.json_response({"version": self.version, "hidden_size": HIDDEN, **layout})

    async def _put_head(self, request: web.Request) -> web.Response:
        if self.refuses_heads:
            return web.json_response({"error": "no memory"}, status=500)
        body = await request.json()
        tensors = load(base64.b64decode(body["safetensors"]))
        self.rows, self.bias, self.version = tensors["rows"], tensors["bias"], body["version"]
        self.background = Background(tensors["background"], tensors["background_bias"])
        self.pushes += 1
        return await self._get_head(request)

    async def _take_captures(self, request: web.Request) -> web.Response:
        taken = []
        for key in (await request.json())["keys"]:
            states = self.captures.pop(key, [])
            data = np.stack(states).astype("<f4").tobytes() if states else b""
            taken.append(
                {"positions": list(range(len(states))), "data": base64.b64encode(data).decode()}
            )
        return web.json_response(taken)

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        if body.get("stream"):
            return await self.writer.chat(request)
        extra = body.get("vllm_xargs", {})
        text = " ".join(m["content"] for m in body["messages"])
        state, stop_reason, tokens = embed(text), None, TOKENS[: body["max_tokens"]]
        if (key := extra.get("trivium_capture")) and self.keeps_captures:
            self.captures[key] = [embed(text + "".join(tokens[:i])) for i in range(len(tokens))]
        if allowed := [i - FIRST_ID for i in extra.get("trivium_experts", [])]:
            scores = self.rows[0, allowed] @ state + self.bias[0, allowed]
            scores -= self.background.log_odds(state[None])
            if scores.max() > 0:
                stop_reason = FIRST_ID + allowed[int(scores.argmax())]
        content = [{"token": token, "logprob": -0.1} for token in tokens]
        message = {"role": "assistant", "content": "".join(tokens)}
        choice: dict[str, Any] = {"index": 0, "message": message, "finish_reason": "stop"}
        choice |= {"logprobs": {"content": content}, "stop_reason": stop_reason}
        usage = {"prompt_tokens": 1, "completion_tokens": len(tokens)}
        return web.json_response({"choices": [choice], "usage": usage})


def embed(text: str) -> np.ndarray:
    """`[HIDDEN]`: a bag of hashed words, with some noise that depends on the text."""
    words = [word.strip(".,?!").lower() for word in text.split()]
    state = np.random.default_rng(zlib.crc32(text.encode())).normal(size=HIDDEN) * 0.05
    for word in words:
        state += np.random.default_rng(zlib.crc32(word.encode())).normal(size=HIDDEN)
    found: np.ndarray = (state / max(len(words), 1) ** 0.5).astype(np.float32)
    return found
