"""Data files: what is read, what is refused, and how examples are drawn."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from router.dataset import DataError, Query, limit_per_expert, read_queries

GOOD = json.dumps({"messages": [{"role": "user", "content": "Hi"}], "expert": None, "source": "x"})


def write(folder: Path, *lines: str) -> Path:
    path = folder / "data.jsonl"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_other_keys_and_empty_lines_are_ignored(tmp_path: Path) -> None:
    line = {"messages": [{"role": "user", "content": "a\u2028b"}], "expert": "x"}
    path = write(tmp_path, GOOD, "", json.dumps(line, ensure_ascii=False))
    assert [(query.expert, query.text) for query in read_queries(path)] == [
        (None, "Hi"),
        ("x", "a\u2028b"),
    ]


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("{", "not JSON"),
        ("[1]", "not an object"),
        ('{"messages": []}', "not an object"),
        ('{"messages": [], "expert": null}', "at least one turn"),
        ('{"messages": [{"role": "user", "content": "a"}], "expert": 3}', "a name or null"),
        ('{"messages": [{"role": "user"}], "expert": null}', "every turn"),
        ('{"messages": [{"role": "system", "content": "a"}], "expert": null}', "no user turn"),
    ],
)
def test_a_malformed_line_is_refused_with_its_number(tmp_path: Path, line: str, fault: str) -> None:
    with pytest.raises(DataError, match=rf"data\.jsonl line 3: .*{fault}"):
        read_queries(write(tmp_path, GOOD, "", line))


def test_an_empty_file_and_no_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no queries"):
        read_queries(write(tmp_path, ""))
    with pytest.raises(DataError, match="cannot be read"):
        read_queries(tmp_path / "nowhere")


def queries() -> list[Query]:
    names = ["a", None, "b", "a", None, "a", "b", "a"]
    return [Query([{"role": "user", "content": str(n)}], name) for n, name in enumerate(names)]


def test_the_limit_is_for_experts_and_general_queries_stay() -> None:
    kept = limit_per_expert(queries(), 2, seed=1)
    assert [query.expert for query in kept].count("a") == 2
    assert [query.expert for query in kept].count("b") == 2
    assert [query.expert for query in kept].count(None) == 2
    assert limit_per_expert(queries(), None, seed=1) == queries()


def test_a_seed_draws_the_same_each_time_and_others_draw_others() -> None:
    drawn = [tuple(q.text for q in limit_per_expert(queries(), 1, seed)) for seed in range(8)]
    assert drawn[3] == tuple(q.text for q in limit_per_expert(queries(), 1, 3))
    assert len(set(drawn)) > 1
