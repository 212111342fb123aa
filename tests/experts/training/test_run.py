"""`trivium ternary train` from end to end: results, resume after kill -9, refusals."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from transformers import AutoTokenizer, GenerationConfig

from experts.checkpoint import load_reference, read_checkpoint
from experts.errors import ExpertsError
from experts.starter.tokenizer import save_tokenizer
from experts.training.encoding import END_OF_TURN
from experts.training.folder import RunFolder
from experts.training.run import train
from experts.training.settings import Settings
from server import cli
from tests.experts.training.conftest import QUESTIONS, tiny_config, write_data, write_model

TRIVIUM = Path(sys.executable).with_name("trivium")


def run(model: Path, data: Path, out: Path, **changes: Any) -> None:
    given = {"steps": 3, "batch": 4, "held_out": 0.0, **changes}
    train(Settings(model, (data,), out, **given), Console(quiet=True))


def test_every_architecture_becomes_a_packed_checkpoint(
    any_model: Path, data: Path, tmp_path: Path
) -> None:
    out = tmp_path / "expert"
    run(any_model, data, out, held_out_file=data)
    checkpoint = read_checkpoint(out)
    assert len(checkpoint.layers) == 2 * 7
    assert checkpoint.config.model_type in any_model.name
    ids = torch.tensor([[2, 20, 1, 3]])
    assert load_reference(out)(input_ids=ids).logits.isfinite().all()
    assert (out / "loss.png").read_bytes().startswith(b"\x89PNG")
    card = (out / "README.md").read_text(encoding="utf-8")
    assert "4 learned, 4 held out" in card
    assert "held-out loss" in card


def test_four_examples_are_learned_by_heart(llama: Path, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "expert"
    run(llama, data, out, steps=150, learning_rate=5e-3, held_out_file=data)
    state = json.loads((tmp_path / "expert.training/checkpoint-150/trainer_state.json").read_text())
    losses = [line["eval_loss"] for line in state["log_history"] if "eval_loss" in line]
    assert losses[0] > 2
    assert losses[-1] < 0.05
    model, tokenizer = load_reference(out), AutoTokenizer.from_pretrained(out)
    for question, answer in QUESTIONS.items():
        prompt = tokenizer.apply_chat_template(
            [{"role": "user", "content": question}],
            add_generation_prompt=True,
            return_tensors="pt",
            return_dict=True,
        )["input_ids"]
        written = model.generate(prompt, max_new_tokens=20, do_sample=False)[0, prompt.shape[1] :]
        assert tokenizer.decode(written) == answer + "<|end|>"


def test_fresh_weights_and_a_tokenizer_without_template(data: Path, tmp_path: Path) -> None:
    """What LIMA does: the tokenizer gets an end-of-turn token, the embedding a row for it."""
    folder = tmp_path / "fresh"
    tiny_config("llama").save_pretrained(folder)
    save_tokenizer(folder)
    (folder / "chat_template.jinja").unlink()
    run(folder / "config.json", data, tmp_path / "out", preset="lima")
    checkpoint = read_checkpoint(tmp_path / "out")
    assert checkpoint.tensors["model.embed_tokens.weight"].shape[0] == 769
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert tokenizer.eos_token == END_OF_TURN
    assert "Assistant:" in tokenizer.chat_template
    ends = GenerationConfig.from_pretrained(tmp_path / "out").eos_token_id
    assert tokenizer.convert_tokens_to_ids(END_OF_TURN) in ends


def command(model: Path, data: Path, out: Path) -> list[str]:
    options = {"--out": out, "--preset": "lima", "--epochs": 9, "--batch": 2}
    arguments = ["save_steps=10", "eval_steps=7", "gradient_accumulation_steps=2"]
    return [
        *(str(TRIVIUM), "ternary", "train", str(model), str(data), "--held-out", "0.1"),
        *(str(part) for pair in options.items() for part in pair),
        *(part for argument in arguments for part in ("--set", argument)),
    ]


def main(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The command, in this process."""
    monkeypatch.setattr(sys, "argv", arguments)
    with pytest.raises(SystemExit) as done:
        cli.main()
    if done.value.code:
        raise RuntimeError(done.value.code)


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


@pytest.fixture
def many(tmp_path: Path) -> Path:
    return write_data(tmp_path / "many.jsonl", QUESTIONS, repeat=5)


@pytest.fixture
def _one_thread() -> Iterator[None]:
    """Sums of several threads may differ in the last bit."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("_one_thread")
def test_a_killed_run_goes_on_to_the_same_weights(
    llama: Path, many: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With residual dropout, accumulation, several passes and a checkpoint that was cut off."""
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    main(command(llama, many, whole), monkeypatch)
    process = subprocess.Popen(
        command(llama, many, killed), env=environment(), stdout=subprocess.PIPE, text=True
    )
    while not list(tmp_path.glob("killed.training/checkpoint-20/complete")):
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not killed.exists()
    cut_off = tmp_path / "killed.training/checkpoint-77"
    cut_off.mkdir()
    (cut_off / "model.safetensors").write_bytes(b"half")
    again = subprocess.run(
        command(llama, many, killed), env=environment(), check=True, capture_output=True, text=True
    )
    assert "going on from step" in again.stdout
    first, second = ((f / "model.safetensors").read_bytes() for f in (whole, killed))
    assert first == second
    histories = [
        json.loads((f / "checkpoint-41/trainer_state.json").read_text())["log_history"]
        for f in (tmp_path / "whole.training", tmp_path / "killed.training")
    ]
    losses = [[line.get("loss", line.get("eval_loss")) for line in lines] for lines in histories]
    assert losses[0] == losses[1]


def test_a_finished_run_is_not_trained_further(llama: Path, data: Path, tmp_path: Path) -> None:
    run(llama, data, tmp_path / "out", steps=3)
    first = (tmp_path / "out/model.safetensors").read_bytes()
    run(llama, data, tmp_path / "out", steps=3)
    assert (tmp_path / "out/model.safetensors").read_bytes() == first
    with pytest.raises(ExpertsError, match=r"other settings \(steps was 3, is 4\)"):
        run(llama, data, tmp_path / "out", steps=4)
    write_data(data, {"changed": "data"})
    with pytest.raises(ExpertsError, match="other settings \\(data was"):
        run(llama, data, tmp_path / "out", steps=3)


def test_two_do_not_train_in_one_folder(llama: Path, data: Path, tmp_path: Path) -> None:
    other = RunFolder(tmp_path / "out.training")
    other.begin({"another": "run"})
    with pytest.raises(ExpertsError, match="another process trains in"):
        run(llama, data, tmp_path / "out")
    other.end()
    run(llama, data, tmp_path / "out")


def test_folders_of_others_are_left_alone(llama: Path, data: Path, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full/letter.txt").write_text("dear")
    with pytest.raises(ExpertsError, match="not empty and not from a training run"):
        run(llama, data, tmp_path / "full")
    (tmp_path / "new.training").mkdir()
    (tmp_path / "new.training/letter.txt").write_text("dear")
    with pytest.raises(ExpertsError, match="holds no training run"):
        run(llama, data, tmp_path / "new")


def test_long_conversations_are_left_out_or_refused(llama: Path, tmp_path: Path) -> None:
    data = write_data(tmp_path / "d.jsonl", {**QUESTIONS, "long": "word " * 300})
    run(llama, data, tmp_path / "out")
    assert "1 left out (longer than 256 tokens)" in (tmp_path / "out/README.md").read_text()
    with pytest.raises(ExpertsError, match="every conversation is longer than 3 tokens"):
        run(llama, data, tmp_path / "other", max_length=3)


def test_lima_takes_few_examples(llama: Path, tmp_path: Path) -> None:
    data = write_data(tmp_path / "d.jsonl", QUESTIONS, repeat=251)
    with pytest.raises(ExpertsError, match="1004 conversations are more than the 1000"):
        run(llama, data, tmp_path / "out", preset="lima")


def test_models_that_cannot_be_trained(llama: Path, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(ExpertsError, match=r"no model folder or config\.json"):
        run(tmp_path / "nowhere", data, tmp_path / "a")
    run(llama, data, out)
    with pytest.raises(ExpertsError, match="quantized already"):
        run(out, data, tmp_path / "b")
    odd = write_model(tmp_path / "odd", intermediate_size=98)
    with pytest.raises(ExpertsError, match=r"mlp\.gate_proj has 98 outputs"):
        run(odd, data, tmp_path / "c")
    config = json.loads((llama / "config.json").read_text())
    (tmp_path / "gpt").mkdir()
    (tmp_path / "gpt/config.json").write_text(json.dumps({**config, "model_type": "gpt2"}))
    with pytest.raises(ExpertsError, match="gpt2 model; those that can be trained"):
        run(tmp_path / "gpt", data, tmp_path / "d")
    cut = write_model(tmp_path / "cut")
    weights = (cut / "model.safetensors").read_bytes()
    (cut / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    with pytest.raises(ExpertsError, match="holds no model that can be loaded"):
        run(cut, data, tmp_path / "e")


@pytest.mark.parametrize(
    "odd", [{"temperature": 0.9, "top_p": 0.6}, {"pad_token_id": -1}, {"early_stopping": True}]
)
def test_settings_of_generation_that_do_not_go_together_are_mended(
    llama: Path, data: Path, tmp_path: Path, odd: dict[str, Any]
) -> None:
    """transformers reads them, and refuses to write them: at the first save of a run."""
    source = tmp_path / "source"
    shutil.copytree(llama, source)
    (source / "generation_config.json").write_text(json.dumps({"eos_token_id": 1, **odd}))
    run(source, data, tmp_path / "out")
    written = json.loads((tmp_path / "out/generation_config.json").read_text())
    assert 1 in written["eos_token_id"]
    assert written.get("temperature") == odd.get("temperature")


def test_a_teacher_that_does_not_know_the_end_of_a_turn(
    llama: Path, data: Path, tmp_path: Path
) -> None:
    source = tmp_path / "source"
    shutil.copytree(llama, source)
    (source / "chat_template.jinja").unlink()
    with pytest.raises(ExpertsError, match=r"no chat template.*take --tokenizer"):
        run(source, data, tmp_path / "out", teacher=source)


def test_too_little_memory_or_disk(
    llama: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = type("Memory", (), {"available": 1000})
    with monkeypatch.context() as patch:
        patch.setattr("psutil.virtual_memory", lambda: memory)
        with pytest.raises(ExpertsError, match="GiB of memory"):
            run(llama, data, tmp_path / "a")
    with monkeypatch.context() as patch:
        patch.setattr("shutil.disk_usage", lambda path: type("Disk", (), {"free": 1000}))
        with pytest.raises(ExpertsError, match="choose an --out on a larger disk"):
            run(llama, data, tmp_path / "b")


def test_errors_are_one_sentence_at_the_command_line(
    llama: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    bad = tmp_path / "bad.jsonl"
    bad.write_text("{\n")
    with pytest.raises(RuntimeError, match="1"):
        main(["trivium", "ternary", "train", str(llama), str(bad), "--out", "x"], monkeypatch)
    assert capsys.readouterr().err.startswith(f"error: {bad} line 1: not JSON")
    assert not Path("x.training").exists()
