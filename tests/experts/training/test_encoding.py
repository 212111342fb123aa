"""What is learned: assistant turns and the token that ends them, nothing else."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from experts.starter.tokenizer import build_tokenizer
from experts.training.conversations import Conversation, DataError, Example, Turn
from experts.training.encoding import (
    END_OF_TURN,
    IGNORED,
    LENGTH_STEP,
    Row,
    collate,
    encode_conversation,
    encode_example,
    ensure_end_of_turn,
)

TALK = (
    Turn("system", "be kind"),
    Turn("user", "1+1?"),
    Turn("assistant", "2"),
    Turn("user", "and 3?"),
    Turn("assistant", "that is 5"),
)
CHATML = (
    "{%- for m in messages -%}{{ '<|reserved_0|>' + m['role'] + '\n' + m['content']"
    " + '<|reserved_1|>\n' }}{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ '<|reserved_0|>assistant\n' }}{%- endif -%}"
)


def learned(row: Row, tokenizer: Any) -> list[str]:
    """The learned stretches as text."""
    stretches: list[list[int]] = []
    before = IGNORED
    for label in row.labels.tolist():
        if label != IGNORED:
            if before == IGNORED:
                stretches.append([])
            stretches[-1].append(label)
        before = label
    return [tokenizer.decode(stretch) for stretch in stretches]


def with_template(template: str | None) -> Any:
    tokenizer = deepcopy(build_tokenizer())
    tokenizer.chat_template = template
    return tokenizer


def test_every_assistant_turn_is_learned_with_its_end() -> None:
    tokenizer = build_tokenizer()
    end = ensure_end_of_turn(tokenizer)
    row = encode_conversation(Conversation(TALK, "here"), tokenizer, end)
    assert end == "<|end|>"
    assert learned(row, tokenizer) == ["2<|end|>", "that is 5<|end|>"]
    assert (row.ids[row.labels != IGNORED] == row.labels[row.labels != IGNORED]).all()
    messages = [{"role": t.role, "content": t.content} for t in TALK]
    assert tokenizer.decode(row.ids) == tokenizer.apply_chat_template(messages, tokenize=False)


def test_white_space_after_the_end_is_not_learned() -> None:
    tokenizer = with_template(CHATML)
    end = ensure_end_of_turn(tokenizer)
    row = encode_conversation(Conversation(TALK, "here"), tokenizer, end)
    assert end == "<|reserved_1|>"
    assert learned(row, tokenizer) == [f"2{end}", f"that is 5{end}"]
    assert tokenizer.decode(row.ids).endswith(f"that is 5{end}")


def test_a_tokenizer_without_template_gets_one_and_a_token() -> None:
    tokenizer = with_template(None)
    size = len(tokenizer)
    assert ensure_end_of_turn(tokenizer) == END_OF_TURN
    assert len(tokenizer) == size + 1
    assert tokenizer.eos_token == END_OF_TURN
    row = encode_conversation(Conversation(TALK, "here"), tokenizer, END_OF_TURN)
    assert learned(row, tokenizer) == [f"2{END_OF_TURN}", f"that is 5{END_OF_TURN}"]
    assert tokenizer.decode(row.ids).startswith(f"System:\nbe kind{END_OF_TURN}User:\n1+1?")


@pytest.mark.parametrize(
    ("template", "message"),
    [
        (CHATML.replace("'<|reserved_1|>\n'", "'\n'"), "no special token"),
        ("{{ messages | length }}" + CHATML, "changes earlier turns"),
        (
            CHATML.replace("{{", "{%- if m['role'] == 'system' -%}{{ raise_exception('no') }}"
                           "{%- endif -%}{{", 1),
            "refuses it: no",
        ),
    ],
)  # fmt: skip
def test_templates_that_cannot_be_used(template: str, message: str) -> None:
    tokenizer = with_template(template)
    with pytest.raises(DataError, match=message):
        encode_conversation(Conversation(TALK, "here"), tokenizer, ensure_end_of_turn(tokenizer))


def test_text_that_ends_a_turn_is_refused() -> None:
    talk = Conversation((Turn("user", "x<|end|>"), Turn("assistant", "y")), "f line 3")
    with pytest.raises(DataError, match=r"f line 3: a turn contains <\|end\|>"):
        encode_conversation(talk, build_tokenizer(), "<|end|>")


def test_of_an_unfinished_answer_only_the_rest_is_learned() -> None:
    tokenizer = build_tokenizer()
    row = encode_example(Example((Turn("user", "What is 2+2?"),), "It is", " 4"), tokenizer)
    assert learned(row, tokenizer) == [" 4<|end|>"]
    start = (row.labels == IGNORED).sum()
    prompt = "<|user|>What is 2+2?<|end|><|assistant|>It is"
    assert tokenizer.decode(row.ids[:start]) == prompt


def test_rows_are_padded_on_the_right() -> None:
    tokenizer = build_tokenizer()
    rows = [encode_example(Example((Turn("user", "7 " * n),), "", "x"), tokenizer) for n in (3, 30)]
    batch = collate(rows, 0)
    assert batch["input_ids"].shape[1] % LENGTH_STEP == 0
    assert batch["attention_mask"].sum(1).tolist() == [len(row.ids) for row in rows]
    assert (batch["labels"] != IGNORED).sum(1).tolist() == [2, 2]
    short = len(rows[0].ids)
    assert batch["input_ids"][0, :short].tolist() == rows[0].ids.tolist()
    assert (batch["labels"][0, short:] == IGNORED).all()


@pytest.mark.parametrize("kind", ["Prepend", "Metaspace"])
def test_no_space_is_learned_that_a_tokenizer_puts_before_every_text(kind: str) -> None:
    """Those of Llama 2 and Mistral: tokenized by itself, "Hi" would be " Hi"."""
    letters = ["<s>", "</s>", "<u>", "▁", *"UuserAasitn:\nHi yo?", "Hi", "▁Hi"]
    vocabulary = {piece: i for i, piece in enumerate(dict.fromkeys(letters))}
    inner = Tokenizer(models.BPE(vocabulary, [("H", "i"), ("▁", "Hi")], unk_token="<u>"))
    if kind == "Prepend":
        inner.normalizer = normalizers.Sequence(
            [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
        )
    else:
        inner.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner, bos_token="<s>", eos_token="</s>", unk_token="<u>"
    )
    tokenizer.chat_template = (
        "{%- for m in messages -%}{{ m.role + ':\n' + m.content + eos_token }}{%- endfor -%}"
        "{%- if add_generation_prompt -%}{{ 'assistant:\n' }}{%- endif -%}"
    )
    turns = (Turn("user", "yo?"), Turn("assistant", "Hi"))
    row = encode_conversation(Conversation(turns * 2, "here"), tokenizer, "</s>")
    hi = [vocabulary["Hi"], vocabulary["</s>"]]
    assert [label for label in row.labels.tolist() if label != IGNORED] == hi * 2
    row = encode_example(Example(turns[:1], "", "Hi"), tokenizer)
    assert [label for label in row.labels.tolist() if label != IGNORED] == hi
