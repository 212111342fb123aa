"""Client of a meta worker's own endpoints (`router/vllm_plugin/endpoints.py`). No torch."""

from __future__ import annotations

import base64
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import aiohttp
import numpy as np

from router.head import ROW_FORMAT, Floats, Head
from router.vocabulary import ExpertVocabulary

ADMIN_SECONDS = 30.0
"""For what takes a worker no time, but may wait for a long step."""
ANSWER_SECONDS = 300.0


class MetaError(RuntimeError):
    """The meta worker did not do what was asked; the message says what it answered."""


@dataclass(frozen=True)
class MetaInfo:
    """What the meta worker says of itself."""

    head_version: str
    vocabulary: ExpertVocabulary
    hidden_size: int
    fingerprint: str

    @property
    def rows(self) -> str:
        """What stored rows belong to: this meta LLM, and the form in which rows are stored."""
        return f"{self.fingerprint}/{ROW_FORMAT}"


@dataclass(frozen=True, eq=False)
class Written:
    """What the meta wrote for one prompt, and the hidden state before each token.

    Attributes:
        tokens: the text of each token written.
        states: `[len(tokens), hidden]` float32; row i is the state that led to token i.
    """

    tokens: tuple[str, ...]
    states: Floats


class MetaClient:
    """One meta worker, by its base URL (without `/v1`)."""

    def __init__(self, session: aiohttp.ClientSession, base_url: str, model: str) -> None:
        self._session, self._base, self._model = session, base_url, model

    async def info(self) -> MetaInfo:
        """Head version and layout. Raises MetaError."""
        return _info(await self._call("GET", "/trivium/head", seconds=ADMIN_SECONDS))

    async def set_head(self, head: Head) -> MetaInfo:
        """Replace the head in every rank of the worker. Raises MetaError."""
        body = {
            "version": head.version,
            "safetensors": base64.b64encode(head.safetensors).decode(),
        }
        return _info(await self._call("PUT", "/trivium/head", body, ADMIN_SECONDS))

    async def write(self, messages: Sequence[dict[str, str]], tokens: int) -> Written:
        """Let the meta alone write up to `tokens` tokens (greedy). Raises MetaError.

        If the last message is the assistant's, its text is continued.
        """
        key = uuid.uuid4().hex
        continued = messages[-1]["role"] == "assistant"
        answer = await self._call(
            "POST",
            "/v1/chat/completions",
            {
                "model": self._model,
                "messages": list(messages),
                "max_tokens": tokens,
                "temperature": 0,
                "logprobs": True,
                "vllm_xargs": {"trivium_capture": key},
                "add_generation_prompt": not continued,
                "continue_final_message": continued,
            },
        )
        _, states = await self._captured(key)
        content = answer["choices"][0]["logprobs"]["content"]
        if len(states) < max(1, len(content)):
            raise MetaError(
                "the meta worker lost the states of a prompt that it encoded: it was started anew,"
                " or several engines are behind its URL; name each in TRIVIUM_META_URLS"
            )
        return Written(tuple(item["token"] for item in content), states[: len(content)])

    async def decisions(self, key: str) -> dict[int, Floats]:
        """Log-odds `[2, slots]` (-inf: not allowed) that decided a request whose `trivium_explain`
        was `key`, by how many tokens had been written: at 0, where the two are the same, and where
        it was handed over, which took both to be above 0: pending and turn. Raises MetaError."""
        positions, rows = await self._captured(key)
        return {position: row.reshape(2, -1) for position, row in zip(positions, rows, strict=True)}

    async def _captured(self, key: str) -> tuple[list[int], Floats]:
        captured = (await self._call("POST", "/trivium/captures", {"keys": [key]}))[0]
        positions = captured["positions"]
        rows = np.frombuffer(base64.b64decode(captured["data"]), dtype="<f4")
        return positions, rows.reshape(len(positions), -1 if positions else 0)

    async def routed_to(
        self, messages: Sequence[dict[str, str]], token_ids: Sequence[int]
    ) -> int | None:
        """The expert token the meta emits at once for `messages`, if any. Raises MetaError."""
        return (await self.handed_over(messages, token_ids, 1))[0]

    async def handed_over(
        self, messages: Sequence[dict[str, str]], token_ids: Sequence[int], tokens: int
    ) -> tuple[int | None, int]:
        """The expert token the meta emits within `tokens` tokens for `messages`, if any, and how
        many tokens it writes before. Raises MetaError."""
        continued = messages[-1]["role"] == "assistant"
        answer = await self._call(
            "POST",
            "/v1/chat/completions",
            {
                "model": self._model,
                "messages": list(messages),
                "max_tokens": tokens,
                "temperature": 0,
                "stop_token_ids": list(token_ids),
                "vllm_xargs": {"trivium_experts": list(token_ids)},
                "add_generation_prompt": not continued,
                "continue_final_message": continued,
            },
        )
        reason, written = answer["choices"][0].get("stop_reason"), answer["usage"]
        if isinstance(reason, int) and reason in token_ids:
            return reason, written["completion_tokens"] - 1
        return None, written["completion_tokens"]

    async def _call(
        self, method: str, path: str, body: Any = None, seconds: float = ANSWER_SECONDS
    ) -> Any:
        url, timeout = self._base + path, aiohttp.ClientTimeout(total=seconds)
        try:
            async with self._session.request(method, url, json=body, timeout=timeout) as response:
                if response.status != 200:
                    text = (await response.text())[:300]
                    raise MetaError(f"the meta worker answered {response.status}: {text}")
                return await response.json()
        except (aiohttp.ClientError, TimeoutError) as error:
            reason = str(error) or type(error).__name__
            raise MetaError(f"the meta worker does not answer at {url}: {reason}") from None


def _info(state: dict[str, Any]) -> MetaInfo:
    return MetaInfo(
        head_version=state["version"],
        vocabulary=ExpertVocabulary(state["first_id"], state["slots"]),
        hidden_size=state["hidden_size"],
        fingerprint=state["fingerprint"],
    )
