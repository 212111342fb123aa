"""The starter tokenizer: any text, single digits, the chat template and continuation."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from experts.starter.tokenizer import VOCAB_SIZE, build_tokenizer, save_tokenizer

TALK = [
    {"role": "system", "content": "You are helpful."},
    {"role": "user", "content": "What is a fox? Then 2+2"},
    {"role": "assistant", "content": "A fox is a mammal.\n\n"},
]


@given(st.text())
@settings(deadline=None, max_examples=150)
def test_any_text_round_trips(text: str) -> None:
    tokenizer = build_tokenizer()
    if "<|" in text:
        return
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert tokenizer.decode(ids, clean_up_tokenization_spaces=False) == text
    assert all(8 <= number < VOCAB_SIZE for number in ids)


@given(st.integers(0, 10**12))
@settings(deadline=None, max_examples=50)
def test_every_digit_is_one_token(number: int) -> None:
    tokens = build_tokenizer().tokenize(f"It is{number}, {number}.")
    digits = [token for token in tokens if any(c.isdigit() for c in token)]
    assert digits == list(str(number) * 2)


def test_signs_are_single_tokens() -> None:
    assert build_tokenizer().tokenize(" ×") == ["ĠÃĹ"]
    assert len(build_tokenizer().tokenize(" ÷ −")) == 2


def test_chat_template(tmp_path: Path) -> None:
    save_tokenizer(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    assert len(tokenizer) == VOCAB_SIZE
    assert tokenizer.eos_token == "<|end|>"
    asked = tokenizer.apply_chat_template(TALK[:2], tokenize=False, add_generation_prompt=True)
    assert asked == "<|user|>What is a fox? Then 2+2<|end|><|assistant|>"
    unfinished = tokenizer.apply_chat_template(TALK, tokenize=False, continue_final_message=True)
    assert unfinished == asked + "A fox is a mammal.\n\n"
    finished = tokenizer.apply_chat_template(TALK, tokenize=False)
    assert finished == unfinished + "<|end|>"
    assert (tmp_path / "tokenizer.json").stat().st_size < 40_000
