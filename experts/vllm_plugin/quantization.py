"""The quantization method "bitnet" of vLLM: which layers of a checkpoint are ternary, and how.

Stands on `quantization/base_config.py` of vLLM 0.32. What the settings mean is read from
`transformers/integrations/bitnet.py` and `transformers/quantizers/quantizer_bitnet.py`.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any, Literal

import torch
from vllm.model_executor.layers.linear import LinearBase, UnquantizedLinearMethod
from vllm.model_executor.layers.quantization.base_config import (
    QuantizationConfig,
    QuantizeMethodBase,
)
from vllm.model_executor.layers.vocab_parallel_embedding import (
    ParallelLMHead,
    VocabParallelEmbedding,
)
from vllm.platforms import current_platform

from experts.checkpoint import CheckpointError, Reader
from experts.vllm_plugin.bank.step import under_construction

METHOD = "bitnet"
LinearClass = Literal["bitlinear", "autobitlinear"]


class BitNetConfig(QuantizationConfig):  # type: ignore[misc]  # vLLM is untyped to mypy
    """The checkpoint's `quantization_config`.

    Attributes:
        linear_class: what `weight_scale` means: `bitlinear` divides by it, `autobitlinear`
            multiplies by it.
        online: the file holds unquantized weights, to be quantized while they are loaded.
        norm_eps: ε of the RMSNorm in front of every ternary layer; None if there is none.
        kept: names or patterns of layers that are not ternary; None for the head alone.
    """

    def __init__(
        self,
        linear_class: LinearClass,
        kept: list[str] | None,
        online: bool = False,
        norm_eps: float | None = None,
    ) -> None:
        super().__init__()
        self.linear_class = linear_class
        self.kept = kept
        self.online = online
        self.norm_eps = norm_eps
        self._unchecked: Path | None = None

    def get_name(self) -> str:
        return METHOD

    def get_supported_act_dtypes(self) -> list[torch.dtype]:
        return [torch.bfloat16, torch.float16, torch.float32]

    @classmethod
    def get_min_capability(cls) -> int:
        return 0

    @staticmethod
    def get_config_filenames() -> list[str]:
        return []

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> BitNetConfig:
        """Raises CheckpointError for settings that transformers does not have."""
        linear_class = config.get("linear_class", "bitlinear")
        if linear_class not in ("bitlinear", "autobitlinear"):
            raise CheckpointError(f"unknown linear_class {linear_class!r} in a bitnet checkpoint")
        mode = config.get("quantization_mode", "offline")
        if mode not in ("offline", "online"):
            raise CheckpointError(f"unknown quantization_mode {mode!r} in a bitnet checkpoint")
        # transformers' `bitlinear` is packed whatever the mode says
        online = (linear_class, mode) == ("autobitlinear", "online")
        norm_eps = config.get("rms_norm_eps", 1e-6) if config.get("use_rms_norm") else None
        return cls(linear_class, config.get("modules_to_not_convert"), online, norm_eps)

    @property
    def scales_bias(self) -> bool:
        """Whether a layer's scale also multiplies its bias, as it does in the forward pass of
        transformers' `AutoBitLinear` when the weights are packed."""
        return self.linear_class == "autobitlinear" and not self.online

    def maybe_update_config(
        self, model_name: str, hf_config: Any = None, revision: str | None = None
    ) -> None:
        """vLLM says which checkpoint it is; its files are checked when a worker builds layers,
        for here vLLM would wrap the error in its own. A model that was compiled for one kind of
        activations is not taken for the other: vLLM's cache of them looks at `hf_config`."""
        self._unchecked = Path(model_name)
        if hf_config is not None and current_platform.is_cuda():
            from experts.vllm_plugin.cuda import OPTION

            hf_config.trivium_ternary_activations = os.environ.get(OPTION, "int8")

    def get_quant_method(self, layer: Any, prefix: str) -> QuantizeMethodBase | None:
        """Ternary for linear layers, except those that the checkpoint keeps; None (vLLM's own,
        unquantized) for embeddings and the language-model head.

        Raises CheckpointError if a tensor is missing (of quantized checkpoints, vLLM does not ask
        that itself) or mis-shaped, or if the checkpoint is ternary where vLLM is not.
        """
        bank = under_construction()
        if bank is None and self._unchecked is not None and self._unchecked.is_dir():
            Reader(self._unchecked)
        self._unchecked = None
        if isinstance(layer, ParallelLMHead) and self._ternary_head(prefix):
            raise CheckpointError(f"{prefix} is ternary, which is not supported; keep it in bf16")
        if bank is not None and isinstance(layer, VocabParallelEmbedding):
            from experts.vllm_plugin.bank.layers import BankEmbeddingMethod

            return BankEmbeddingMethod(bank)
        if not isinstance(layer, LinearBase):
            return None
        return _linear_method(self) if self._is_ternary(prefix) else UnquantizedLinearMethod()

    def part_names(self, prefix: str) -> list[str]:
        """Names in the checkpoint of the layers that vLLM merged into the one called `prefix`."""
        parent, _, last = prefix.rpartition(".")
        parts = self.packed_modules_mapping.get(last, [last])
        return [f"{parent}.{part}" if parent else part for part in parts]

    def _is_ternary(self, prefix: str) -> bool:
        kept = {self._is_kept(name) for name in self.part_names(prefix)}
        if len(kept) > 1:
            raise CheckpointError(
                f"modules_to_not_convert keeps some of {self.part_names(prefix)} and not others,"
                " but vLLM computes them together; keep all of them or none"
            )
        return not kept.pop()

    def _is_kept(self, name: str) -> bool:
        """As `should_convert_module` in `transformers/quantizers/quantizers_utils.py`."""
        return any(re.match(key, name) or name.endswith(key) for key in self.kept or ())

    def _ternary_head(self, prefix: str) -> bool:
        return self.kept is not None and not self._is_kept(prefix)


def _linear_method(config: BitNetConfig) -> QuantizeMethodBase:
    bank = under_construction()
    if bank is not None:
        if current_platform.is_cuda():
            from experts.vllm_plugin.bank.cuda import CudaBankLinearMethod

            return CudaBankLinearMethod(config, bank)
        from experts.vllm_plugin.bank.layers import BankLinearMethod

        return BankLinearMethod(config, bank)
    if current_platform.is_cuda():
        from experts.vllm_plugin.cuda import CudaBitNetLinearMethod

        return CudaBitNetLinearMethod(config)
    from experts.vllm_plugin.linear import BitNetLinearMethod

    return BitNetLinearMethod(config)
