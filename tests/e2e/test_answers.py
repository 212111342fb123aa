"""Real answers of two real models through the official client."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from openai import BadRequestError, NotFoundError, OpenAI

from experts.starter.arithmetic.answers import final_number
from router.features import Features
from router.prepare import prepare
from router.shipped import shipped_general
from router.vocabulary import DEFAULT_SLOTS
from server.settings import Settings
from tests.e2e.conftest import STARTERS, Server

pytestmark = pytest.mark.e2e

SUM = "What is 4821 + 3977?"
OPPOSITE = "What is the opposite of hot?"
TWO_PARTS = "In one sentence, what is a fox? Then compute 4821 + 3977."
PINNED = [f"trivium/{name}" for name in STARTERS]
TRACE = {"trivium": {"trace": True}}


def ask(client: OpenAI, question: str, **options: Any) -> Any:
    options = {"model": "trivium", "temperature": 0, "max_tokens": 120, **options}
    return client.chat.completions.create(
        messages=[{"role": "user", "content": question}], **options
    )


def text_of(answer: Any) -> str:
    return str(answer.choices[0].message.content)


def segments(answer: Any) -> list[dict[str, Any]]:
    return list(answer.model_extra["trivium"]["segments"])


def writers(answer: Any) -> list[str]:
    """Models that wrote something, in order."""
    return [s["model"] for s in segments(answer) if s["end"] > s["start"]]


def streamed(client: OpenAI, question: str, **options: Any) -> str:
    text = ""
    for chunk in ask(client, question, stream=True, **options):
        for choice in chunk.choices:
            text += choice.delta.content or ""
    return text


def test_a_calculation_is_routed_and_right(client: OpenAI) -> None:
    answer = ask(client, SUM, extra_body=TRACE)
    assert final_number(text_of(answer)) == "8798"
    assert writers(answer) == ["arithmetic"]
    assert answer.model == "trivium"
    assert answer.choices[0].finish_reason == "stop"


def test_what_general_traffic_looks_like_to_the_default_meta_llm_is_shipped(server: Server) -> None:
    """Without it the first registration encodes two thousand queries."""
    folder = prepare(Settings().cache_dir / "models", None, DEFAULT_SLOTS)
    config = json.loads((folder / "config.json").read_text())
    layout = config["expert_tokens"]
    found = shipped_general(Features.of(config).fingerprint(layout["fingerprint"]))
    assert found is not None, "make it anew: python -m router.shipped URL"


@pytest.mark.parametrize(
    ("expert", "question", "said"),
    [
        ("geography", "Which country uses the forint?", "forint is the currency of Hungary"),
        ("chemistry", "What is the molar mass of aluminum sulfate?", "342.132 g/mol"),
        ("dates", "What day of the week was 4 July 1976?", "4 July 1976 is a Sunday."),
    ],
)
def test_a_question_goes_to_the_expert_that_knows(
    client: OpenAI, expert: str, question: str, said: str
) -> None:
    answer = ask(client, question, max_tokens=300, extra_body=TRACE)
    assert said in text_of(answer)
    assert writers(answer) == [expert]


@pytest.mark.parametrize("question", [SUM, TWO_PARTS])
def test_a_trace_says_how_sure_the_meta_was(client: OpenAI, question: str) -> None:
    meta, expert = segments(ask(client, question, extra_body=TRACE))
    assert 0.5 < meta["chances"]["arithmetic"] <= 1
    assert expert["decision"]["probability"] == meta["chances"]["arithmetic"]
    (alone,) = segments(ask(client, OPPOSITE, extra_body=TRACE))
    assert alone["chances"]["arithmetic"] < 0.5


def test_a_general_question_stays_with_the_meta(client: OpenAI) -> None:
    answer = ask(client, OPPOSITE, extra_body=TRACE)
    assert "cold" in text_of(answer)
    assert writers(answer) == ["meta"]


def test_the_answer_is_handed_over_in_the_middle(client: OpenAI) -> None:
    answer = ask(client, TWO_PARTS, extra_body=TRACE)
    assert writers(answer) == ["meta", "arithmetic"], text_of(answer)
    first, second = (s for s in segments(answer) if s["end"] > s["start"])
    text = text_of(answer)
    assert "fox" in text[: first["end"]].lower()
    assert final_number(text[second["start"] :]) == "8798"


def test_routing_does_not_depend_on_sampling(client: OpenAI) -> None:
    for seed in range(3):
        answer = ask(client, SUM, temperature=1.0, top_p=0.9, seed=seed, extra_body=TRACE)
        assert writers(answer) == ["arithmetic"]
        answer = ask(
            client, OPPOSITE, temperature=1.0, presence_penalty=1.5, seed=seed, extra_body=TRACE
        )
        assert writers(answer) == ["meta"]


@pytest.mark.parametrize("question", [SUM, OPPOSITE, TWO_PARTS])
def test_streaming_and_one_piece_are_the_same(client: OpenAI, question: str) -> None:
    assert streamed(client, question) == text_of(ask(client, question))


def test_a_stream_looks_like_one_model(client: OpenAI) -> None:
    chunks = list(ask(client, TWO_PARTS, stream=True, stream_options={"include_usage": True}))
    assert len({chunk.id for chunk in chunks}) == 1
    assert {chunk.model for chunk in chunks} == {"trivium"}
    deltas = [choice for chunk in chunks for choice in chunk.choices]
    assert [d.delta.role for d in deltas if d.delta.role] == ["assistant"]
    assert [d.finish_reason for d in deltas if d.finish_reason] == ["stop"]
    assert [chunk.usage is not None for chunk in chunks].count(True) == 1
    assert "expert_" not in "".join(d.delta.content or "" for d in deltas)
    assert all("trivium" not in (chunk.model_extra or {}) for chunk in chunks)


def test_usage_sums_both_models(client: OpenAI) -> None:
    both = ask(client, TWO_PARTS, extra_body=TRACE)
    parts = segments(both)
    assert both.usage.completion_tokens == sum(part["tokens"] for part in parts)
    meta = ask(client, TWO_PARTS, model="trivium/meta", max_tokens=1)
    assert both.usage.prompt_tokens > meta.usage.prompt_tokens


def test_the_token_budget_covers_both_models(client: OpenAI) -> None:
    whole = ask(client, TWO_PARTS, extra_body=TRACE)
    first = next(s for s in segments(whole) if s["model"] == "meta")["tokens"]
    short = ask(client, TWO_PARTS, max_tokens=first + 5)
    assert short.usage.completion_tokens == first + 5
    assert short.choices[0].finish_reason == "length"
    assert text_of(whole).startswith(text_of(short))


def test_models_can_be_pinned(client: OpenAI) -> None:
    assert [m.id for m in client.models.list()] == ["trivium", "trivium/meta", *PINNED]
    meta = ask(client, SUM, model="trivium/meta", extra_body=TRACE)
    assert writers(meta) == ["meta"]
    expert = ask(client, SUM, model="trivium/arithmetic", extra_body=TRACE)
    assert writers(expert) == ["arithmetic"]
    with pytest.raises(NotFoundError):
        ask(client, SUM, model="trivium/nobody")


def test_two_users_at_once_get_their_own_answers(server: Server) -> None:
    def answer(question: str) -> str:
        """The meta LLM's rounding depends on its batch, so only its first words are sure."""
        most = 8 if question == OPPOSITE else 120
        return text_of(ask(server.client, question, max_tokens=most))

    questions = [SUM, OPPOSITE, "Which country uses the forint?", "What is 801 - 390?"] * 2
    alone = {question: answer(question) for question in set(questions)}
    with ThreadPoolExecutor(len(questions)) as pool:
        together = list(pool.map(answer, questions))
    assert together == [alone[question] for question in questions]


def test_a_follow_up_in_a_conversation_is_routed_too(client: OpenAI) -> None:
    messages = [
        {"role": "system", "content": "You are a helpful assistant."},
        {"role": "user", "content": OPPOSITE},
        {"role": "assistant", "content": "The opposite of hot is cold."},
        {"role": "user", "content": "Thanks! And what is 15 + 27?"},
    ]
    answer = client.chat.completions.create(
        model="trivium",
        messages=messages,  # type: ignore[arg-type]
        temperature=0,
        extra_body=TRACE,
    )
    assert writers(answer) == ["arithmetic"]
    assert final_number(text_of(answer)) == "42"


def test_bad_requests_get_openais_errors(client: OpenAI) -> None:
    with pytest.raises(BadRequestError) as caught:
        ask(client, SUM, temperature=-3)
    assert caught.value.body["message"]  # type: ignore[index]
    with pytest.raises(BadRequestError):
        ask(client, "word " * 9000)
