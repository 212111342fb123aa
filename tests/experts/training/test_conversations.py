"""Chat JSONL: read as everywhere, refused with file and line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from experts.training.conversations import DataError, Turn, read_conversations

GOOD = '{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}'


def test_reads_turns_of_several_files_and_skips_empty_lines(tmp_path: Path) -> None:
    first, second = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    first.write_text(f"{GOOD}\n\n{GOOD}\n")
    second.write_text(GOOD.replace('"messages"', '"id": 7, "messages"'))
    found = read_conversations([first, second])
    assert [c.source for c in found] == [f"{first} line 1", f"{first} line 3", f"{second} line 1"]
    assert found[2].turns == (Turn("user", "a"), Turn("assistant", "b"))


def test_a_text_may_hold_the_line_ends_of_unicode(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_bytes((GOOD.replace('"a"', '"a\u2028b\u0085c"') + "\r\n" + GOOD).encode())
    (first, _) = read_conversations([file])
    assert first.turns[0] == Turn("user", "a\u2028b\u0085c")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 2: not JSON"),
        ("[1]", "line 2: expected"),
        ('{"messages": []}', "line 2: expected"),
        ('{"messages": ["x"]}', "line 2, message 1: expected an object"),
        ('{"messages": [{"role": "bot", "content": "x"}]}', "message 1: the role is 'bot'"),
        ('{"messages": [{"role": ["user"], "content": "x"}]}', "message 1: the role is"),
        ('{"messages": [{"role": "user", "content": 3}]}', "the content is not text"),
        ('{"messages": [{"role": "user", "content": "x"}]}', "line 2: no assistant turn"),
        (GOOD.replace('"b"', '" "'), "message 2: the assistant's turn is empty"),
        (GOOD.replace('"b"', r'"\ud83d"'), "message 2: the content has half a character"),
        ('{"messages": [{"role": "assistant", "content": "x"}]}', "begins with the assistant"),
    ],
)
def test_faults_are_named_with_their_line(
    lines: Callable[..., Path], line: str, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        read_conversations([lines(GOOD, line)])


def test_no_data_and_no_file(lines: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no conversation"):
        read_conversations([lines("", "")])
    with pytest.raises(DataError, match=r"missing\.jsonl cannot be read"):
        read_conversations([tmp_path / "missing.jsonl"])
