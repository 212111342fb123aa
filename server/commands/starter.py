"""`trivium starter evaluate`: what the shipped experts can and the meta alone cannot.

Every question goes through the HTTP API of a running server: to the meta alone, to the expert
alone, and to the whole system, whose routing errors count; and to other servers for comparison.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import TypeVar

import aiohttp
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

import experts.starter
from experts.starter.evaluation import (
    FILE,
    IsCorrect,
    Question,
    load_questions,
    package_of,
    scorer,
)
from server.commands.client import CommandError, checked, with_session
from server.workers.starters import GROUP

T = TypeVar("T")

CONCURRENCY = 16
MAX_TOKENS = 700
GENERAL_TOKENS = 48
"""How much of an answer to a general question is looked at for calls of experts."""
GENERAL_FILE = Path(experts.starter.__file__).parent / "general_questions.txt"
ALL = "all"


@dataclass(frozen=True)
class Contestant:
    """Who is asked: `model` at the server of `session`."""

    name: str
    model: str
    session: aiohttp.ClientSession


@dataclass(frozen=True)
class Pack:
    """An expert pack's questions, and what judges answers to them."""

    name: str
    questions: list[Question]
    is_correct: IsCorrect


@dataclass(frozen=True)
class Row:
    """One line of the table: the share of `questions` of one kind, or "all", that each
    contestant answered exactly."""

    expert: str
    kind: str
    questions: int
    exact: dict[str, float]


@dataclass(frozen=True)
class Calls:
    """General questions, and in which answers which experts were called: wrongly."""

    questions: int
    wrong: list[tuple[str, str]]


@dataclass(frozen=True)
class Report:
    """What `--json` writes; `calls` is known last."""

    rows: list[Row]
    calls: Calls | None = None

    def write(self, path: Path | None) -> None:
        """As JSON, if there is a path."""
        if path is not None:
            path.write_text(json.dumps(asdict(self), indent=2) + "\n", encoding="utf-8")


def evaluate(url: str, limit: int | None, against: Sequence[str], json_out: Path | None) -> None:
    """Print the tables; write the figures to `json_out` if given, each expert's once it has them.

    `against` names other OpenAI-compatible servers, "NAME=URL" or "NAME=URL#MODEL". Raises
    CommandError.
    """
    console = Console(highlight=False)

    async def run(session: aiohttp.ClientSession) -> Calls:
        rows: list[Row] = []
        async for new in _rows_of_experts(session, limit, against):
            rows += new
            Report(rows).write(json_out)
        console.print(_table(rows))
        general = GENERAL_FILE.read_text(encoding="utf-8").splitlines()
        calls = await _calls(session, _spread(general, limit))
        Report(rows, calls).write(json_out)
        return calls

    calls = with_session(run, url)
    console.print(
        f"\n{len(calls.wrong)} of {calls.questions} general questions called an expert",
        *(f"  {expert}: {question}" for question, expert in calls.wrong),
        sep="\n",
    )


def _table(rows: Sequence[Row]) -> Table:
    names = list(rows[0].exact) if rows else []
    table = Table("expert", "kind", "questions", *names, box=None)
    for row in rows:
        shares = (f"{row.exact[name]:.1%}" for name in names)
        style = "bold" if row.kind == ALL else None
        table.add_row(row.expert, row.kind, str(row.questions), *shares, style=style)
    return table


async def _rows_of_experts(
    session: aiohttp.ClientSession, limit: int | None, against: Sequence[str]
) -> AsyncIterator[list[Row]]:
    """The rows of one expert after the other."""
    packs = [pack for point in entry_points(group=GROUP) if (pack := _pack(point, limit))]
    async with _others(against) as others:
        for pack in packs:
            mine = [
                Contestant("meta alone", "trivium/meta", session),
                Contestant("expert alone", f"trivium/{pack.name}", session),
                Contestant("system", "trivium", session),
            ]
            yield await _rows(pack, [*mine, *others])


def _pack(point: EntryPoint, limit: int | None) -> Pack | None:
    """What an expert pack is evaluated with; None if it has no questions. Raises CommandError."""
    folder: Path = point.load()()
    questions = _spread(load_questions(folder), limit)
    if not questions:
        return None
    try:
        is_correct = scorer(package_of(point.module, folder))
    except (ImportError, AttributeError) as error:
        raise CommandError(
            f"the expert pack {point.name} has {FILE}, but its answers cannot be judged ({error});"
            f" write {folder / 'answers.py'} with is_correct(text, answer)"
        ) from None
    return Pack(point.name, questions, is_correct)


@asynccontextmanager
async def _others(against: Sequence[str]) -> AsyncIterator[list[Contestant]]:
    """The servers of `--against`. Raises CommandError."""
    found: list[Contestant] = []
    try:
        for text in against:
            name, _, place = text.partition("=")
            url, _, model = place.partition("#")
            if not name or not url.startswith(("http://", "https://")):
                raise CommandError(f"--against {text}: write NAME=URL or NAME=URL#MODEL")
            timeout = aiohttp.ClientTimeout(total=None, sock_connect=5)
            session = aiohttp.ClientSession(url.rstrip("/") + "/", timeout=timeout)
            found.append(Contestant(name, model or name, session))
        yield found
    finally:
        for contestant in found:
            await contestant.session.close()


async def _rows(pack: Pack, contestants: Sequence[Contestant]) -> list[Row]:
    questions = pack.questions
    right: dict[str, list[bool]] = {}
    for contestant in contestants:
        texts = await _each(
            f"{pack.name}: {contestant.name}",
            [partial(_ask, contestant, question.messages) for question in questions],
        )
        right[contestant.name] = [
            pack.is_correct(text, question.answer)
            for text, question in zip(texts, questions, strict=True)
        ]
    kinds = dict.fromkeys(question.operation for question in questions)
    rows = []
    for kind in [*kinds, ALL]:
        places = [i for i, q in enumerate(questions) if kind in (ALL, q.operation)]
        exact = {name: sum(found[i] for i in places) / len(places) for name, found in right.items()}
        rows.append(Row(pack.name, kind, len(places), exact))
    return rows


async def _calls(session: aiohttp.ClientSession, questions: list[str]) -> Calls:
    """Asks the whole system and looks which experts wrote."""
    work = [partial(_writers, session, question) for question in questions]
    writers = await _each("general questions", work)
    return Calls(
        len(questions),
        [(q, ", ".join(names)) for q, names in zip(questions, writers, strict=True) if names],
    )


async def _each(label: str, work: Sequence[Callable[[], Awaitable[T]]]) -> list[T]:
    """The results of `work` in order, `CONCURRENCY` at a time, with a progress bar."""
    free = asyncio.Semaphore(CONCURRENCY)
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(label, total=len(work))

        async def one(item: Callable[[], Awaitable[T]]) -> T:
            async with free:
                result = await item()
            progress.advance(task)
            return result

        return await asyncio.gather(*(one(item) for item in work))


async def _ask(contestant: Contestant, messages: list[dict[str, str]]) -> str:
    """The answer at temperature 0; none where a model has no room for the question."""
    body = {
        "model": contestant.model,
        "messages": messages,
        "temperature": 0,
        "max_tokens": MAX_TOKENS,
    }
    async with contestant.session.post("v1/chat/completions", json=body) as response:
        answer = await checked(response)
    return str(answer["choices"][0]["message"]["content"] or "")


async def _writers(session: aiohttp.ClientSession, question: str) -> list[str]:
    """The experts that wrote a part of the answer's beginning."""
    body = {
        "model": "trivium",
        "messages": [{"role": "user", "content": question}],
        "temperature": 0,
        "max_tokens": GENERAL_TOKENS,
        "trivium": {"trace": True},
    }
    async with session.post("v1/chat/completions", json=body) as response:
        answer = await checked(response)
    models = dict.fromkeys(segment["model"] for segment in answer["trivium"]["segments"])
    return [model for model in models if model != "meta"]


def _spread(items: list[T], limit: int | None) -> list[T]:
    """At most `limit` items, evenly spaced: the files are sorted by kind."""
    if limit is None or limit >= len(items):
        return items
    return [items[i * len(items) // limit] for i in range(limit)]
