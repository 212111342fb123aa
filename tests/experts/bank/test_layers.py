"""Layers of a bank: what vLLM's own code does with them."""

from __future__ import annotations

from types import SimpleNamespace

import torch
from torch import nn

from experts.vllm_plugin.bank.layers import BankEmbeddingMethod
from experts.vllm_plugin.bank.step import Steps


def test_vllm_does_not_look_up_the_layers_own_table() -> None:
    """On CUDA with tensor parallelism it would: `VocabParallelEmbedding` decides so just before."""
    layer = nn.Module()
    layer.use_fused_embedding = True
    made = {"params_dtype": torch.float32, "weight_loader": SimpleNamespace()}
    BankEmbeddingMethod(Steps()).create_weights(layer, 4, [6], 4, 6, **made)
    assert layer.weight.shape == (6, 4)
    assert layer.use_fused_embedding is False
