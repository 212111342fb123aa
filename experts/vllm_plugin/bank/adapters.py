"""The folders that a bank is started with, and that vLLM takes for its adapters. No torch.

The base folder has the experts' configuration and tokenizer and no weights. An adapter's only
tensors name an expert: vLLM reads them as one LoRA pair of the module `expert_selector`.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from experts.errors import ExpertsError

SELECTOR = "expert_selector"
ARCHITECTURES = {
    "LlamaForCausalLM": "BankLlamaForCausalLM",
    "MistralForCausalLM": "BankMistralForCausalLM",
    "Qwen2ForCausalLM": "BankQwen2ForCausalLM",
    "Qwen3ForCausalLM": "BankQwen3ForCausalLM",
    "BitNetForCausalLM": "BankBitNetForCausalLM",
}
"""What serves experts of an architecture in a bank."""
COSMETIC = ("_name_or_path", "architectures", "dtype", "torch_dtype", "transformers_version")
"""Keys of a configuration that may differ between the experts of a bank."""
SHARED_FILES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
"""Files that must be the same for all experts of a bank: the engine has one of each."""
GENERATION_FILE = "generation_config.json"
"""Which tokens end an answer, and the defaults of sampling; the engine has one of each."""
NOT_SERVED = ("_from_model_config", "bos_token_id", "pad_token_id", "transformers_version")
"""Its keys that change no answer."""
OTHER_FILES = (GENERATION_FILE, "special_tokens_map.json", "vocab.json", "merges.txt")


class BankError(ExpertsError):
    """An expert that cannot be in a bank; the message says why, and what to do."""


def check_suitable(checkpoint: Path) -> str:
    """The architecture of an expert that can be in a bank. Raises BankError for others."""
    config = read_config(checkpoint)
    named = config.get("architectures")
    architecture = str(named[0]) if isinstance(named, list) and named else None
    if architecture not in ARCHITECTURES:
        raise BankError(
            f"{checkpoint}: a bank serves {', '.join(ARCHITECTURES)}, not {architecture};"
            " give this expert a worker of its own"
        )
    quantization = config.get("quantization_config")
    if not isinstance(quantization, dict) or quantization.get("quant_method") != "bitnet":
        raise BankError(
            f"{checkpoint} is not ternary; only ternary experts can be in a bank, others have a"
            " worker of their own"
        )
    if quantization.get("use_rms_norm"):
        raise BankError(
            f"{checkpoint} has use_rms_norm, which no bank serves; give this expert a worker of"
            " its own"
        )
    return architecture


def make_base(checkpoint: Path, folder: Path) -> None:
    """Write the folder that a bank for `checkpoint` and its like is started with.

    Raises BankError if experts of its architecture cannot be in a bank.
    """
    architecture = check_suitable(checkpoint)
    base = read_config(checkpoint) | {"architectures": [ARCHITECTURES[architecture]]}
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / "config.json", json.dumps(base, indent=2))
    for name in (*SHARED_FILES, *OTHER_FILES):
        if (checkpoint / name).exists():
            shutil.copyfile(checkpoint / name, folder / name)


def why_unlike(checkpoint: Path, base: Path) -> str | None:
    """Why the expert in `checkpoint` cannot be in the bank of `base`; None if it can."""
    own, bank = essence(read_config(checkpoint)), essence(read_config(base))
    for key in sorted(own.keys() | bank.keys()):
        if own.get(key) != bank.get(key):
            return f"its {key} is {own.get(key)!r}, the bank's {bank.get(key)!r}"
    for name in SHARED_FILES:
        if _digest(checkpoint / name) != _digest(base / name):
            return f"its {name} is not the bank's"
    if _generation(checkpoint) != _generation(base):
        return f"its {GENERATION_FILE} is not the bank's"
    return None


def make_adapter(checkpoint: Path, folder: Path) -> None:
    """Write the adapter that stands for the expert in `checkpoint`."""
    folder.mkdir(parents=True, exist_ok=True)
    path = str(checkpoint.absolute()).encode()
    prefix = f"base_model.model.{SELECTOR}"
    tensors = {
        f"{prefix}.lora_A.weight": np.frombuffer(path, np.uint8).astype(np.float32)[None, :],
        f"{prefix}.lora_B.weight": np.ones((1, 1), np.float32),
    }
    save_file(tensors, folder / "adapter_model.safetensors")
    adapter = {"peft_type": "LORA", "r": 1, "lora_alpha": 1, "target_modules": [SELECTOR]}
    _write(folder / "adapter_config.json", json.dumps(adapter))


def expert_path(lora_a: Any) -> Path | None:
    """The checkpoint that an adapter's first tensor names; None for vLLM's dummy adapters."""
    codes = [int(code) for code in lora_a.flatten().tolist()]
    return Path(bytes(codes).decode()) if codes and codes[0] else None


def read_config(folder: Path) -> dict[str, Any]:
    """The folder's config.json. Raises BankError."""
    return _read(folder / "config.json")


def _read(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise BankError(f"{file} cannot be read: {error}") from None
    if not isinstance(found, dict):
        raise BankError(f"{file} holds no JSON object")
    return found


def essence(config: dict[str, Any]) -> dict[str, Any]:
    """What of a configuration must be the same for all experts of a bank."""
    return {k: v for k, v in config.items() if k not in COSMETIC and v is not None}


def _generation(folder: Path) -> dict[str, Any]:
    """What a folder says about generation; a missing file says what config.json does."""
    file = folder / GENERATION_FILE
    found = {"eos_token_id": read_config(folder).get("eos_token_id")}
    if file.exists():
        found |= _read(file)
    return {key: value for key, value in found.items() if key not in NOT_SERVED}


def _digest(file: Path) -> str | None:
    return hashlib.sha256(file.read_bytes()).hexdigest() if file.exists() else None


def _write(file: Path, text: str) -> None:
    part = file.with_suffix(".part")
    part.write_text(text + "\n", encoding="utf-8")
    os.replace(part, file)
