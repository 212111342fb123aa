"""Training of starter experts: exports at every save, resume, the length of a run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from experts.checkpoint import load_reference, read_checkpoint
from experts.starter import training
from experts.starter.arithmetic.data import examples
from experts.starter.model import model_from


@pytest.fixture(autouse=True)
def _one_thread() -> Any:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def train(monkeypatch: pytest.MonkeyPatch, folder: Path, *options: str) -> Path:
    arguments = ["--batch-tokens", "256", "--save-every", "3", "--device", "cpu", "--no-compile"]
    export = folder.with_name(folder.name + "-export")
    places = ["--folder", str(folder), "--export", str(export)]
    monkeypatch.setattr("sys.argv", ["train", *arguments, *places, *options])
    training.main("arithmetic", examples, "Trains.")
    return export


def test_a_stopped_run_goes_on_to_the_same_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train(monkeypatch, tmp_path / "whole", "--steps", "8")
    inner = training._Export.on_save

    def export_and_stop(self: Any, *args: Any, **kwargs: Any) -> None:
        inner(self, *args, **kwargs)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(training._Export, "on_save", export_and_stop)
        with pytest.raises(KeyboardInterrupt):
            train(patch, tmp_path / "stopped", "--steps", "8")
    stopped = tmp_path / "stopped-export"
    assert read_checkpoint(stopped).layers
    assert (stopped / "model.safetensors").read_bytes() != (
        whole / "model.safetensors"
    ).read_bytes()
    assert train(monkeypatch, tmp_path / "stopped", "--steps", "8") == stopped
    assert (stopped / "model.safetensors").read_bytes() == (
        whole / "model.safetensors"
    ).read_bytes()
    assert (tmp_path / "stopped" / "loss.png").exists()


def test_minutes_become_steps_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "run"
    train(monkeypatch, folder, "--minutes", "0.02")
    steps = json.loads((folder / "plan.json").read_text())["steps"]
    assert steps >= 1
    assert (folder / f"checkpoint-{steps}" / "complete").exists()
    monkeypatch.setattr(training, "_steps_in", lambda *_: pytest.fail("measured again"))
    train(monkeypatch, folder, "--minutes", "0.02")


def test_a_compiled_run_is_exported_as_any_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    export = train(monkeypatch, tmp_path / "run", "--steps", "3", "--compile", "--bf16")
    plain = train(monkeypatch, tmp_path / "plain", "--steps", "3", "--no-bf16")
    assert read_checkpoint(export).layers.keys() == read_checkpoint(plain).layers.keys()
    assert read_checkpoint(export).tensors.keys() == read_checkpoint(plain).tensors.keys()


def test_other_settings_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train(monkeypatch, tmp_path / "run", "--steps", "3")
    with pytest.raises(SystemExit, match="other settings"):
        train(monkeypatch, tmp_path / "run", "--steps", "3", "--learning-rate", "0.1")


def test_a_folder_of_something_else_is_not_written_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "run-export"
    package.mkdir()
    (package / "data.py").write_text("")
    with pytest.raises(SystemExit, match="another folder with --export"):
        train(monkeypatch, tmp_path / "run", "--steps", "3")
    assert [path.name for path in tmp_path.rglob("*")] == ["run-export", "data.py"]


def test_training_goes_on_from_another_experts_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = train(monkeypatch, tmp_path / "first", "--steps", "3")
    begun = model_from(first)
    ids = torch.randint(5, 700, (1, 24))
    with torch.no_grad():
        ours, wanted = begun(ids).logits, load_reference(first)(ids).logits
    assert torch.allclose(ours, wanted, atol=0.02 * float(wanted.abs().max()))
    second = train(monkeypatch, tmp_path / "second", "--steps", "3", "--from", str(first))
    assert read_checkpoint(second).layers
    plan = json.loads((tmp_path / "second" / "plan.json").read_text())
    assert plan["from"] == str(first)


def test_weights_of_another_architecture_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = train(monkeypatch, tmp_path / "first", "--steps", "3")
    config = json.loads((first / "config.json").read_text())
    config["rope_parameters"]["rope_theta"] = 7.0
    (first / "config.json").write_text(json.dumps(config))
    with pytest.raises(SystemExit, match="rope_parameters"):
        train(monkeypatch, tmp_path / "second", "--steps", "3", "--from", str(first))
