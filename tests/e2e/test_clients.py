"""The other forms of the API with two real models behind them, through their official clients."""

from __future__ import annotations

import json
from typing import Any

import pytest
from anthropic import Anthropic
from openai import OpenAI

from experts.starter.arithmetic.answers import final_number
from tests.e2e.conftest import Server
from tests.e2e.test_answers import OPPOSITE, SUM

pytestmark = pytest.mark.e2e

PROMPT = "The capital of France is"


def test_a_raw_prompt_is_gone_on_from(client: OpenAI) -> None:
    ask: Any = {"model": "trivium", "prompt": PROMPT, "max_tokens": 6, "temperature": 0}
    whole = client.completions.create(**ask)
    text = whole.choices[0].text
    assert "Paris" in text
    assert whole.choices[0].finish_reason == "length"
    assert whole.usage
    assert whole.usage.completion_tokens == 6
    streamed = client.completions.create(**ask, stream=True)
    assert "".join(chunk.choices[0].text for chunk in streamed) == text
    echoed = client.completions.create(**ask, echo=True, logprobs=1).choices[0]
    assert echoed.text == PROMPT + text
    logprobs: Any = echoed.logprobs
    assert "".join(logprobs.tokens) == echoed.text
    assert logprobs.token_logprobs[0] is None
    assert [echoed.text[o] for o in logprobs.text_offset] == [t[0] for t in logprobs.tokens]


def test_several_prompts_and_token_ids(client: OpenAI) -> None:
    ask: Any = {"model": "trivium/meta", "max_tokens": 3, "temperature": 0}
    both = client.completions.create(prompt=[PROMPT, "One, two, three,"], n=2, **ask)
    assert [choice.index for choice in both.choices] == [0, 1, 2, 3]
    assert both.choices[0].text == both.choices[1].text != both.choices[2].text
    ids = client.completions.create(prompt=[[504, 3575], [504, 3575, 282]], **ask)
    assert ids.usage
    assert ids.usage.prompt_tokens == 5


def test_responses(client: OpenAI) -> None:
    ask: Any = {"model": "trivium", "input": SUM, "temperature": 0, "max_output_tokens": 120}
    whole = client.responses.create(**ask)
    assert final_number(whole.output_text) == "8798"
    assert whole.status == "completed"
    with client.responses.stream(**ask) as events:
        assert events.get_final_response().output_text == whole.output_text
    short = client.responses.create(**ask | {"max_output_tokens": 3})
    assert (short.status, short.usage and short.usage.output_tokens) == ("incomplete", 3)


def test_a_response_in_the_form_that_is_asked_for(client: OpenAI) -> None:
    schema = {
        "type": "object",
        "properties": {"word": {"type": "string", "enum": ["cold", "Rome"]}},
        "required": ["word"],
        "additionalProperties": False,
    }
    format: Any = {"format": {"type": "json_schema", "name": "word", "schema": schema}}
    answer = client.responses.create(
        model="trivium", input=OPPOSITE, text=format, temperature=0, max_output_tokens=60
    )
    assert json.loads(answer.output_text) == {"word": "cold"}


def test_messages(server: Server) -> None:
    client = Anthropic(base_url=server.url, api_key="none", max_retries=0, timeout=300)
    ask: Any = {
        "model": "trivium",
        "max_tokens": 120,
        "messages": [{"role": "user", "content": SUM}],
        "extra_body": {"temperature": 0},
    }
    whole: Any = client.messages.create(**ask)
    assert final_number(whole.content[0].text) == "8798"
    assert whole.stop_reason == "end_turn"
    with client.messages.stream(**ask) as stream:
        assert "".join(stream.text_stream) == whole.content[0].text
    ask["messages"] = [*ask["messages"], {"role": "assistant", "content": "4821 + 3977:"}]
    assert client.messages.create(**ask).usage.output_tokens > 0
