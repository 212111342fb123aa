"""Loading one ternary layer: each tensor of the checkpoint, checked, into its place.

Nothing is unpacked: rows are copied from packed to packed, one tensor at a time, so that loading
takes little more memory than the packed model.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor

from experts.checkpoint import CheckpointError
from experts.packing import VALUES_PER_BYTE, PackingError, check_packed, pack
from experts.ternary import ternarize
from experts.vllm_plugin.rows import copy_rows

if TYPE_CHECKING:
    from experts.vllm_plugin.quantization import BitNetConfig

QKV = ("q", "k", "v")
Part = str | int | None
"""What vLLM calls a part of a merged layer; None for a layer that is whole."""


@dataclass(frozen=True)
class Matrix:
    """A packed matrix within a layer's `weight`: its first byte row, and its parts' rows."""

    top: int
    sizes: tuple[int, ...]

    @property
    def rows(self) -> int:
        """Rows of the matrix."""
        return sum(self.sizes)

    @property
    def height(self) -> int:
        """Byte rows of the matrix."""
        return -(-self.rows // VALUES_PER_BYTE)


class Loader:
    """The weight loaders of one layer (`sizes` are its parts' rows on this rank)."""

    def __init__(self, config: BitNetConfig, layer: Any, sizes: list[int], inputs: int) -> None:
        self.sizes = sizes
        self._config = config
        self._layer = layer
        self._inputs = inputs
        self._names = config.part_names(getattr(layer, "prefix", ""))
        self.restart()

    def restart(self) -> None:
        """Expect a checkpoint's tensors, all of them."""
        self._missing = {f"{name}.{tensor}" for name in self._names for tensor in self._tensors()}

    def load_weight(self, param: Tensor, loaded: Tensor, part: Part = None) -> None:
        """`loaded` is the part's whole matrix: packed, uint8 `[out/4, in]`; or, online, of a float
        dtype, `[out, in]`, to be quantized."""
        index = self._index(part)
        name = f"{self._names[index]}.weight"
        packed = self._packed(loaded, name, index)
        self._check_shape(packed, name, part, index)
        rank, size = self._rank(part), self.sizes[index]
        first = 0 if packed.shape[0] * VALUES_PER_BYTE == size else rank * size
        if packed.shape[1] != self._inputs:
            packed = packed.narrow(1, self._rank(None) * self._inputs, self._inputs)
        matrix, start = self._place(index)
        rows = param.data[matrix.top : matrix.top + matrix.height, : self._inputs]
        copy_rows(rows, start, packed.to(param.device), first, size)
        self._missing.discard(name)

    def load_scale(self, param: Tensor, loaded: Tensor, part: Part = None) -> None:
        """`loaded` is the part's `weight_scale`, one number; `param` gets γ."""
        index = self._index(part)
        name = f"{self._names[index]}.weight_scale"
        scale = float(loaded.float()) if loaded.numel() == 1 else 0.0
        if not 0.0 < scale < float("inf"):
            raise CheckpointError(f"{name} is not one positive number; the checkpoint is damaged")
        multiplies = self._config.linear_class == "autobitlinear"
        param.data[index] = scale if multiplies else 1.0 / scale
        self._missing.discard(name)

    def load_norm(self, param: Tensor, loaded: Tensor, part: Part = None) -> None:
        """`loaded` is the weight of the norm in front of the part, `[in]`."""
        index = self._index(part)
        name = f"{self._names[index]}.rms_norm.weight"
        if list(loaded.shape) != [self._layer.whole_inputs]:
            raise CheckpointError(
                f"{name} has shape {list(loaded.shape)} instead of [{self._layer.whole_inputs}]"
            )
        first = self._rank(None) * self._inputs if self._layer.split_input else 0
        param.data[index].copy_(loaded.narrow(0, first, self._inputs))
        self._missing.discard(name)

    def check_all_loaded(self) -> None:
        """Raises CheckpointError with the first tensor that the checkpoint did not hold."""
        if self._missing:
            raise CheckpointError(f"the checkpoint lacks the tensor {min(self._missing)}")

    def _tensors(self) -> list[str]:
        scale = [] if self._config.online else ["weight_scale"]
        norm = [] if self._config.norm_eps is None else ["rms_norm.weight"]
        return ["weight", *scale, *norm]

    def _packed(self, loaded: Tensor, name: str, index: int) -> Tensor:
        """The part's matrix, packed and checked; a full-precision one is quantized first."""
        if self._config.online and loaded.is_floating_point():
            values, gamma = ternarize(loaded)
            self._layer.weight_scale.data[index] = gamma
            loaded = pack(values)
        try:
            check_packed(loaded)
        except PackingError as error:
            raise CheckpointError(f"{name}: {error}") from None
        return loaded

    def _check_shape(self, packed: Tensor, name: str, part: Part, index: int) -> None:
        tp = int(getattr(self._layer, "tp_size", 1))
        whole = self.sizes[index]
        if not self._layer.split_input and self._is_column_split():
            whole = whole * tp // self._replicas(part)
        expected = [whole, self._layer.whole_inputs]
        if [VALUES_PER_BYTE * packed.shape[0], packed.shape[1]] != expected:
            raise CheckpointError(
                f"{name} is packed as {list(packed.shape)}, which is not a matrix {expected}"
            )

    def _is_column_split(self) -> bool:
        """Whether the layer's outputs are split over ranks (a replicated layer has no
        `output_size_per_partition`)."""
        return hasattr(self._layer, "output_size_per_partition")

    def _index(self, part: Part) -> int:
        if part is None:
            if len(self.sizes) > 1:
                raise CheckpointError(
                    f"{self._layer.prefix} is one tensor in the checkpoint, which is not supported;"
                    f" store {self._names} one by one"
                )
            return 0
        return part if isinstance(part, int) else QKV.index(part)

    def _place(self, index: int) -> tuple[Matrix, int]:
        """The matrix that holds a part, and the part's first row there."""
        matrices: list[Matrix] = self._layer.matrices
        if len(matrices) > 1:
            return matrices[index], 0
        return matrices[0], sum(self.sizes[:index])

    def _replicas(self, part: Part) -> int:
        """How many ranks hold the same rows of a part (of k and v, if heads are fewer)."""
        return getattr(self._layer, "num_kv_head_replicas", 1) if part in ("k", "v") else 1

    def _rank(self, part: Part) -> int:
        return int(getattr(self._layer, "tp_rank", 0)) // self._replicas(part)
