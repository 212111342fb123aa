"""vLLM's side of ternary experts: the quantization method "bitnet", the model BitNet."""

from __future__ import annotations


def register() -> None:
    """Register both with vLLM (entry point of `vllm.general_plugins`).

    vLLM calls this in every process, maybe more than once; it may be called any number of times.
    """
    from vllm.model_executor.layers.quantization import (
        get_quantization_config,
        register_quantization_config,
    )
    from vllm.model_executor.models import ModelRegistry

    from experts.vllm_plugin.bank.adapters import ARCHITECTURES
    from experts.vllm_plugin.quantization import METHOD, BitNetConfig

    try:
        registered = get_quantization_config(METHOD)
    except ValueError:  # vLLM does not know the method yet
        registered = None
    if registered is not BitNetConfig:
        register_quantization_config(METHOD)(BitNetConfig)
    models = {"BitNetForCausalLM": "experts.vllm_plugin.bitnet"}
    models |= dict.fromkeys(ARCHITECTURES.values(), "experts.vllm_plugin.bank.model")
    for name in models.keys() - ModelRegistry.get_supported_archs():
        ModelRegistry.register_model(name, f"{models[name]}:{name}")
