"""The guide "make your own expert": its files, as they are printed there, do what it says."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from experts import starter
from experts.manifest import load_manifest
from experts.starter.evaluate import located

GUIDE = Path(starter.__file__).parent / "GUIDE.md"
FILE = re.compile(r"^`([\w./]+)`\n\n```\w+\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def romans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with all files of the guide, and the question files that they write."""
    folder = tmp_path_factory.mktemp("romans")
    (folder / "romans").mkdir()
    for name, text in FILE.findall(GUIDE.read_text(encoding="utf-8")):
        (folder / name).write_text(text, encoding="utf-8")
    run(folder, "romans.questions")
    return folder


def run(folder: Path, module: str, *arguments: str) -> str:
    """`python -m module` in the folder; what it printed."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), str(Path.cwd())])}
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_every_file_is_there(romans: Path) -> None:
    package = romans / "romans"
    names = {path.name for path in package.iterdir() if path.is_file()}
    code = {"__init__", "numerals", "data", "answers", "questions", "train"}
    assert names == {f"{n}.py" for n in code} | {
        "expert.yaml",
        "examples.jsonl",
        "evaluation.jsonl",
    }
    assert (romans / "pyproject.toml").exists()


def test_the_manifest_and_its_examples_are_taken(romans: Path) -> None:
    manifest = load_manifest(romans / "romans")
    assert manifest.name == yaml.safe_load((romans / "romans" / "expert.yaml").read_text())["name"]
    assert len(manifest.examples) == 100


def test_no_question_of_the_evaluation_is_taught(romans: Path) -> None:
    lines = (romans / "romans" / "evaluation.jsonl").read_text(encoding="utf-8").splitlines()
    asked = [json.loads(line) for line in lines]
    assert len(asked) == 360
    questions = {line["messages"][-1]["content"] for line in asked if line["answer"] != "end"}
    assert not questions & taught(romans)


def taught(romans: Path) -> set[str]:
    """The questions of 3,000 training examples."""
    (romans / "taught.py").write_text(
        "import json\n"
        "from itertools import islice\n"
        "from romans.data import examples\n"
        "print(json.dumps([e.turns[-1].content for e in islice(examples(0), 3000)]))\n",
        encoding="utf-8",
    )
    return set(json.loads(run(romans, "taught")))


def test_a_few_steps_of_training_are_measured(romans: Path) -> None:
    """The commands as written there, but for the length of the run."""
    start = GUIDE.parent / "arithmetic" / "checkpoint"
    options = ["--steps", "2", "--batch-tokens", "256", "--from", str(start), "--device", "cpu"]
    options.append("--no-compile")
    run(romans, "romans.train", *options, "--folder", "run", "--export", "romans/checkpoint")
    measured = run(romans, "experts.starter.evaluate", "romans", "--limit", "2", "--compare", "1")
    assert re.search(r"^all +\d of 2 ", measured, re.MULTILINE)
    assert (romans / "run" / "loss.png").exists()


def test_evaluating_what_is_no_expert_says_so() -> None:
    with pytest.raises(SystemExit, match="neither a folder in"):
        located("nothing_of_that_name")
    with pytest.raises(SystemExit, match="neither a folder in"):
        located("json.decoder")
    package, folder = located("arithmetic")
    assert package == "experts.starter.arithmetic"
    assert (folder / "expert.yaml").exists()
