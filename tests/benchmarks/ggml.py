"""llama.cpp's matrix products, through ctypes: its bundled ggml libraries, its C interface.

Nothing here is needed to run Trivium. The libraries come with the package `llama-cpp-python`, or
from any build of llama.cpp with shared libraries.
"""

from __future__ import annotations

import ctypes
from ctypes import POINTER, c_bool, c_char_p, c_float, c_int, c_int64, c_size_t, c_void_p
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import numpy.typing as npt

F32 = 0
"""`enum ggml_type`; these numbers are part of the GGUF format."""
TYPES = {"TQ2_0": 35, "Q4_0": 2}
DEQUANTIZE = {"TQ2_0": "dequantize_row_tq2_0", "Q4_0": "dequantize_row_q4_0"}
REPACK = b"CPU_REPACK"
CHUNK_WEIGHTS = 1 << 24


LogCallback = ctypes.CFUNCTYPE(None, c_int, c_char_p, c_void_p)


class _InitParams(ctypes.Structure):
    _fields_ = (("mem_size", c_size_t), ("mem_buffer", c_void_p), ("no_alloc", c_bool))


class _Plan(ctypes.Structure):
    """`struct ggml_cplan`; versions differ at its end, so there is room for more."""

    _fields_ = (
        ("work_size", c_size_t),
        ("work_data", c_void_p),
        ("n_threads", c_int),
        ("threadpool", c_void_p),
        ("abort_callback", c_void_p),
        ("abort_callback_data", c_void_p),
        ("later", c_void_p * 8),
    )


@dataclass(frozen=True)
class Quantized:
    """A matrix `[out, inputs]` in one of ggml's formats: `data` uint8, rows one after another."""

    kind: str
    out: int
    inputs: int
    data: npt.NDArray[np.uint8]

    @property
    def bytes_per_weight(self) -> float:
        return self.data.size / (self.out * self.inputs)


def find_libraries(folder: Path | None) -> Path | None:
    """The folder that holds libggml-base and libggml-cpu: `folder`, else that of the installed
    `llama_cpp`, else None."""
    if folder is None:
        package = find_spec("llama_cpp")
        if package is None or package.origin is None:
            return None
        folder = Path(package.origin).parent / "lib"
    return folder if (folder / "libggml-cpu.so").exists() else None


class Ggml:
    """The libraries of one folder."""

    def __init__(self, folder: Path) -> None:
        self.base = ctypes.CDLL(str(folder / "libggml-base.so"), mode=ctypes.RTLD_GLOBAL)
        self.cpu = ctypes.CDLL(str(folder / "libggml-cpu.so"), mode=ctypes.RTLD_GLOBAL)
        self._declare()
        self._log = LogCallback(lambda level, text, data: None)  # it tells of every tensor
        self.base.ggml_log_set(self._log, None)
        self.cpu.ggml_cpu_init()

    def quantize(self, kind: str, weight: npt.NDArray[np.int8], scale: float) -> Quantized:
        """`weight · scale`, int8 `[out, inputs]`, as llama.cpp's own quantizer stores it."""
        out, inputs = weight.shape
        row_bytes = self.base.ggml_row_size(TYPES[kind], inputs)
        data = np.empty(out * row_bytes, np.uint8)
        step = max(1, CHUNK_WEIGHTS // inputs)
        for first in range(0, out, step):
            rows = np.ascontiguousarray(weight[first : first + step], np.float32) * scale
            target = data[first * row_bytes :].ctypes.data
            self.base.ggml_quantize_chunk(
                TYPES[kind], rows.ctypes.data, target, 0, len(rows), inputs, None
            )
        return Quantized(kind, out, inputs, data)

    def dequantize(self, matrix: Quantized, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """What the stored `rows` stand for: float32 `[len(rows), inputs]`."""
        row_bytes = matrix.data.size // matrix.out
        values = np.empty((len(rows), matrix.inputs), np.float32)
        decode = getattr(self.base, DEQUANTIZE[matrix.kind])
        for i, row in enumerate(rows):
            source = matrix.data[int(row) * row_bytes :].ctypes.data
            decode(c_void_p(source), c_void_p(values[i].ctypes.data), c_int64(matrix.inputs))
        return values

    def repack_buffer_type(self) -> int | None:
        """The buffer whose tensors llama.cpp rearranges for this CPU, as at loading a model."""
        registry = self.cpu.ggml_backend_cpu_reg()
        found = self.base.ggml_backend_reg_get_proc_address(
            registry, b"ggml_backend_dev_get_extra_bufts"
        )
        if not found:
            return None
        extra = ctypes.CFUNCTYPE(POINTER(c_void_p), c_void_p)(found)
        types = extra(self.base.ggml_backend_reg_dev_get(registry, 0))
        i = 0
        while types[i]:
            if self.base.ggml_backend_buft_name(types[i]) == REPACK:
                return int(types[i])
            i += 1
        return None

    def _declare(self) -> None:
        """Argument and result types of the functions that are used."""
        pointer = c_void_p
        base = {
            "ggml_log_set": (None, LogCallback, pointer),
            "ggml_init": (pointer, _InitParams),
            "ggml_free": (None, pointer),
            "ggml_row_size": (c_size_t, c_int, c_int64),
            "ggml_tensor_overhead": (c_size_t,),
            "ggml_graph_overhead_custom": (c_size_t, c_size_t, c_bool),
            "ggml_new_tensor_2d": (pointer, pointer, c_int, c_int64, c_int64),
            "ggml_mul_mat": (pointer, pointer, pointer, pointer),
            "ggml_get_data": (pointer, pointer),
            "ggml_new_graph_custom": (pointer, pointer, c_size_t, c_bool),
            "ggml_build_forward_expand": (None, pointer, pointer),
            "ggml_quantize_chunk": (
                *(c_size_t, c_int, pointer, pointer),
                *(c_int64, c_int64, c_int64, pointer),
            ),
            "ggml_backend_reg_get_proc_address": (pointer, pointer, c_char_p),
            "ggml_backend_reg_dev_get": (pointer, pointer, c_size_t),
            "ggml_backend_buft_name": (c_char_p, pointer),
            "ggml_backend_alloc_ctx_tensors_from_buft": (pointer, pointer, pointer),
            "ggml_backend_buffer_free": (None, pointer),
            "ggml_backend_cpu_buffer_type": (pointer,),
            "ggml_backend_tensor_set": (None, pointer, pointer, c_size_t, c_size_t),
        }
        cpu = {
            "ggml_cpu_init": (None,),
            "ggml_backend_cpu_reg": (pointer,),
            "ggml_graph_plan": (_Plan, pointer, c_int, pointer),
            "ggml_graph_compute": (c_int, pointer, POINTER(_Plan)),
        }
        for library, functions in ((self.base, base), (self.cpu, cpu)):
            for name, (result, *arguments) in functions.items():
                function = getattr(library, name)
                function.restype, function.argtypes = result, arguments


class Weights:
    """Copies of one quantized matrix in ggml's memory, rearranged for this CPU where it can."""

    def __init__(self, ggml: Ggml, matrix: Quantized, copies: int) -> None:
        self._base = base = ggml.base
        size = base.ggml_tensor_overhead() * (copies + 1)
        self._context = base.ggml_init(_InitParams(size, None, True))
        self.tensors = [
            base.ggml_new_tensor_2d(self._context, TYPES[matrix.kind], matrix.inputs, matrix.out)
            for _ in range(copies)
        ]
        plain = base.ggml_backend_cpu_buffer_type()
        repacked = ggml.repack_buffer_type() if matrix.kind == "Q4_0" and matrix.out % 8 == 0 else 0
        self._buffer = base.ggml_backend_alloc_ctx_tensors_from_buft(
            self._context, repacked or plain
        )
        for tensor in self.tensors:
            base.ggml_backend_tensor_set(tensor, matrix.data.ctypes.data, 0, matrix.data.size)

    def __del__(self) -> None:
        self._base.ggml_backend_buffer_free(self._buffer)
        self._base.ggml_free(self._context)


class Products:
    """One graph: the products of `x` with the first `copies` of `weights`."""

    def __init__(
        self,
        ggml: Ggml,
        weights: Weights,
        shape: tuple[int, int],
        x: npt.NDArray[np.float32],
        copies: int,
        threads: int,
    ) -> None:
        """`shape` is `[out, inputs]`, `x` is `[tokens, inputs]`."""
        self._ggml, self._weights = ggml, weights
        base = ggml.base
        tokens, (out, inputs) = len(x), shape
        nodes = copies + 8
        size = base.ggml_graph_overhead_custom(nodes, False) + (1 << 20)
        size += copies * (base.ggml_tensor_overhead() + 4 * tokens * out + 64) + 4 * x.size
        self._context = base.ggml_init(_InitParams(size, None, False))
        source = base.ggml_new_tensor_2d(self._context, F32, inputs, tokens)
        x = np.ascontiguousarray(x)
        ctypes.memmove(base.ggml_get_data(source), x.ctypes.data, x.nbytes)
        self._graph = base.ggml_new_graph_custom(self._context, nodes, False)
        self._results = []
        for tensor in weights.tensors[:copies]:
            product = base.ggml_mul_mat(self._context, tensor, source)
            base.ggml_build_forward_expand(self._graph, product)
            self._results.append(product)
        self._plan = ggml.cpu.ggml_graph_plan(self._graph, threads, None)
        self._work = ctypes.create_string_buffer(max(1, self._plan.work_size))
        self._plan.work_data = ctypes.addressof(self._work)
        self._shape = (tokens, out)

    def run(self) -> None:
        status = self._ggml.cpu.ggml_graph_compute(self._graph, ctypes.byref(self._plan))
        if status != 0:
            raise RuntimeError(f"ggml_graph_compute failed with status {status}")

    def last(self) -> npt.NDArray[np.float32]:
        """The product with the last copy, `[tokens, out]`."""
        data = self._ggml.base.ggml_get_data(self._results[-1])
        pointer = ctypes.cast(data, POINTER(c_float))
        return np.ctypeslib.as_array(pointer, shape=self._shape).copy()

    def __del__(self) -> None:
        self._ggml.base.ggml_free(self._context)
