"""`trivium starter evaluate` against servers whose models' answers are known."""

from __future__ import annotations

import asyncio
import json
import re
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

import pytest

from experts.starter.evaluation import Question
from router.background import general_queries
from server.commands import starter
from server.commands.client import CommandError
from server.commands.starter import GENERAL_FILE
from server.workers.starters import GROUP
from tests.fakes import says
from tests.server.conftest import World
from tests.server.relay.test_dispatch import CALL

QUESTIONS = [
    Question([{"role": "user", "content": "40 + 2?"}], "42", "addition"),
    Question([{"role": "user", "content": "3 + 4?"}], "7", "addition"),
    Question([{"role": "user", "content": "6 × 7?"}], "42", "multiplication"),
]


@pytest.fixture(autouse=True)
def _questions(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (arithmetic,) = entry_points(group=GROUP, name="arithmetic")
    monkeypatch.setattr(starter, "entry_points", lambda group: [arithmetic])
    monkeypatch.setattr(starter, "load_questions", lambda folder: QUESTIONS)
    monkeypatch.setattr(starter, "GENERAL_FILE", tmp_path / "general.txt")
    (tmp_path / "general.txt").write_text("What is a fox?\nHello!\n")


async def test_each_contestant_is_asked_and_wrong_calls_are_counted(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    world.meta.behave = says(CALL)
    world.arithmetic.behave = says("= 42")
    out, against = tmp_path / "out.json", [f"same={world.url}/#trivium/arithmetic"]
    await asyncio.to_thread(starter.evaluate, world.url, None, against, out)
    report = json.loads(out.read_text())
    shares = {row["kind"]: (row["questions"], row["exact"]) for row in report["rows"]}
    assert shares["addition"][0] == 2
    assert shares["addition"][1]["expert alone"] == shares["addition"][1]["same"] == 0.5
    assert shares["all"][1]["system"] == pytest.approx(2 / 3)
    assert shares["all"][1]["meta alone"] == 0
    assert report["calls"] == {
        "questions": 2,
        "wrong": [["What is a fox?", "arithmetic"], ["Hello!", "arithmetic"]],
    }
    printed = capsys.readouterr().out
    assert "2 of 2 general questions called an expert" in printed
    assert "66.7%" in printed


async def test_figures_of_experts_are_kept_when_the_run_ends_early(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fails(*_: object) -> None:
        raise CommandError("stopped")

    monkeypatch.setattr(starter, "_calls", fails)
    out = tmp_path / "out.json"
    with pytest.raises(CommandError, match="stopped"):
        await asyncio.to_thread(starter.evaluate, world.url, None, [], out)
    report = json.loads(out.read_text())
    assert [row["kind"] for row in report["rows"]] == ["addition", "multiplication", "all"]
    assert report["calls"] is None


PACK = {
    "__init__.py": """from pathlib import Path

def folder():
    return Path(__file__).parent
""",
    "answers.py": "def is_correct(text, answer): return answer in text\n",
}


@pytest.mark.parametrize("judged", [True, False])
async def test_somebody_elses_pack_is_judged_by_its_own_answers(
    judged: bool, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"pack_of_somebody_{judged}".lower()
    (tmp_path / name).mkdir()
    for file, text in PACK.items():
        if judged or file != "answers.py":
            (tmp_path / name / file).write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    point = EntryPoint("arithmetic", f"{name}:folder", GROUP)
    monkeypatch.setattr(starter, "entry_points", lambda group: [point])
    world.arithmetic.behave = says("= 42")
    out = tmp_path / "out.json"
    work = asyncio.to_thread(starter.evaluate, world.url, None, [], out)
    if not judged:
        with pytest.raises(CommandError, match=r"answers\.py with is_correct"):
            await work
        return
    await work
    rows = {row["kind"]: row["exact"] for row in json.loads(out.read_text())["rows"]}
    assert rows["all"]["expert alone"] == pytest.approx(2 / 3)


async def test_an_unclear_contestant_is_refused(world: World) -> None:
    with pytest.raises(CommandError, match="NAME=URL"):
        await asyncio.to_thread(starter.evaluate, world.url, 1, ["localhost:8080"], None)


def test_general_questions_are_not_those_that_rows_are_fitted_on() -> None:
    def letters(text: str) -> str:
        return re.sub(r"\W", "", text.lower())

    lines = Path(starter.experts.starter.__file__).parent / GENERAL_FILE.name
    asked = lines.read_text(encoding="utf-8").splitlines()
    assert len(set(asked)) == 300
    fitted = {letters(query) for query in general_queries()}
    assert not [question for question in asked if letters(question) in fitted]
