"""Every kernel gives the reference's bits: on this machine's paths and on emulated ones."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import experts.kernels
from experts.kernels.native import Kernel, empty_weights, load_kernels
from experts.packing import pack_rows
from experts.ternary import ternary_linear
from tests.packages import need

SOURCES = Path(experts.kernels.__file__).parent
LARGEST = [1e-7, 1.0, 1e4]


def check(kernel: Kernel, tokens: int, inputs: int, outputs: int, seed: int) -> None:
    """Random and extreme layers of a shape, both dtypes, with and without bias."""
    torch.manual_seed(seed)
    gamma = torch.rand(outputs) + 0.01
    for dtype in (torch.float32, torch.bfloat16):
        for values in (torch.randint(-1, 2, (outputs, inputs)), torch.ones(outputs, inputs)):
            weight = values.to(torch.int8)
            extreme = torch.full((tokens, inputs), -3.0)
            for x in (torch.randn(tokens, inputs) * LARGEST[seed % 3], extreme):
                bias = None if seed % 2 else torch.randn(outputs).to(dtype)
                y = kernel(x.to(dtype), pack_rows(weight), gamma, bias)
                assert torch.equal(y, ternary_linear(x.to(dtype), weight, gamma, bias))


def names(kernels: list[Kernel]) -> list[str]:
    return [kernel.name for kernel in kernels]


def test_the_library_was_compiled() -> None:
    assert "portable" in names(load_kernels())
    assert experts.kernels.active() == load_kernels()[0].name


@pytest.mark.parametrize("kernel", load_kernels(), ids=names(load_kernels()))
@settings(max_examples=25, deadline=None)
@given(
    tokens=st.integers(1, 9),
    inputs=st.one_of(st.integers(1, 200), st.integers(1, 2600)),
    outputs=st.integers(1, 150),
    seed=st.integers(0, 99),
)
def test_bits_of_the_reference(
    kernel: Kernel, tokens: int, inputs: int, outputs: int, seed: int
) -> None:
    check(kernel, tokens, inputs, outputs, seed)


@pytest.mark.parametrize("kernel", load_kernels(), ids=names(load_kernels()))
@pytest.mark.parametrize("threads", [1, 2, 5])
def test_any_number_of_threads(kernel: Kernel, threads: int) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        check(kernel, tokens=130, inputs=515, outputs=1027, seed=0)
    finally:
        torch.set_num_threads(before)


def test_paths_of_other_machines_through_an_emulator(tmp_path: Path) -> None:
    need("libsimde-dev", "/usr/include/simde/x86/avx512.h")
    library = tmp_path / "ternary.so"
    flags = ["-O2", "-march=native", "-ffp-contract=off", "-fno-math-errno", "-w", "-Wno-psabi"]
    command = ["gcc", *flags, "-DTRIVIUM_EMULATE", "-shared", "-fPIC", "-o", str(library)]
    sources = [str(path) for path in sorted(SOURCES.glob("*.c"))]
    subprocess.run([*command, *sources, "-lm"], check=True)
    kernels = load_kernels(str(library))
    assert {"avx512vnni", "neon"} <= set(names(kernels))
    for kernel in kernels:
        for seed, (tokens, inputs, outputs) in enumerate(
            [(1, 2560, 48), (1, 77, 5), (2, 128, 30), (3, 191, 9), (4, 64, 8), (9, 1100, 33)]
        ):
            check(kernel, tokens, inputs, outputs, seed)


def test_leading_dimensions_empty_batches_and_strides() -> None:
    weight, gamma = torch.randint(-1, 2, (12, 64), dtype=torch.int8), torch.ones(12)
    packed = pack_rows(weight)
    x = torch.randn(64, 6).t().reshape(2, 3, 64)
    assert torch.equal(
        experts.kernels.ternary_linear(x, packed, gamma), ternary_linear(x, weight, gamma)
    )
    assert experts.kernels.ternary_linear(x[:0], packed, gamma).shape == (0, 3, 12)
    strided = torch.randn(4, 128)[:, ::2]
    expected = ternary_linear(strided, weight, gamma)
    assert torch.equal(experts.kernels.ternary_linear(strided, packed, gamma), expected)


def test_weights_in_large_pages() -> None:
    weights = empty_weights(1024, 4096)
    assert weights.shape == (1024, 4096)
    assert int(weights.fill_(1).sum(dtype=torch.int64)) == weights.numel()
    assert empty_weights(0, 3).shape == (0, 3)


def test_half_precision_is_widened() -> None:
    weight, gamma = torch.randint(-1, 2, (8, 32), dtype=torch.int8), torch.ones(8)
    x, bias = torch.randn(2, 32).half(), torch.randn(8).half()
    y = experts.kernels.ternary_linear(x, pack_rows(weight), gamma, bias)
    assert y.dtype == torch.float16
    assert torch.allclose(y, ternary_linear(x, weight, gamma, bias), rtol=2e-3)


def test_not_a_number_stays_one_in_its_row() -> None:
    x = torch.randn(2, 64)
    x[1, 3] = float("nan")
    packed = pack_rows(torch.randint(-1, 2, (8, 64), dtype=torch.int8))
    for kernel in load_kernels():
        y = kernel(x, packed, torch.ones(8))
        assert y[0].isfinite().all()
        assert y[1].isnan().all()


def test_the_operator_traces() -> None:
    weight, gamma = torch.randint(-1, 2, (8, 32), dtype=torch.int8), torch.ones(8)
    packed, x = pack_rows(weight), torch.randn(2, 32)
    compiled = torch.compile(
        lambda x: experts.kernels.ternary_linear(x, packed, gamma) + 1, backend="aot_eager"
    )
    assert torch.equal(compiled(x), ternary_linear(x, weight, gamma) + 1)


@pytest.mark.parametrize(
    ("x", "packed", "gamma"),
    [
        (torch.zeros(1, 31), torch.zeros(2, 32, dtype=torch.uint8), torch.ones(8)),
        (torch.zeros(1, 32), torch.zeros(2, 32, dtype=torch.uint8), torch.ones(9)),
        (torch.zeros(1, 32), torch.zeros(2, 32, dtype=torch.int8), torch.ones(8)),
        (torch.zeros(1, 32), torch.zeros(32, 2, dtype=torch.uint8).t(), torch.ones(8)),
        (torch.zeros(1, 32), torch.zeros(2, 32, dtype=torch.uint8), torch.ones(8).double()),
    ],
)
def test_what_does_not_fit_is_refused(
    x: torch.Tensor, packed: torch.Tensor, gamma: torch.Tensor
) -> None:
    with pytest.raises(ValueError, match="do not fit"):
        experts.kernels.ternary_linear(x, packed, gamma)
