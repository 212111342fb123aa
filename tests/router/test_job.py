"""`trivium router fit` and `evaluate` from data to figures, with a tiny meta LLM."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file

from router import job
from tests.router.tiny import HIDDEN, write_tiny


class Site:
    """A tiny meta LLM, routing data, and the job."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.head = folder, folder / "head.safetensors"
        self.meta = write_tiny(folder / "meta")
        self.train, self.unseen = folder / "train.jsonl", folder / "unseen.jsonl"
        write_queries(self.train, 12, seed=0)
        write_queries(self.unseen, 8, seed=1)

    def run(self, command: str, *options: object, meta: Path | None = None) -> int:
        argv = [command, "--meta", meta or self.meta, "--cache", self.folder / "cache", *options]
        return job.main([str(word) for word in argv])

    def fit(self, *options: object) -> int:
        return self.run("fit", "--data", self.train, "--out", self.head, *options)

    def evaluate(self, *options: object, meta: Path | None = None) -> int:
        options = ("--data", self.unseen, "--head", self.head, *options)
        return self.run("evaluate", *options, meta=meta)


def write_queries(path: Path, count: int, seed: int) -> None:
    """Experts `first` and `second` are asked what begins with a and with b, nobody the rest."""
    chance = random.Random(seed)
    lines = []
    for word, expert in (("a", "first"), ("b", "second"), ("c", None)):
        for _ in range(count):
            tail = " ".join(chance.choices("cd", k=chance.randint(1, 6)))
            turn = {"role": "user", "content": f"{word} {word} {word} {tail}"}
            lines.append(json.dumps({"messages": [turn], "expert": expert}))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    site = Site(tmp_path_factory.mktemp("site"))
    assert site.fit() == 0
    return site


def test_a_fitted_head_is_evaluated_on_unseen_queries(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    out, plot = site.folder / "out.json", site.folder / "out.png"
    assert site.evaluate("--json", out, "--plot", plot) == 0
    found: dict[str, Any] = json.loads(out.read_text())
    assert found["n"] == 24
    assert found["accuracy"] >= 0.8, "three words are told apart"
    assert set(found["per_expert"]) == {"first", "second"}
    assert {"expert_recall", "false_route_rate", "ece", "latency"} <= found.keys()
    assert "published recipe" in found["compared"]
    assert plot.read_bytes().startswith(b"\x89PNG")
    printed = capsys.readouterr().out
    assert "expert tokens" in printed
    assert "published recipe" in printed


def test_the_head_is_one_that_the_meta_worker_takes(site: Site) -> None:
    tensors = load_file(site.head)
    assert tensors["rows"].shape == (3, 64, 3 * HIDDEN)
    assert tensors["bias"].shape == (3, 64)


def test_fewer_queries_can_be_fitted_on(site: Site, tmp_path: Path) -> None:
    options = ("--out", tmp_path / "few.safetensors", "--limit-per-expert", 4, "--seed", 3)
    assert site.fit(*options) == 0
    assert (tmp_path / "few.safetensors").read_bytes() != site.head.read_bytes()


def refused(site: Site, capsys: pytest.CaptureFixture[str], *command: object) -> str:
    """What the job says when it fails."""
    name, *options = command
    assert site.run(str(name), *options) == 1
    said = capsys.readouterr().err.strip()
    assert said.startswith("error: ")
    assert "Traceback" not in said
    return said


def test_a_malformed_line_is_refused_with_its_number(
    site: Site, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    bad = tmp_path / "bad.jsonl"
    bad.write_text(site.train.read_text() + '{"messages": []}\n')
    said = refused(site, capsys, "fit", "--data", bad, "--out", tmp_path / "h")
    assert "line 37" in said
    assert not (tmp_path / "h").exists()


def test_a_head_of_another_meta_llm_is_refused(
    site: Site, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    other = write_tiny(tmp_path / "other", seed=1)
    assert site.evaluate(meta=other) == 1
    assert "fitted for another meta LLM" in capsys.readouterr().err


def test_queries_of_an_expert_without_a_token_are_refused(
    site: Site, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    data = tmp_path / "data.jsonl"
    data.write_text(site.unseen.read_text().replace("second", "third"))
    said = refused(site, capsys, "evaluate", "--data", data, "--head", site.head)
    assert "third" in said


def test_without_the_training_data_nothing_is_compared(site: Site, tmp_path: Path) -> None:
    data, head, out = tmp_path / "train.jsonl", tmp_path / "head", tmp_path / "out.json"
    data.write_bytes(site.train.read_bytes())
    assert site.run("fit", "--data", data, "--out", head) == 0
    data.write_text(data.read_text() + "\n\n")
    assert site.run("evaluate", "--data", site.unseen, "--head", head, "--json", out) == 0
    assert json.loads(out.read_text())["compared"] == {}
