"""Who multiplies a ternary matrix on the CPU: our kernel, torch's products, llama.cpp's formats.

Every contestant holds the same weights W = γ·W_q in its own format, is given float activations
and returns float products; each is checked against the weights it holds before it is timed.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import linear

from experts import kernels
from experts.kernels.native import empty_weights
from experts.packing import pack_rows
from experts.ternary import ternary_linear
from tests.benchmarks import ggml
from tests.benchmarks.timing import Job

OURS = "ternary (ours)"
GAMMA = 2.0**-5
"""The scale of every weight, exact in all formats."""
CHECKED_ROWS = 64
TOLERANCE = 0.02
"""Relative error (norm) allowed to those that round activations or weights; int8 and Q8_K
activations make about 0.01."""


class WrongProduct(Exception):
    """A contestant's product is not the product."""


class Loaded(Protocol):
    """A contestant that holds copies of one matrix."""

    name: str
    bytes_per_weight: float
    copies: int

    def job(self, x: Tensor, copies: int, threads: int) -> Job:
        """The products of x, float32 `[tokens, inputs]`, with the first `copies` copies."""
        ...

    def check(self, x: Tensor, values: Tensor) -> None:
        """Raises WrongProduct. `values` is W_q, int8 `[out, inputs]`."""
        ...


Loader = Callable[[Tensor, int], Loaded]
"""From W_q, int8 `[out, inputs]`, and the bytes that its copies must fill."""


@dataclass(frozen=True)
class Format:
    """A way to hold and multiply weights in torch: `pack` makes one copy, `prepare` turns float32
    activations into what `product` takes."""

    name: str
    bytes_per_weight: float
    pack: Callable[[Tensor], Any]
    prepare: Callable[[Tensor], Any]
    product: Callable[[Any, Any], Tensor]
    tolerance: float = TOLERANCE


class TorchLoaded:
    """Copies of one matrix in one of torch's formats, or in ours."""

    def __init__(self, way: Format, values: Tensor, least_bytes: int) -> None:
        self.name, self.bytes_per_weight, self._way = way.name, way.bytes_per_weight, way
        size = values.numel() * way.bytes_per_weight
        self.copies = copies_for(size, least_bytes)
        first = way.pack(values)
        self._weights = [first, *(_another(first, way, values) for _ in range(self.copies - 1))]

    def job(self, x: Tensor, copies: int, threads: int) -> Job:
        prepared, product, weights = self._way.prepare(x), self._way.product, self._weights[:copies]

        def run() -> None:
            torch.set_num_threads(threads)
            for weight in weights:
                product(prepared, weight)

        return Job(run, len(weights))

    def check(self, x: Tensor, values: Tensor) -> None:
        y = self._way.product(self._way.prepare(x), self._weights[-1]).float()
        rows = _some_rows(values)
        if self.name != OURS:
            _compare(self.name, y[:, rows], x @ (values[rows].float() * GAMMA).t(), self._way)
            return
        gamma = torch.full((len(rows),), GAMMA)
        if not torch.equal(y[:, rows], ternary_linear(x, values[rows], gamma)):
            raise WrongProduct(f"{OURS} is not equal to the reference for {list(values.shape)}")


class GgmlLoaded:
    """Copies of one matrix in one of llama.cpp's formats."""

    def __init__(self, library: ggml.Ggml, kind: str, values: Tensor, least_bytes: int) -> None:
        self.name = f"llama.cpp {kind}"
        self._library = library
        self._matrix = library.quantize(kind, values.numpy(), GAMMA)
        self.bytes_per_weight = self._matrix.bytes_per_weight
        self.copies = copies_for(self._matrix.data.size, least_bytes)
        self._weights = ggml.Weights(library, self._matrix, self.copies)

    def job(self, x: Tensor, copies: int, threads: int) -> Job:
        return Job(self._products(x, copies, threads).run, min(copies, self.copies))

    def check(self, x: Tensor, values: Tensor) -> None:
        products = self._products(x, self.copies, 1)
        products.run()
        rows = _some_rows(values)
        held = torch.from_numpy(self._library.dequantize(self._matrix, rows.numpy()))
        y = torch.from_numpy(products.last())[:, rows]
        _compare(self.name, y, x @ held.t())

    def _products(self, x: Tensor, copies: int, threads: int) -> ggml.Products:
        shape = (self._matrix.out, self._matrix.inputs)
        count = min(copies, self.copies)
        return ggml.Products(self._library, self._weights, shape, x.numpy(), count, threads)


def loaders(ggml_folder: Path | None) -> tuple[dict[str, Loader], dict[str, str]]:
    """Contestants of this machine, ours first, and why others are left out."""
    ways = {way.name: _torch_loader(way) for way in _torch_formats()}
    left_out: dict[str, str] = {}
    folder = ggml.find_libraries(ggml_folder)
    for kind in ggml.TYPES:
        if folder is None:
            left_out[f"llama.cpp {kind}"] = "its libraries are not here: name them with --ggml"
        else:
            ways[f"llama.cpp {kind}"] = _ggml_loader(ggml.Ggml(folder), kind)
    return ways, left_out


def copies_for(size: float, least_bytes: int) -> int:
    """How many copies of `size` bytes fill at least `least_bytes`."""
    return max(1, -int(-least_bytes // size))


def _torch_formats() -> list[Format]:
    formats = [
        Format(OURS, 0.25, _ours_pack, lambda x: x, _ours),
        Format("float32", 4, lambda w: w.float() * GAMMA, lambda x: x, linear, 1e-4),
        Format("bf16", 2, lambda w: w.bfloat16() * GAMMA, lambda x: x.bfloat16(), linear),
    ]
    engines = torch.backends.quantized.supported_engines
    if "onednn" in engines:
        formats.append(Format("int8 oneDNN", 1, _onednn_pack, _onednn_input, _onednn))
    if "fbgemm" in engines:
        formats.append(Format("int8 FBGEMM", 1, _fbgemm_pack, lambda x: x, _fbgemm))
    return formats


def _another(first: Any, way: Format, values: Tensor) -> Any:
    """One more copy: of its tensors if it is made of tensors, else packed again."""
    if isinstance(first, Tensor):
        return _copy(first)
    if isinstance(first, tuple):
        return tuple(map(_copy, first))
    return way.pack(values)


def _copy(tensor: Tensor) -> Tensor:
    """Packed ternary weights stand in large pages, as in the vLLM plugin."""
    if tensor.dtype == torch.uint8:
        return empty_weights(*tensor.shape).copy_(tensor)
    return tensor.clone()


def _ours_pack(values: Tensor) -> tuple[Tensor, Tensor]:
    return _copy(pack_rows(values)), torch.full((values.shape[0],), GAMMA)


def _ours(x: Tensor, weight: tuple[Tensor, Tensor]) -> Tensor:
    return kernels.ternary_linear(x, *weight)


def _onednn_pack(values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The packed weight, its scales and its zero points, one for each row."""
    rows = values.shape[0]
    packed = torch.ops.onednn.qlinear_prepack(values, None)
    return packed, torch.full((rows,), GAMMA), torch.zeros(rows, dtype=torch.int64)


def _onednn_input(x: Tensor) -> tuple[Tensor, float]:
    """uint8 around 128 and its scale: oneDNN's own product takes quantized activations, so that
    their quantization is not counted against it."""
    scale = float(x.abs().max()) / 127
    return (x / scale).round().add(128).clamp(0, 255).to(torch.uint8), scale


def _onednn(x: tuple[Tensor, float], weight: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    (x_q, scale), (packed, scales, zeros) = x, weight
    y: Tensor = torch.ops.onednn.qlinear_pointwise(
        *(x_q, scale, 128, packed, scales, zeros, None),
        *(1.0, 0, torch.float32, "none", [], ""),
    )
    return y


def _fbgemm_pack(values: Tensor) -> Any:
    torch.backends.quantized.engine = "fbgemm"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch means to drop these tensors some day
        quantized = torch._make_per_tensor_quantized_tensor(values, GAMMA, 0)
    return torch.ops.quantized.linear_prepack(quantized, None)


def _fbgemm(x: Tensor, weight: Any) -> Tensor:
    y: Tensor = torch.ops.quantized.linear_dynamic(x, weight, False)
    return y


def _torch_loader(way: Format) -> Loader:
    return lambda values, least_bytes: TorchLoaded(way, values, least_bytes)


def _ggml_loader(library: ggml.Ggml, kind: str) -> Loader:
    return lambda values, least_bytes: GgmlLoaded(library, kind, values, least_bytes)


def _some_rows(values: Tensor) -> Tensor:
    """At most CHECKED_ROWS rows, evenly spaced, the first and the last among them."""
    count = min(CHECKED_ROWS, values.shape[0])
    return torch.from_numpy(np.linspace(0, values.shape[0] - 1, count).astype(np.int64))


def _compare(name: str, y: Tensor, expected: Tensor, way: Format | None = None) -> None:
    error = float((y - expected).norm() / expected.norm())
    if not error < (way.tolerance if way else TOLERANCE):
        raise WrongProduct(f"{name} is off by {error:.3f} of the product's norm")
