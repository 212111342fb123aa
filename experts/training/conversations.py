"""Conversations to learn from: chat JSONL, read strictly. No torch."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from experts.errors import ExpertsError

Role = Literal["system", "user", "assistant"]


class DataError(ExpertsError):
    """Training data that cannot be used; the message names the file and line."""


@dataclass(frozen=True)
class Turn:
    """One turn of a conversation."""

    role: Role
    content: str


@dataclass(frozen=True)
class Conversation:
    """A finished conversation: every assistant turn is learned. `source` is "FILE line N"."""

    turns: tuple[Turn, ...]
    source: str


@dataclass(frozen=True)
class Example:
    """A conversation, the answer's beginning (may be empty) and the text that must follow it."""

    turns: tuple[Turn, ...]
    prefix: str
    target: str


def read_conversations(files: Sequence[Path]) -> list[Conversation]:
    """All conversations of some JSONL files, lines `{"messages": [{"role", "content"}, …]}`.

    Other keys of a line are left alone. Raises DataError at the first line that cannot be used,
    and if there is none.
    """
    conversations = [conversation for file in files for conversation in _read_file(file)]
    if not conversations:
        names = ", ".join(str(file) for file in files)
        raise DataError(f"{names}: no conversation to learn from; every line is empty")
    return conversations


def _read_file(file: Path) -> Iterator[Conversation]:
    try:
        lines = file.read_text(encoding="utf-8").split("\n")  # texts may hold other line ends
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"the data file {file} cannot be read: {error}") from None
    for number, line in enumerate(lines, 1):
        if line.strip():
            yield _conversation(line, f"{file} line {number}")


def _conversation(line: str, source: str) -> Conversation:
    try:
        content = json.loads(line)
    except json.JSONDecodeError as error:
        raise DataError(f"{source}: not JSON ({error.msg} at column {error.colno})") from None
    messages = content.get("messages") if isinstance(content, dict) else None
    if not isinstance(messages, list) or not messages:
        raise DataError(f'{source}: expected {{"messages": [{{"role": …, "content": …}}, …]}}')
    turns = tuple(_turn(message, f"{source}, message {i}") for i, message in enumerate(messages, 1))
    if turns[0].role == "assistant":
        raise DataError(f"{source}: it begins with the assistant, whose turn answers nothing")
    if not any(turn.role == "assistant" for turn in turns):
        raise DataError(f"{source}: no assistant turn, so there is nothing to learn")
    return Conversation(turns, source)


def _turn(message: Any, source: str) -> Turn:
    if not isinstance(message, dict):
        raise DataError(f"{source}: expected an object with role and content")
    role: Any = message.get("role")
    content = message.get("content")
    if role not in get_args(Role):
        raise DataError(f"{source}: the role is {role!r}, not one of {', '.join(get_args(Role))}")
    if not isinstance(content, str):
        raise DataError(f"{source}: the content is not text")
    try:
        content.encode()
    except UnicodeEncodeError:
        half = "half a character, such as an emoji that was cut (a lone surrogate)"
        raise DataError(f"{source}: the content has {half}") from None
    if role == "assistant" and not content.strip():
        raise DataError(f"{source}: the assistant's turn is empty")
    return Turn(role, content)
