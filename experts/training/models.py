"""Student, teacher and tokenizer of a run."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import torch
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from experts.bitlinear import bit_linear_layers, swap_linear_layers
from experts.errors import ExpertsError
from experts.packing import VALUES_PER_BYTE
from experts.training.distillation import Distillation
from experts.training.encoding import END_OF_TURN, ensure_end_of_turn

MODEL_TYPES = ("llama", "mistral", "qwen2", "qwen3")
TRAINING_BYTES = 16
"""Bytes a parameter takes in float32: weight, gradient and two moments of AdamW."""


class ModelError(ExpertsError):
    """A model or tokenizer that cannot be trained or taught from."""


@dataclass(frozen=True)
class Student:
    """A causal LM with `BitLinear` layers in float32, its tokenizer, its end-of-turn token."""

    model: Any
    tokenizer: Any
    end: str


def load_student(source: Path, tokenizer_folder: Path | None, seed: int) -> Student:
    """From a checkpoint folder, a folder without weights, or a `config.json` (fresh weights).

    The embedding grows where the tokenizer has more tokens. Raises ModelError.
    """
    folder = source.parent if source.is_file() else source
    config = _load(AutoConfig, folder, "model configuration")
    _check_config(config, folder)
    tokenizer = _load(AutoTokenizer, tokenizer_folder or folder, "tokenizer")
    end = ensure_end_of_turn(tokenizer)
    torch.manual_seed(seed)
    if source.is_file() or not any(folder.glob("*.safetensors")):
        if any(folder.glob("*.bin")) and not source.is_file():
            raise ModelError(f"{folder} holds pickled weights; convert them to safetensors first")
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    else:
        model = _load(AutoModelForCausalLM, folder, "model", dtype=torch.float32)
    if len(tokenizer) > model.get_input_embeddings().num_embeddings:
        _quietly_resize(model, len(tokenizer))
    _check_shapes(swap_linear_layers(model), folder)
    _mend_generation(model)
    return Student(model, tokenizer, end)


def load_teacher(folder: Path, student: Student, distillation: Distillation) -> Any:
    """A full-precision causal LM with the student's vocabulary. Raises ModelError."""
    tokenizer = _load(AutoTokenizer, folder, "teacher's tokenizer")
    ours, theirs = student.tokenizer.get_vocab(), tokenizer.get_vocab()
    if ours != theirs:
        odd = sorted(ours.items() ^ theirs.items(), key=lambda item: item[1])[0][0]
        if odd == END_OF_TURN:
            raise ModelError(
                f"the student's tokenizer has no chat template, so it was given {END_OF_TURN} to"
                f" end a turn, which the teacher ({folder}) has never seen: take --tokenizer from a"
                " model whose chat template both know, such as the teacher's chat version"
            )
        raise ModelError(
            f"the vocabularies of teacher ({folder}, {len(theirs)} tokens) and student"
            f" ({len(ours)} tokens) differ, first at {odd!r}: logits can only be compared between"
            " models with one tokenizer"
        )
    dtype = torch.bfloat16 if torch.cuda.is_available() else torch.float32
    model = _load(AutoModelForCausalLM, folder, "teacher", dtype=dtype)
    if getattr(model.config, "model_type", None) not in MODEL_TYPES:
        raise ModelError(f"{folder}: a teacher is one of {', '.join(MODEL_TYPES)}")
    widths = student.model.config.hidden_size, model.config.hidden_size
    if distillation.hidden and widths[0] != widths[1]:
        raise ModelError(
            f"hidden states can only be compared between equal widths, not {widths[0]} (student)"
            f" and {widths[1]} (teacher): use --relations, which needs no equal widths"
        )
    return model


def check_memory(model: Any) -> None:
    """Refuse a run on the CPU that has no room for gradients and optimizer."""
    if torch.cuda.is_available():
        return
    parameters = sum(p.numel() for p in model.parameters())
    needed = parameters * (TRAINING_BYTES - 4)  # the weights are loaded already
    free = psutil.virtual_memory().available
    if needed > free:
        raise ModelError(
            f"training {parameters / 1e6:,.0f} million parameters needs another"
            f" {needed / 2**30:.1f} GiB of memory, {free / 2**30:.1f} GiB are free: take a smaller"
            " model, or a machine with more memory or GPUs"
        )


def _check_config(config: Any, folder: Path) -> None:
    if config.model_type not in MODEL_TYPES:
        raise ModelError(
            f"{folder} is a {config.model_type} model; those that can be trained are"
            f" {', '.join(MODEL_TYPES)}"
        )
    if getattr(config, "quantization_config", None) is not None:
        raise ModelError(
            f"{folder} is quantized already; training starts from full-precision weights"
        )


def _check_shapes(model: Any, folder: Path) -> None:
    for name, layer in bit_linear_layers(model):
        if layer.out_features % VALUES_PER_BYTE:
            raise ModelError(
                f"{folder}: {name} has {layer.out_features} outputs; the bitnet format packs only"
                f" multiples of {VALUES_PER_BYTE}"
            )


def _mend_generation(model: Any) -> None:
    """Many published models have settings of generation that transformers reads and then does not
    write, such as a temperature without `do_sample`."""
    config = model.generation_config
    if any(getattr(config, name, None) is not None for name in ("temperature", "top_p", "top_k")):
        config.do_sample = True
    try:
        config.validate(strict=True)
    except ValueError:
        ends = {"bos_token_id": config.bos_token_id, "eos_token_id": config.eos_token_id}
        model.generation_config = GenerationConfig(**ends)


def _quietly_resize(model: Any, tokens: int) -> None:
    """New rows lie around the mean of the old ones (transformers' default), without its advice."""
    logger = logging.getLogger("transformers.modeling_utils")
    level = logger.level
    logger.setLevel(logging.ERROR)
    model.resize_token_embeddings(tokens)
    logger.setLevel(level)


def _load(kind: Any, folder: Path, what: str, **options: Any) -> Any:
    if not folder.is_dir():
        raise ModelError(f"there is no model folder or config.json at {folder}")
    if kind is AutoModelForCausalLM:
        options["use_safetensors"] = True
    try:
        return kind.from_pretrained(folder, local_files_only=True, **options)
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
        reason = str(error).split("\n")[0]
        raise ModelError(f"{folder} holds no {what} that can be loaded: {reason}") from None
