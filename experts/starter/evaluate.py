"""Measures a starter expert: exact answers by kind of problem, agreement with transformers.

`python -m experts.starter.evaluate NAME [--checkpoint DIR] [--json OUT]`; NAME is a folder here, or
a package that is built like one (`GUIDE.md`).
"""

from __future__ import annotations

import argparse
import importlib.util
import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from experts.checkpoint import load_reference
from experts.starter.evaluation import FILE, IsCorrect, Question, load_questions, scorer

FOLDER = Path(__file__).parent
MAX_NEW_TOKENS = 700
"""The longest division takes some 500."""


@dataclass(frozen=True)
class Agreement:
    """How transformers' BitNet code and our reference differ on the same checkpoint, float32."""

    prompts: int
    max_logit_difference: float
    same_text: float
    """Share of prompts whose greedy answers are the same."""


@dataclass(frozen=True)
class Report:
    """What `--json` writes. `accuracy` maps an operation, or "all", to (correct, asked)."""

    accuracy: dict[str, tuple[int, int]]
    agreement: Agreement


@torch.inference_mode()
def answer(model: Any, tokenizer: Any, prompts: Sequence[str], rows: int = 50) -> list[str]:
    """Greedy answers to rendered prompts, `rows` at a time, longest last."""
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    texts = [""] * len(prompts)
    for start in range(0, len(order), rows):
        part = order[start : start + rows]
        inputs = tokenizer(
            [prompts[i] for i in part],
            return_tensors="pt",
            padding=True,
            padding_side="left",
            add_special_tokens=False,
        )
        output = model.generate(
            input_ids=inputs["input_ids"],
            attention_mask=inputs["attention_mask"],
            max_new_tokens=MAX_NEW_TOKENS,
            do_sample=False,
        )
        written = tokenizer.batch_decode(
            output[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True
        )
        for i, text in zip(part, written, strict=True):
            texts[i] = text
    return texts


def render(tokenizer: Any, messages: list[dict[str, str]]) -> str:
    """The prompt of a conversation that ends with a user's turn."""
    text: str = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    return text


def accuracy(
    questions: Sequence[Question], texts: Sequence[str], is_correct: IsCorrect
) -> dict[str, tuple[int, int]]:
    """(correct, asked) for each operation and for "all"."""
    counts: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for question, text in zip(questions, texts, strict=True):
        for name in (question.operation, "all"):
            counts[name][0] += is_correct(text, question.answer)
            counts[name][1] += 1
    return {name: (correct, asked) for name, (correct, asked) in counts.items()}


@torch.inference_mode()
def agreement(
    ours: Any, theirs: Any, tokenizer: Any, prompts: Sequence[str], texts: Sequence[str]
) -> Agreement:
    """Compare two models on prompts, given the first model's answers."""
    largest = 0.0
    for prompt, text in zip(prompts, texts, strict=True):
        ids = tokenizer(prompt + text, return_tensors="pt", add_special_tokens=False)["input_ids"]
        difference = (ours(input_ids=ids).logits - theirs(input_ids=ids).logits).abs().max()
        largest = max(largest, float(difference))
    same = [a == b for a, b in zip(texts, answer(theirs, tokenizer, prompts), strict=True)]
    return Agreement(len(prompts), largest, sum(same) / len(same))


def located(name: str) -> tuple[str, Path]:
    """The package of an expert, and its folder; `name` is a folder here or an importable package.

    Ends the program where there is none.
    """
    package = f"{__package__}.{name}" if (FOLDER / name).is_dir() else name
    try:
        spec = importlib.util.find_spec(package)
    except (ImportError, ValueError):
        spec = None
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit(f"error: {name!r} is neither a folder in {FOLDER} nor a package")
    return package, Path(spec.submodule_search_locations[0])


def main() -> None:
    """Evaluate and print the table."""
    parser = argparse.ArgumentParser(prog="python -m experts.starter.evaluate")
    parser.add_argument("name", help="the expert: a folder here, or your package")
    parser.add_argument("--checkpoint", type=Path, help="instead of the shipped one")
    parser.add_argument("--limit", type=int, help="only N questions, evenly spaced")
    parser.add_argument("--json", type=Path, help="also write the numbers here")
    parser.add_argument("--compare", type=int, default=50, help="prompts for the agreement check")
    parser.add_argument("--wrong", action="store_true", help="print the wrong answers")
    options = parser.parse_args()
    package, folder = located(options.name)
    checkpoint = options.checkpoint or folder / "checkpoint"
    is_correct = scorer(package)
    questions = load_questions(folder)
    if not questions:
        raise SystemExit(f"error: {folder / FILE} has no questions; write it first")
    if options.limit:
        questions = questions[:: max(1, len(questions) // options.limit)]
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    prompts = [render(tokenizer, question.messages) for question in questions]
    ours = load_reference(checkpoint)
    texts = answer(ours, tokenizer, prompts)
    if options.wrong:
        _print_wrong(questions, texts, is_correct)
    step = max(1, len(prompts) // max(1, options.compare))
    theirs = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32).eval()
    report = Report(
        accuracy(questions, texts, is_correct),
        agreement(ours, theirs, tokenizer, prompts[::step], texts[::step]),
    )
    _print(report)
    if options.json:
        options.json.write_text(json.dumps(asdict(report), indent=2) + "\n", encoding="utf-8")


def _print(report: Report) -> None:
    for name, (correct, asked) in report.accuracy.items():
        print(f"{name:<16}{correct:>4} of {asked:<4} {correct / asked:7.1%}")
    same = report.agreement
    print(
        f"transformers' BitNet code on {same.prompts} prompts: logits differ by at most"
        f" {same.max_logit_difference:.2g}, the same greedy text for {same.same_text:.0%}"
    )


def _print_wrong(
    questions: Sequence[Question], texts: Sequence[str], is_correct: IsCorrect
) -> None:
    for question, text in zip(questions, texts, strict=True):
        if not is_correct(text, question.answer):
            asked = question.messages[-1]["content"]
            print(f"asked {asked!r}, expected {question.answer}, got:\n{text}\n")


if __name__ == "__main__":
    main()
