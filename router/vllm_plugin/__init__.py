"""The vLLM side of the meta worker. The only modules of `router` that import vLLM."""

from __future__ import annotations

BASES = ("LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM")


def register() -> None:
    """Entry point `vllm.general_plugins`: make the expert-token architectures known to vLLM.

    Idempotent; imports nothing heavy (the model classes are named, not loaded).
    """
    from vllm import ModelRegistry

    known = ModelRegistry.get_supported_archs()
    for base in BASES:
        name = f"ExpertToken{base}"
        if name not in known:
            ModelRegistry.register_model(name, f"router.vllm_plugin.models:{name}")
