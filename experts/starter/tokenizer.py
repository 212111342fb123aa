"""The starter experts' shared tokenizer: byte-level BPE of 768 tokens, every digit one token.

Vocabulary: 8 special tokens, the 256 bytes, and 504 merges. The merges are the first of
SmolLM2's tokenizer (Apache-2.0, Hugging Face), without those of white space and rules, and ten
of our own for the signs of arithmetic. `python -m experts.starter.tokenizer GGUF` rewrites
`merges.txt` from SmolLM2's GGUF file.
"""

from __future__ import annotations

import json
import re
import sys
from functools import cache
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

PAD, END, USER, ASSISTANT = "<|pad|>", "<|end|>", "<|user|>", "<|assistant|>"
SPECIAL_TOKENS = (PAD, END, USER, ASSISTANT, *(f"<|reserved_{i}|>" for i in range(4)))
"""In the order of their ids, from 0."""
VOCAB_SIZE = 768
MAX_LENGTH = 2048
MERGES_FILE = Path(__file__).parent / "merges.txt"
SIGN_MERGES = (
    "Ã Ĺ", "Ġ ÃĹ", "Ã ·", "Ġ Ã·", "â Ī", "âĪ Ĵ", "Ġ âĪĴ", "Ġ +", "Ġ *", "Ġ /",
)  # fmt: skip
"""× ÷ − and their forms with a space before, in GPT-2's byte alphabet."""
CHAT_TEMPLATE = (
    "{%- for message in messages -%}"
    "{%- if message['role'] == 'user' -%}{{ '<|user|>' + message['content'] + '<|end|>' }}"
    "{%- elif message['role'] == 'assistant' -%}"
    "{{ '<|assistant|>' + message['content'] + '<|end|>' }}"
    "{%- endif -%}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ '<|assistant|>' }}{%- endif -%}"
)
"""Turns of other roles (system, tool) are left out: the starter experts follow no instructions."""


@cache
def build_tokenizer() -> Any:
    """The tokenizer as a `PreTrainedTokenizerFast` with chat template and `<|end|>` as EOS."""
    merges = [*MERGES_FILE.read_text(encoding="utf-8").splitlines(), *SIGN_MERGES]
    pairs = [(left, right) for left, _, right in (line.partition(" ") for line in merges)]
    tokens = [*SPECIAL_TOKENS, *byte_alphabet(), *(left + right for left, right in pairs)]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    if len(vocabulary) != VOCAB_SIZE:
        raise ValueError(f"{MERGES_FILE} gives {len(vocabulary)} tokens instead of {VOCAB_SIZE}")
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=pairs))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(SPECIAL_TOKENS))
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=END,
        chat_template=CHAT_TEMPLATE,
        model_max_length=MAX_LENGTH,
        clean_up_tokenization_spaces=False,
    )


def byte_alphabet() -> list[str]:
    """GPT-2's printable character for each byte 0…255, as byte-level BPE uses them."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = iter(range(256, 512))
    return [chr(b) if b in printable else chr(next(others)) for b in range(256)]


def choose_merges(merges: list[str], count: int) -> list[str]:
    """The first `count` of SmolLM2's merges that starter experts have a use for.

    Left out: runs of white space, Markdown rules, and what is built from them.
    """
    known = set(byte_alphabet())
    chosen: list[str] = []
    for merge in merges:
        left, _, right = merge.partition(" ")
        token = left + right
        if {left, right} <= known and not re.search(r"^[ĠĊ]+$|--|\*\*|##", token):
            known.add(token)
            chosen.append(merge)
        if len(chosen) == count:
            return chosen
    raise ValueError(f"only {len(chosen)} of {count} merges found")


def _read_gguf_merges(file: str) -> list[str]:
    from gguf import GGUFReader

    field = GGUFReader(file).fields["tokenizer.ggml.merges"]
    return [bytes(field.parts[i]).decode() for i in field.data]


def save_tokenizer(folder: Path) -> None:
    """Write tokenizer.json (without white space), its configuration and the chat template."""
    build_tokenizer().save_pretrained(folder)
    file = folder / "tokenizer.json"
    content = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps(content, ensure_ascii=False, separators=(",", ":")), "utf-8")


def main() -> None:
    """Rewrite `merges.txt` from the GGUF file named on the command line."""
    count = VOCAB_SIZE - len(SPECIAL_TOKENS) - 256 - len(SIGN_MERGES)
    chosen = choose_merges(_read_gguf_merges(sys.argv[1]), count)
    MERGES_FILE.write_text("\n".join(chosen) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
