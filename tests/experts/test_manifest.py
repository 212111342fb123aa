"""Manifests: what is read, how paths resolve, and what is refused with which words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from experts.manifest import (
    ExternalWorker,
    ManagedWorker,
    ManifestError,
    load_manifest,
    parse_manifest,
)

QUERIES = [f"Write a poem about {thing}." for thing in ("rain", "cats", "tea", "moss", "dust")]


def write(folder: Path, **change: Any) -> Path:
    manifest = {
        "name": "poems",
        "description": "Poems.",
        "worker": {"checkpoint": "weights", "args": ["--max-model-len", "512"]},
        "examples": QUERIES,
    }
    (folder / "expert.yaml").write_text(yaml.safe_dump(manifest | change))
    return folder


def test_a_folder_or_its_file_is_read_and_paths_are_resolved(tmp_path: Path) -> None:
    manifest = load_manifest(write(tmp_path))
    assert manifest == load_manifest(tmp_path / "expert.yaml")
    assert isinstance(manifest.worker, ManagedWorker)
    assert manifest.worker.checkpoint == tmp_path / "weights"
    assert manifest.worker.args == ("--max-model-len", "512")
    assert manifest.examples[0].messages[0].content == QUERIES[0]


def test_a_bank_may_be_named_or_refused(tmp_path: Path) -> None:
    for said, read in (("math", "math"), (False, False)):
        manifest = load_manifest(write(tmp_path, worker={"checkpoint": "w", "bank": said}))
        assert isinstance(manifest.worker, ManagedWorker)
        assert manifest.worker.bank == read
    assert load_manifest(write(tmp_path)).worker.bank is None  # type: ignore[union-attr]


def test_a_worker_may_have_replicas(tmp_path: Path) -> None:
    urls = ["http://10.0.0.7:8000/v1", "http://10.0.0.8:8000/v1/"]
    elsewhere = load_manifest(write(tmp_path, worker={"urls": urls, "model": "m"})).worker
    assert isinstance(elsewhere, ExternalWorker)
    assert elsewhere.bases == ("http://10.0.0.7:8000/v1", "http://10.0.0.8:8000/v1")
    here = load_manifest(write(tmp_path, worker={"checkpoint": "w", "replicas": 3})).worker
    assert isinstance(here, ManagedWorker)
    assert here.replicas == 3


def test_a_url_makes_an_external_worker(tmp_path: Path) -> None:
    worker = {"url": "http://10.0.0.7:8000/v1", "model": "poems-7b"}
    manifest = load_manifest(write(tmp_path, worker=worker))
    assert isinstance(manifest.worker, ExternalWorker)
    assert manifest.worker.model == "poems-7b"


def test_counter_examples_are_read_like_examples(tmp_path: Path) -> None:
    line = {"messages": [{"role": "user", "content": "What is prose?"}]}
    (tmp_path / "not.jsonl").write_text(json.dumps(line))
    for given in (["What is prose?"], "not.jsonl"):
        manifest = load_manifest(write(tmp_path, counter_examples=given))
        assert [e.messages[0].content for e in manifest.counter_examples] == ["What is prose?"]
    assert load_manifest(write(tmp_path)).counter_examples == ()
    with pytest.raises(ManifestError, match="counter_examples: cannot read"):
        load_manifest(write(tmp_path, counter_examples="missing.jsonl"))


def test_an_example_that_is_a_counter_example_too_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"poem about cats.* is an example and a counter"):
        load_manifest(write(tmp_path, counter_examples=[QUERIES[1]]))


def test_examples_may_stand_in_a_file(tmp_path: Path) -> None:
    lines = [{"messages": [{"role": "user", "content": query}]} for query in QUERIES]
    text = "\n".join(json.dumps(line) for line in lines)
    (tmp_path / "examples.jsonl").write_text(text + "\n\n")
    assert len(load_manifest(write(tmp_path, examples="examples.jsonl")).examples) == 5


def test_a_manifest_survives_the_registrys_json(tmp_path: Path) -> None:
    manifest = load_manifest(write(tmp_path))
    assert parse_manifest(manifest.model_dump(mode="json"), base=Path("/elsewhere")) == manifest


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "Poems!"}, "name: a name is up to 63 of a-z"),
        ({"name": "auto"}, "reserved"),
        ({"description": ""}, "description"),
        ({"worker": None}, "worker: give"),
        ({"worker": {"checkpoint": "w", "speed": 3}}, "worker.speed: there is no such key; there"),
        ({"worker": {"args": []}}, "worker.checkpoint: is missing"),
        ({"worker": {"checkpoint": "w", "replica": 3}}, "did you mean 'replicas'"),
        ({"worker": {"url": "http://a/v1"}}, "model"),
        ({"worker": {"url": "http://a/v1", "urls": ["http://b/v1"], "model": "m"}}, "either"),
        ({"worker": {"urls": [], "model": "m"}}, "either `url`, or `urls`"),
        ({"worker": {"urls": ["http://a/v1"] * 2, "model": "m"}}, "twice"),
        ({"worker": {"checkpoint": "w", "replicas": 0}}, "replicas"),
        ({"worker": {"checkpoint": "w", "replicas": 2, "bank": "math"}}, "a bank is one process"),
        ({"worker": {"checkpoint": "w", "bank": "Math!"}}, "bank"),
        ({"worker": {"checkpoint": "w", "bank": "math", "args": ["-x"]}}, "`args` are for a vLLM"),
        ({"examples": QUERIES[:4]}, "examples: give at least 5"),
        ({"example": QUERIES}, "example: there is no such key; did you mean 'examples'"),
        ({"examples": "."}, "is no file"),
        ({"examples": ["a cut emoji \ud83d"] * 5}, "lone surrogate"),
        ({"examples": None}, "examples: give a list"),
        ({"examples": "none.jsonl"}, "cannot read"),
        ({"examples": [{"messages": [{"role": "robot", "content": "x"}]}] * 5}, "role"),
        ({"examples": [{"messages": [{"role": "user", "content": " "}]}] * 5}, "user turn"),
        ({"licence": "MIT"}, "licence"),
    ],
)
def test_faults_are_refused_with_their_place(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(ManifestError, match=message) as caught:
        load_manifest(write(tmp_path, **change))
    assert str(tmp_path) in str(caught.value)


def test_a_malformed_line_is_refused_with_its_number(tmp_path: Path) -> None:
    (tmp_path / "examples.jsonl").write_text('{"messages": []}\n{oops\n')
    with pytest.raises(ManifestError, match="line 2: not JSON"):
        load_manifest(write(tmp_path, examples="examples.jsonl"))


def test_missing_and_broken_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="no expert manifest at"):
        load_manifest(tmp_path)
    (tmp_path / "expert.yaml").write_text("name: [")
    with pytest.raises(ManifestError, match="cannot be read as YAML"):
        load_manifest(tmp_path)
    (tmp_path / "expert.yaml").write_text("just text")
    with pytest.raises(ManifestError, match="a manifest is a mapping"):
        load_manifest(tmp_path)
