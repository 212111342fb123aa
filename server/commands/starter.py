"""`trivium starter evaluate`: what the shipped experts can and the meta alone cannot.

Every question goes through the HTTP API of a running server: to the meta alone, to the expert
alone, and to the whole system, whose routing errors count.
"""

from __future__ import annotations

import asyncio
import importlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import aiohttp
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from server.commands.client import CommandError, checked, with_session
from server.workers.starters import GROUP

CONCURRENCY = 16
MAX_TOKENS = 256

IsCorrect = Callable[[str, str], bool]


@dataclass(frozen=True)
class Row:
    """One line of the table. Accuracies are shares of `questions` answered exactly."""

    expert: str
    questions: int
    meta_alone: float
    expert_alone: float
    system: float


def evaluate(url: str, limit: int | None, json_out: Path | None) -> None:
    """Print the table; write it to `json_out` if given."""
    rows = with_session(lambda session: _rows(session, limit), url)
    table = Table("expert", "questions", "meta alone", "expert alone", "system", box=None)
    for row in rows:
        shares = (f"{share:.1%}" for share in (row.meta_alone, row.expert_alone, row.system))
        table.add_row(row.expert, str(row.questions), *shares)
    Console(highlight=False).print(table)
    if json_out is not None:
        text = json.dumps([asdict(row) for row in rows], indent=2)
        json_out.write_text(text + "\n", encoding="utf-8")


async def _rows(session: aiohttp.ClientSession, limit: int | None) -> list[Row]:
    rows = []
    for point in entry_points(group=GROUP):
        folder: Path = point.load()()
        problems = _spread(_problems(folder), limit)
        if not problems:
            continue
        scorer = importlib.import_module(f"experts.starter.{point.name}.answers")
        models = ("trivium/meta", f"trivium/{point.name}", "trivium")
        shares = [
            await _share(session, model, problems, scorer.is_correct, point.name)
            for model in models
        ]
        rows.append(Row(point.name, len(problems), *shares))
    return rows


def _spread(problems: list[dict[str, Any]], limit: int | None) -> list[dict[str, Any]]:
    """At most `limit` problems, evenly spaced: the file is sorted by kind."""
    if limit is None or limit >= len(problems):
        return problems
    return [problems[i * len(problems) // limit] for i in range(limit)]


def _problems(folder: Path) -> list[dict[str, Any]]:
    path = folder / "evaluation.jsonl"
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines if line.strip()]


async def _share(
    session: aiohttp.ClientSession,
    model: str,
    problems: list[dict[str, Any]],
    is_correct: IsCorrect,
    name: str,
) -> float:
    """Share of `problems` that `model` answers exactly, at temperature 0."""
    free = asyncio.Semaphore(CONCURRENCY)
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(f"{name}: {model}", total=len(problems))

        async def one(problem: dict[str, Any]) -> bool:
            async with free:
                text = await _ask(session, model, problem["messages"])
            progress.advance(task)
            return is_correct(text, problem["answer"])

        right = await asyncio.gather(*(one(problem) for problem in problems))
    return sum(right) / len(right)


async def _ask(session: aiohttp.ClientSession, model: str, messages: list[Any]) -> str:
    body = {"model": model, "messages": messages, "temperature": 0, "max_tokens": MAX_TOKENS}
    async with session.post("v1/chat/completions", json=body) as response:
        answer = await checked(response)
    content = answer["choices"][0]["message"]["content"]
    if content is None:
        raise CommandError(f"{model} answered without text")
    return str(content)
