"""`BitNetForCausalLM` (microsoft/bitnet-b1.58-2B-4T) on vLLM's layers: Llama with a norm before
each output projection and squared ReLU.

Source of the architecture: `transformers/models/bitnet/modeling_bitnet.py`. Built on
`vllm/model_executor/models/llama.py` of vLLM 0.32.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from vllm.model_executor.layers.activation import get_act_fn
from vllm.model_executor.layers.layernorm import RMSNorm
from vllm.model_executor.layers.linear import MergedColumnParallelLinear, RowParallelLinear
from vllm.model_executor.models.llama import (
    LlamaAttention,
    LlamaDecoderLayer,
    LlamaForCausalLM,
)

from experts.vllm_plugin.across_ranks import rms_norm


class BitNetAttention(LlamaAttention):  # type: ignore[misc]  # vLLM is untyped to mypy
    """Attention with a norm between the heads and the output projection."""

    def __init__(self, config: Any, **arguments: Any) -> None:
        super().__init__(config=config, **arguments)
        self.attn_sub_norm = rms_norm(config.hidden_size, config.rms_norm_eps)

    def forward(self, positions: Tensor, hidden_states: Tensor) -> Tensor:
        """`[tokens, hidden]` to `[tokens, hidden]`."""
        qkv, _ = self.qkv_proj(hidden_states)
        q, k, v = qkv.split([self.q_size, self.kv_size, self.kv_size], dim=-1)
        q, k = self.rotary_emb(positions, q, k)
        output: Tensor = self.o_proj(self.attn_sub_norm(self.attn(q, k, v)))[0]
        return output


class BitNetMLP(nn.Module):
    """Gated MLP with squared ReLU and a norm before the down projection."""

    def __init__(self, config: Any, quant_config: Any, prefix: str) -> None:
        super().__init__()
        self.gate_up_proj = MergedColumnParallelLinear(
            config.hidden_size,
            [config.intermediate_size] * 2,
            bias=False,
            quant_config=quant_config,
            prefix=f"{prefix}.gate_up_proj",
        )
        self.down_proj = RowParallelLinear(
            config.intermediate_size,
            config.hidden_size,
            bias=False,
            quant_config=quant_config,
            prefix=f"{prefix}.down_proj",
        )
        self.act_fn = get_act_fn(config.hidden_act)
        self.ffn_sub_norm = rms_norm(config.intermediate_size, config.rms_norm_eps)

    def forward(self, x: Tensor) -> Tensor:
        """`[tokens, hidden]` to `[tokens, hidden]`."""
        gate_up, _ = self.gate_up_proj(x)
        gate, up = gate_up.chunk(2, dim=-1)
        output: Tensor = self.down_proj(self.ffn_sub_norm(self.act_fn(gate) * up))[0]
        return output


class BitNetDecoderLayer(LlamaDecoderLayer):  # type: ignore[misc]
    """Llama's layer around BitNet's attention and MLP."""

    def __init__(self, vllm_config: Any, prefix: str = "", config: Any = None) -> None:
        nn.Module.__init__(self)  # LlamaDecoderLayer's own would build Llama's MLP
        config = config or vllm_config.model_config.hf_config
        quant_config = self.get_quant_config(vllm_config)
        self.hidden_size = config.hidden_size
        self.self_attn = BitNetAttention(
            config,
            hidden_size=config.hidden_size,
            num_heads=config.num_attention_heads,
            num_kv_heads=config.num_key_value_heads,
            max_position_embeddings=config.max_position_embeddings,
            quant_config=quant_config,
            bias=config.attention_bias,
            bias_o_proj=config.attention_bias,
            cache_config=vllm_config.cache_config,
            prefix=f"{prefix}.self_attn",
        )
        self.mlp = BitNetMLP(config, quant_config, f"{prefix}.mlp")
        self.input_layernorm = RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, eps=config.rms_norm_eps)


class BitNetForCausalLM(LlamaForCausalLM):  # type: ignore[misc]
    """The causal LM; embeddings, head, loading and pipeline parallelism are Llama's."""

    def __init__(
        self, *, vllm_config: Any, prefix: str = "", layer_type: Any = BitNetDecoderLayer
    ) -> None:
        super().__init__(vllm_config=vllm_config, prefix=prefix, layer_type=layer_type)
