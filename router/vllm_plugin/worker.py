"""Worker extension of the meta worker: what `collective_rpc` may call in every rank."""

from __future__ import annotations

from typing import Any

import torch
from safetensors.torch import load

from router.vllm_plugin.channel import CHANNEL


class ExpertTokenWorker:
    """Mixed into vLLM's worker class by `--worker-extension-cls`."""

    def trivium_head_version(self) -> str:
        """Version of the head in use; empty before the first push."""
        return str(self._trivium_model().expert_head_version)

    def trivium_set_head(self, payload: bytes, version: str) -> str:
        """Replace the head by `payload`: the bytes of a `router.head.Head`. Returns `version`."""
        self._trivium_model().set_expert_head(load(payload), version)
        return version

    def trivium_take_captures(self, keys: list[str]) -> list[tuple[list[int], bytes]]:
        """What is kept under each key: positions, and their rows as float32 bytes."""
        taken = []
        for key in keys:
            states = CHANNEL.take(key)
            positions = sorted(states)
            rows = [states[p] for p in positions]
            data = torch.stack(rows).numpy().tobytes() if rows else b""
            taken.append((positions, data))
        return taken

    def _trivium_model(self) -> Any:
        return self.model_runner.get_model()  # type: ignore[attr-defined]
