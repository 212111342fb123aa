"""`TernaryTrainer`: λ, the loss, the teacher's terms, what is saved."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy

from experts.bitlinear import bit_linear_layers, set_strength
from experts.starter.tokenizer import build_tokenizer
from experts.training.conversations import Conversation, Turn
from experts.training.distillation import Distillation
from experts.training.encoding import IGNORED, Row, collate, encode_conversation
from experts.training.models import ModelError, load_student, load_teacher
from experts.training.run import Data, build_trainer
from experts.training.settings import Settings, recipe
from experts.training.trainer import TernaryTrainer, TrainingError, strength_at
from tests.experts.training.conftest import write_model


def rows(*answers: str) -> list[Row]:
    return [
        encode_conversation(
            Conversation((Turn("user", "x"), Turn("assistant", answer)), "here"),
            build_tokenizer(),
            "<|end|>",
        )
        for answer in answers
    ]


def trainer(model: Path, folder: Path, **changes: Any) -> TernaryTrainer:
    settings = Settings(
        model, (Path("data"),), folder, **{"steps": 4, "held_out": 0.0, "batch": 2, **changes}
    )
    student = load_student(model, None, 0)
    data = Data(rows("a", "bb bb", "ccc", "d"), [], 0, 256)
    return build_trainer(settings, recipe(settings), student, data, folder)


def test_strength_rises_linearly() -> None:
    assert [strength_at(step, 4) for step in range(6)] == [0.0, 0.25, 0.5, 0.75, 1.0, 1.0]
    assert strength_at(0, 0) == 1.0


def test_strength_in_training(llama: Path, tmp_path: Path) -> None:
    run = trainer(llama, tmp_path, steps=8, warmup=0.5, arguments=("logging_steps=1",))
    seen: list[float] = []
    layer = next(layer for _, layer in bit_linear_layers(run.model))
    layer.register_forward_hook(lambda *_: seen.append(layer.strength.item()))
    run.train()
    assert seen == [0.0, 0.25, 0.5, 0.75, 1.0, 1.0, 1.0, 1.0]
    logged = [line["strength"] for line in run.state.log_history if "strength" in line]
    assert logged == seen


def test_the_loss_is_that_of_the_learned_tokens(llama: Path, tmp_path: Path) -> None:
    run = trainer(llama, tmp_path)
    batch = collate(rows("a", "a much longer answer with many words"), 0)
    with torch.no_grad():
        loss = run.compute_loss(run.model.eval(), dict(batch))
        run._learned.mask = None
        logits = run.model(input_ids=batch["input_ids"]).logits
    by_transformers = cross_entropy(
        logits[:, :-1].flatten(0, 1), batch["labels"][:, 1:].flatten(), ignore_index=IGNORED
    )
    assert loss.item() == pytest.approx(by_transformers.item(), rel=1e-5)


def test_accumulated_steps_weigh_every_token_the_same(llama: Path, tmp_path: Path) -> None:
    whole = trainer(llama, tmp_path / "a", steps=1, batch=4)
    parts = trainer(
        llama, tmp_path / "b", steps=1, batch=1, arguments=("gradient_accumulation_steps=4",)
    )
    parts.train_dataset._batch = 4  # the same rows in the step
    for run in (whole, parts):
        run.train()
    assert whole.state.log_history[0]["loss"] == pytest.approx(
        parts.state.log_history[0]["loss"], rel=1e-4
    )
    for a, b in zip(whole.model.parameters(), parts.model.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-4)


def test_embeddings_do_not_decay(llama: Path, tmp_path: Path) -> None:
    names = trainer(llama, tmp_path).get_decay_parameter_names(load_student(llama, None, 0).model)
    assert "model.layers.0.mlp.up_proj.weight" in names
    assert not [name for name in names if "embed" in name or "norm" in name]


def test_a_student_equal_to_its_teacher_has_nothing_to_learn_from_it(
    llama: Path, tmp_path: Path
) -> None:
    weights = Distillation(logits=1.0, relations=1.0, hidden=1.0)
    run = trainer(llama, tmp_path, teacher=llama, distillation=weights, steps=1, warmup=1.0)
    run.args.logging_steps = 1
    run.state.max_steps = 1
    run.current_gradient_accumulation_steps = 1
    set_strength(run.model, 0.0)
    run.compute_loss(run.model.train(), dict(collate(rows("one", "two two"), 0)))
    assert run._terms["cross_entropy"] > 1
    for name in ("logits", "relations", "hidden"):
        assert run._terms[name].item() == pytest.approx(0.0, abs=1e-6)
    set_strength(run.model, 1.0)
    run._terms.clear()
    run.compute_loss(run.model.train(), dict(collate(rows("one", "two two"), 0)))
    assert run._terms["logits"] > 1e-3
    assert run._terms["hidden"] > 1e-3


def test_every_architecture_learns_from_a_wider_teacher(any_model: Path, tmp_path: Path) -> None:
    kind = json.loads((any_model / "config.json").read_text())["model_type"]
    teacher = write_model(tmp_path / "teacher", kind, seed=1, hidden_size=128, num_hidden_layers=3)
    weights = Distillation(logits=1.0, relations=1.0)
    run = trainer(any_model, tmp_path / "run", teacher=teacher, distillation=weights, steps=3)
    before = [p.detach().clone() for p in run.model.parameters()]
    run.train()
    line = run.state.log_history[0]
    parts = line["cross_entropy"] + line["logits"] + line["relations"]
    assert line["loss"] == pytest.approx(parts, rel=1e-4)
    moved = [not torch.equal(a, b) for a, b in zip(before, run.model.parameters(), strict=True)]
    assert all(moved)


def test_unfit_teachers(llama: Path, tmp_path: Path) -> None:
    student = load_student(llama, None, 0)
    wider = write_model(tmp_path / "wider", hidden_size=128)
    with pytest.raises(ModelError, match=r"equal widths, not 64 \(student\) and 128"):
        load_teacher(wider, student, Distillation(hidden=1.0))
    other = write_model(tmp_path / "other")
    tokenizer = (other / "tokenizer.json").read_text(encoding="utf-8")
    changed = tokenizer.replace('"<|reserved_1|>"', '"<|else|>"')
    (other / "tokenizer.json").write_text(changed, encoding="utf-8")
    config = (other / "tokenizer_config.json").read_text(encoding="utf-8")
    (other / "tokenizer_config.json").write_text(config.replace("<|reserved_1|>", "<|else|>"))
    with pytest.raises(ModelError, match=r"vocabularies.*differ, first at '<\|(else|reserved_1)"):
        load_teacher(other, student, Distillation())


def test_a_loss_that_is_no_number_ends_the_run(llama: Path, tmp_path: Path) -> None:
    run = trainer(llama, tmp_path, arguments=("logging_steps=1",))
    next(iter(run.model.parameters())).data.fill_(float("nan"))
    with pytest.raises(TrainingError, match="no longer a number at step 1"):
        run.train()
