"""The C kernels (ternary.c), through ctypes: which ones this machine can run, and calling them.

The library is compiled when Trivium is installed. It has a C interface of two functions and
needs neither Python's nor torch's headers, so that it outlives both.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
from dataclasses import dataclass
from importlib.util import find_spec

import torch
from torch import Tensor

from experts.kernels.groups import Groups
from experts.kernels.slots import Slots, Weights

LIBRARY = "experts.kernels._ternary"
LARGE_PAGE = 1 << 21
DTYPES = {torch.float32: 0, torch.bfloat16: 1}


class _Linear(ctypes.Structure):
    """`struct linear` of ternary.c."""

    _fields_ = (
        ("path", ctypes.c_void_p),
        ("x", ctypes.c_void_p),
        ("packed", ctypes.c_void_p),
        ("gamma", ctypes.c_void_p),
        ("bias", ctypes.c_void_p),
        ("y", ctypes.c_void_p),
        ("tokens", ctypes.c_int64),
        ("inputs", ctypes.c_int64),
        ("outputs", ctypes.c_int64),
        ("dtype", ctypes.c_int64),
        ("threads", ctypes.c_int64),
        ("parallel", ctypes.c_void_p),
        ("order", ctypes.c_void_p),
        ("begin", ctypes.c_void_p),
        ("slot", ctypes.c_void_p),
        ("groups", ctypes.c_int64),
    )


@dataclass(frozen=True)
class Kernel:
    """One path of the library: `name` is portable, avx2, avx512vnni or neon."""

    name: str
    path: int
    library: ctypes.CDLL
    parallel: int | None

    def __call__(
        self, x: Tensor, packed: Tensor, gamma: Tensor, bias: Tensor | None = None
    ) -> Tensor:
        """`experts.kernels.ternary_linear` for CPU tensors of float32 or bfloat16, contiguous
        but for `x`. Raises ValueError for anything else: only addresses reach the library."""
        weights = Weights(packed, gamma, bias)
        weights.check(gamma.shape[-1], x.shape[-1])
        dtypes = {x.dtype} if bias is None else {x.dtype, bias.dtype}
        if x.dtype not in DTYPES or len(dtypes) > 1 or not (x.is_cpu and packed.is_cpu):
            raise ValueError(f"x (and bias) of {dtypes} on {x.device}, packed on {packed.device}")
        tokens = x.numel() // x.shape[-1]
        # one group: where it begins and ends, its slot; and what is in that slot
        alone = (ctypes.c_int64 * 6)(0, tokens, 0, *weights.addresses())
        at = ctypes.addressof(alone)
        return self._run(x, gamma.shape[-1], (at + 24, at + 32, at + 40), (None, at, at + 16, 1))

    def grouped(self, x: Tensor, slots: Slots, groups: Groups) -> Tensor:
        """`experts.kernels.grouped_ternary_linear`, under the same conditions."""
        slots.check(x, groups)
        if x.dtype not in DTYPES:
            raise ValueError(f"x is {x.dtype}; the kernel takes {', '.join(map(str, DTYPES))}")
        order, begin, used = groups.order, groups.begin, groups.slots
        batch = (order.data_ptr(), begin.data_ptr(), used.data_ptr(), used.numel())
        return self._run(x, slots.outputs, slots.pointers, batch)

    def _run(
        self,
        x: Tensor,
        outputs: int,
        weights: tuple[int, int, int],
        batch: tuple[int | None, int, int, int],
    ) -> Tensor:
        """`weights`: where the addresses of packed, gamma and bias stand, one for each slot;
        `batch`: addresses of order, begin and slot, and the number of groups."""
        x = x.contiguous()
        y = torch.empty((*x.shape[:-1], outputs), dtype=x.dtype)
        call = _Linear(
            self.path,
            x.data_ptr(),
            *weights,
            y.data_ptr(),
            x.numel() // x.shape[-1],
            x.shape[-1],
            outputs,
            DTYPES[x.dtype],
            torch.get_num_threads(),
            self.parallel,
            *batch,
        )
        if self.library.trivium_linear(ctypes.byref(call)):
            raise MemoryError("no memory for the activations of a ternary layer")
        return y


def load_kernels(file: str | None = None) -> list[Kernel]:
    """The paths that this machine can run, best first; none if the library was not compiled.

    `file` is another build of the library, for tests.
    """
    if file is None:
        spec = find_spec(LIBRARY)
        file = spec.origin if spec is not None else None
    if file is None:
        return []
    library = ctypes.CDLL(file)
    library.trivium_path.restype = ctypes.c_void_p
    library.trivium_path.argtypes = [ctypes.c_int, ctypes.POINTER(ctypes.c_char_p)]
    library.trivium_linear.argtypes = [ctypes.POINTER(_Linear)]
    parallel = _torch_threads()
    kernels = []
    name = ctypes.c_char_p()
    for index in range(8):
        path = library.trivium_path(index, ctypes.byref(name))
        if path is not None and name.value is not None:
            kernels.append(Kernel(name.value.decode(), path, library, parallel))
    return kernels


def empty_weights(rows: int, inputs: int) -> Tensor:
    """Uninitialized uint8 `[rows, inputs]`, in large pages where the system has them: decoding
    reads each weight once, and misses of the address cache cost up to a fifth of that."""
    size = rows * inputs
    if size < LARGE_PAGE or not hasattr(mmap, "MADV_HUGEPAGE"):
        return torch.empty((rows, inputs), dtype=torch.uint8)
    pages = mmap.mmap(-1, size + LARGE_PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    weights = torch.frombuffer(pages, dtype=torch.uint8)  # which keeps the pages
    begin = -weights.data_ptr() % LARGE_PAGE
    whole = size // LARGE_PAGE * LARGE_PAGE  # the rest in small pages: none is taken in vain
    with contextlib.suppress(OSError):  # a kernel without large pages
        pages.madvise(mmap.MADV_HUGEPAGE, 0, begin + whole)
    return weights[begin : begin + size].view(rows, inputs)


def _torch_threads() -> int | None:
    """Address of GOMP_parallel in the OpenMP runtime that torch runs on: its threads are there
    already, and a second set of them would fight for the cores. None where there is none."""
    for library in (None, "libgomp.so.1"):  # whatever is loaded; then torch's own
        try:
            function = ctypes.CDLL(library).GOMP_parallel
        except (OSError, AttributeError):
            continue
        return ctypes.cast(function, ctypes.c_void_p).value
    return None
