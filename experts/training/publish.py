"""The result of a run: packed checkpoint, tokenizer, generation config, model card, loss curve."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from experts.bitlinear import bit_linear_layers, swap_linear_layers
from experts.checkpoint import write_checkpoint
from experts.training.curve import draw_loss
from experts.training.models import Student
from experts.training.settings import Recipe, Settings
from experts.training.trainer import TrainingError

CURVE_FILE, CARD_FILE = "loss.png", "README.md"


@dataclass(frozen=True)
class Result:
    """A finished run and its last held-out loss (nats a token), if anything was held out."""

    settings: Settings
    recipe: Recipe
    student: Student
    data: Any
    trainer: Any
    held_out_loss: float | None


def publish(result: Result) -> None:
    """Write everything into `settings.out`, at once and whole. Raises ExpertsError."""
    model = whole_model(result.trainer)
    if model is None:
        return
    out = result.settings.out
    try:
        write_checkpoint(model, out, lambda folder: _write_extras(result, model, folder))
    except OSError as error:
        raise TrainingError(f"{out} could not be written: {error}") from None


def whole_model(trainer: Any) -> Any | None:
    """The trained model with all its weights, also where FSDP or DeepSpeed had divided them.
    None on every process but the first."""
    divided = trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled
    state = trainer.accelerator.get_state_dict(trainer.model_wrapped) if divided else None
    if not trainer.is_world_process_zero():
        return None
    model = trainer.accelerator.unwrap_model(trainer.model)
    if state is not None:
        config = model.config
        model = swap_linear_layers(AutoModelForCausalLM.from_config(config, dtype=torch.float32))
        model.load_state_dict(state, strict=False)
    return model


def _write_extras(result: Result, model: Any, folder: Path) -> None:
    tokenizer = result.student.tokenizer
    tokenizer.save_pretrained(folder)
    generation = model.generation_config
    end = tokenizer.convert_tokens_to_ids(result.student.end)
    others = generation.eos_token_id
    others = others if isinstance(others, list) else [] if others is None else [others]
    generation.eos_token_id = [end, *(token for token in others if token != end)]
    generation.save_pretrained(folder)
    title = f"{result.settings.out.name}: ternary training"
    draw_loss(result.trainer.state.log_history, title, folder / CURVE_FILE)
    (folder / CARD_FILE).write_text(_card(result, model), encoding="utf-8")


def _card(result: Result, model: Any) -> str:
    rows = "\n".join(f"| {name} | {value} |" for name, value in _facts(result, model).items())
    files = "\n".join(f"- `{file.name}`" for file in result.settings.data)
    return f"""# Model card: {result.settings.out.name}

A ternary model (BitNet b1.58: weights in {{-1, 0, 1}} with one scale a matrix, int8 activations),
in the `bitnet` format of Hugging Face. Made by `trivium ternary train`.

| | |
|---|---|
{rows}

Conversations from:

{files}

Learned are the assistant's turns, each with the token `{result.student.end}` after it.

![Loss curve]({CURVE_FILE})
"""


def _facts(result: Result, model: Any) -> dict[str, str]:
    settings, args = result.settings, result.trainer.args
    ternary = sum(layer.weight.numel() for _, layer in bit_linear_layers(model))
    data = result.data
    log = [line for line in result.trainer.state.log_history if "loss" in line]
    batch = args.per_device_train_batch_size * args.gradient_accumulation_steps * args.world_size
    facts = {
        "architecture": f"{type(model).__name__}, {ternary / 1e6:,.2f} million ternary weights",
        "start": f"`{settings.model.name}`",
        "conversations": f"{len(data.training)} learned, {len(data.held_out)} held out,"
        f" {data.dropped} left out (longer than {data.max_length} tokens)",
        "steps": f"{args.max_steps} of {batch} conversations",
        "optimizer": f"{args.optim.value}, β {args.adam_beta1} and {args.adam_beta2}, weight decay"
        f" {args.weight_decay}",
        "learning rate": f"{args.learning_rate}, {args.lr_scheduler_type.value}"
        f" {args.lr_scheduler_kwargs}, warm-up {args.warmup_steps}",
        "quantization": f"λ from 0 to 1 over the first {settings.warmup:.0%} of the run",
        "residual dropout": f"from 0.0 at the bottom layer to {result.recipe.residual_dropout}",
        "seed": f"{settings.seed}",
    }
    if settings.teacher is not None:
        terms = settings.distillation
        facts["teacher"] = (
            f"`{settings.teacher.name}`: logits × {terms.logits} at temperature"
            f" {terms.temperature}, relations × {terms.relations}, hidden states × {terms.hidden}"
        )
    if log:
        last = log[-1].get("cross_entropy", log[-1]["loss"])
        facts["training loss"] = f"{last:.4f} nats a token (cross-entropy, last logged steps)"
    if result.held_out_loss is not None:
        facts["held-out loss"] = f"{result.held_out_loss:.4f} nats a token (cross-entropy)"
    return facts
