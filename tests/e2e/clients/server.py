"""The API on a free port, its workers fake: prints its URL, and ends when its input ends.

python -m tests.e2e.clients.server
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from typing import Any

from tests.fakes import ExpertToken, Reply, Token
from tests.server.conftest import ARITHMETIC, serving_world


def meta(body: dict[str, Any]) -> Reply:
    """Answers any question with a sum, which the expert completes; calls a tool if it has one."""
    if "prompt" in body:
        return Reply(["once ", "upon"])
    last = body["messages"][-1]
    if last["role"] == "tool":
        return Reply(["The tool ", "says ", str(last["content"]), "."])
    if body.get("max_tokens") == 1 and "trivium_experts" in body.get("vllm_xargs", {}):
        return Reply(["The"])  # the decision before tools and grammars: no expert
    if body.get("tools"):
        function = body["tools"][0]["function"]
        return Reply(_call(function["name"], '{"a": ', '40, "b": 2}'), "tool_calls")
    if body.get("response_format", {}).get("type") in ("json_schema", "json_object"):
        return Reply(['{"total"', ": 42}"])
    return Reply(["The sum ", "is ", ExpertToken(ARITHMETIC), "unknown"])


def expert(body: dict[str, Any]) -> Reply:
    return Reply(["42", "."])


def _call(name: str, *arguments: str) -> list[Token]:
    first = {"index": 0, "id": "call_1", "type": "function"}
    return [
        {"tool_calls": [first | {"function": {"name": name, "arguments": ""}}]},
        *({"tool_calls": [{"index": 0, "function": {"arguments": a}}]} for a in arguments),
    ]


async def main(until: Callable[[], Any]) -> None:
    async with serving_world() as world:
        world.meta.behave, world.arithmetic.behave = meta, expert
        print(world.url, flush=True)
        await asyncio.to_thread(until)


if __name__ == "__main__":
    asyncio.run(main(sys.stdin.read))
