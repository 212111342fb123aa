"""Conversations to token ids and labels, as a server will see them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from jinja2 import TemplateError
from torch import Tensor

from experts.training.conversations import Conversation, DataError, Example, Turn

IGNORED = -100
LENGTH_STEP = 8
"""Rows are padded to a multiple of this, which keeps the number of shapes small."""
END_OF_TURN = "<|end_of_turn|>"
"""Added to a tokenizer that has no chat template, as LIMA does (arXiv 2305.11206, section 3)."""
PLAIN_TEMPLATE = (
    "{%- if bos_token -%}{{ bos_token }}{%- endif -%}"
    "{%- for message in messages -%}"
    "{{ message['role'].capitalize() + ':\\n' + message['content'] + '" + END_OF_TURN + "' }}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ 'Assistant:\\n' }}{%- endif -%}"
)
_PROBE = "probe-of-the-template"


@dataclass(frozen=True)
class Row:
    """One conversation: `ids` and `labels`, int32 `[length]`; labels are -100 where nothing is
    learned, else the id at the same place."""

    ids: npt.NDArray[np.int32]
    labels: npt.NDArray[np.int32]


def ensure_end_of_turn(tokenizer: Any) -> str:
    """The token that ends an assistant's turn in the tokenizer's chat template.

    A tokenizer without a template gets `PLAIN_TEMPLATE` and its `END_OF_TURN` token, which then
    is its EOS too. Raises DataError if the template ends turns with no special token.
    """
    if tokenizer.chat_template is None:
        tokenizer.chat_template = PLAIN_TEMPLATE
        tokenizer.add_special_tokens({"eos_token": END_OF_TURN})
        return END_OF_TURN
    text = _render(tokenizer, (Turn("user", "Hello"), Turn("assistant", _PROBE)))
    rest = text.rpartition(_PROBE)[2].lstrip()
    special = {token.content for token in tokenizer.added_tokens_decoder.values() if token.special}
    for token in sorted({*special, *tokenizer.all_special_tokens}, key=len, reverse=True):
        if rest.startswith(token):
            return str(token)
    raise DataError(
        "the tokenizer's chat template writes no special token after an assistant's turn, so the"
        " expert could not learn to stop; take the template out to get a plain one with"
        f" {END_OF_TURN}"
    )


def encode_conversation(conversation: Conversation, tokenizer: Any, end: str) -> Row:
    """Every assistant turn and the end-of-turn token `end` after it are learned.

    A prompt's tokens are those that it has by itself, as at a server. Raises DataError with the
    conversation's source.
    """
    turns, source = conversation.turns, conversation.source
    if any(end in turn.content for turn in turns):
        raise DataError(f"{source}: a turn contains {end}, the mark that ends a turn")
    try:
        text = _render(tokenizer, turns)
        prompts = [
            _render(tokenizer, turns[:i], prompt=True)
            for i, turn in enumerate(turns)
            if turn.role == "assistant"
        ]
    except TemplateError as error:
        raise DataError(f"{source}: the tokenizer's chat template refuses it: {error}") from None
    parts: list[tuple[str, bool]] = []
    position = 0
    for prompt in prompts:
        stop = text.find(end, len(prompt))
        if not text.startswith(prompt) or stop < 0:
            raise DataError(
                f"{source}: the tokenizer's chat template changes earlier turns; split the"
                " conversation so that each line ends with its only assistant turn"
            )
        stop += len(end)
        parts += [(text[position : len(prompt)], False), (text[len(prompt) : stop], True)]
        position = stop
    return _row(parts, tokenizer)


def encode_example(example: Example, tokenizer: Any) -> Row:
    """The target and the tokenizer's EOS are learned; the prompt with the answer's prefix has the
    tokens that it has by itself, as at a server."""
    prompt = _render(tokenizer, example.turns, prompt=True) + example.prefix
    return _row([(prompt, False), (example.target + tokenizer.eos_token, True)], tokenizer)


def padded_length(row: Row) -> int:
    """The row's tokens, rounded up to a multiple of `LENGTH_STEP`."""
    return -(-len(row.ids) // LENGTH_STEP) * LENGTH_STEP


def collate(rows: Sequence[Row], pad: int) -> dict[str, Tensor]:
    """`input_ids` and `labels`, int64 `[rows, length]`, and `attention_mask`, bool likewise:
    right-padded to the longest row, rounded up to a multiple of `LENGTH_STEP`."""
    length = max(padded_length(row) for row in rows)
    ids = torch.full((len(rows), length), pad)
    labels = torch.full((len(rows), length), IGNORED)
    mask = torch.zeros((len(rows), length), dtype=torch.bool)
    for number, row in enumerate(rows):
        ids[number, : len(row.ids)] = torch.from_numpy(row.ids)
        labels[number, : len(row.ids)] = torch.from_numpy(row.labels)
        mask[number, : len(row.ids)] = True
    return {"input_ids": ids, "labels": labels, "attention_mask": mask}


def _row(parts: Sequence[tuple[str, bool]], tokenizer: Any) -> Row:
    """What each part adds to the tokens of the text before it; where it changes the last of these
    instead (they merge), its own tokens. By itself a part can have others: tokenizers of Llama 2's
    kind put a space before every text."""
    ids: list[int] = []
    labels: list[int] = []
    text = ""
    before: list[int] = []
    for part, learned in parts:
        text += part
        whole = tokenizer(text, add_special_tokens=False)["input_ids"]
        joins = whole[: len(before)] == before
        own = whole if joins else tokenizer(part, add_special_tokens=False)["input_ids"]
        tokens, before = own[len(before) if joins else 0 :], whole
        ids += tokens
        labels += tokens if learned else [IGNORED] * len(tokens)
    return Row(np.array(ids, dtype=np.int32), np.array(labels, dtype=np.int32))


def _render(tokenizer: Any, turns: Sequence[Turn], prompt: bool = False) -> str:
    messages = [{"role": turn.role, "content": turn.content} for turn in turns]
    text: str = tokenizer.apply_chat_template(
        messages, tokenize=False, add_generation_prompt=prompt
    )
    return text
