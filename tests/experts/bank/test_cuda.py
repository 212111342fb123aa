"""The bank on a GPU: as far as CPU tensors go with a humming that is a fake, and on a GPU."""

from __future__ import annotations

import sys
import weakref
from types import ModuleType
from typing import Any

import pytest
import torch

from experts.kernels import Groups, Slots, Weights, grouped_ternary_linear
from experts.kernels.humming import Room
from experts.packing import pack_rows, unpack_rows
from tests.experts.kernels.fake_humming import FakeHumming

pytest.importorskip("vllm")

from experts.vllm_plugin import cuda
from experts.vllm_plugin.bank.cuda import CudaBankLinearMethod, HummingPlaces, TorchPlaces
from experts.vllm_plugin.bank.host import PIECE, PinnedMemory, aside
from experts.vllm_plugin.bank.layers import BankLinearMethod, TablePlaces, Tensors
from experts.vllm_plugin.bank.step import Step, Steps
from experts.vllm_plugin.quantization import BitNetConfig
from experts.vllm_plugin.rows import ZEROS

CPU, H100 = torch.device("cpu"), torch.device("cuda:0")
GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
UTILITIES = "vllm.model_executor.layers.quantization.utils.humming"
PLACES, OUT, IN = 6, 48, 64
MIXED = [2, 0, 2, 4, 0, 2, 2, 2, 5, 2, 2]
"""The places of a batch's rows; 5 is empty."""
CONFIG = {"linear_class": "autobitlinear"}


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(cuda.OPTION, raising=False)
    cuda.activations.cache_clear()


def install(monkeypatch: pytest.MonkeyPatch) -> None:
    FakeHumming(monkeypatch)
    utilities: Any = ModuleType(UTILITIES)
    utilities.get_humming_linear_compute_config = lambda: '{"gemm_type": "dense"}'
    monkeypatch.setitem(sys.modules, UTILITIES, utilities)


def step(places: list[int], device: torch.device = CPU) -> Step:
    made = Step()
    made.begin(torch.tensor(places), len(places), lambda slots: slots, device)
    return made


def bank_layer(way: BankLinearMethod, whole: int = IN, has_bias: bool = False) -> Any:
    """A layer of one matrix as vLLM makes one, for a rank that has `IN` of `whole` inputs."""
    made = torch.nn.Module()
    made.prefix, made.output_size_per_partition, made.tp_rank = "m.o_proj", OUT, 0
    made.params_dtype = torch.bfloat16
    way.create_weights(made, IN, [OUT], whole, OUT, torch.bfloat16)
    made.bias = torch.nn.Parameter(torch.randn(OUT).bfloat16()) if has_bias else None
    return made


def load(made: Any, way: BankLinearMethod, tensors: Tensors) -> Tensors:
    made.loader.restart()
    made.weight.weight_loader(made.weight, tensors["weight"])
    made.weight_scale.weight_loader(made.weight_scale, tensors["gamma"][:1])
    return way.tensors(made)


def difference(places: Any, slots: Slots, device: torch.device = CPU) -> float:
    """Of a product from the oracle's, as a share of its norm."""
    x = torch.randn(len(MIXED), slots.inputs).bfloat16()
    expected = grouped_ternary_linear(x, slots, Groups.of(torch.tensor(MIXED))).float()
    y = places.product(x.to(device), step(MIXED, device)).cpu()
    assert y.dtype == x.dtype
    return float((y.float() - expected).norm() / expected.norm())


@pytest.mark.parametrize("installed", [True, False])
def test_a_layer_with_and_without_humming(monkeypatch: pytest.MonkeyPatch, installed: bool) -> None:
    if installed:
        install(monkeypatch)
    way = CudaBankLinearMethod(BitNetConfig.from_config(CONFIG), Steps())
    made = bank_layer(way, has_bias=True)
    made.bank = way.places(made, PLACES)
    assert isinstance(made.bank, HummingPlaces if installed else TorchPlaces)
    slots = Slots(PLACES, OUT, IN)
    for place in range(PLACES - 1):
        packed = pack_rows(torch.randint(-1, 2, (OUT, IN), dtype=torch.int8))
        gamma = torch.rand(1) + 0.1
        made.bank.put(place, load(made, way, {"weight": packed, "gamma": gamma}))
        bias = made.bias.data * gamma.bfloat16()
        slots.put(place, Weights(packed, gamma.expand(OUT).contiguous(), bias))
    assert difference(made.bank, slots) < (0.005 if installed else 1e-9)
    made.bank.clear(2)
    slots.clear(2)
    assert difference(made.bank, slots) < (0.005 if installed else 1e-9)


def test_columns_for_the_peak_are_zeros_in_fresh_memory() -> None:
    way = BankLinearMethod(BitNetConfig.from_config({"linear_class": "autobitlinear"}), Steps())
    made = bank_layer(way, whole=2 * IN)
    made.weight.data = torch.full_like(made.weight.data, 0xFF)
    values = torch.randint(-1, 2, (OUT, 2 * IN), dtype=torch.int8)
    tensors = load(made, way, {"weight": pack_rows(values), "gamma": torch.ones(1)})
    assert tensors["weight"][:, IN:].unique().tolist() == [ZEROS]
    assert torch.equal(unpack_rows(tensors["weight"], OUT)[:, :IN], values[:, :IN])


def table(rows: int = 10) -> Tensors:
    return {"weight": torch.randn(rows, 4)}


def copies(places: TablePlaces) -> int:
    return len({id(t) for t in places._tables if t is not places._empty})


def test_a_device_has_one_copy_of_each_table_in_use() -> None:
    """On the meta device: memory that is not the host's, without a GPU."""
    like = torch.empty(10, 4, device="meta")
    places = TablePlaces(4, like)
    common, own = table(), table()
    places.put(0, common)
    assert places.table(0).data_ptr() == like.data_ptr()  # the memory that was there already
    assert places.table(0).is_meta
    places.put(1, common)
    places.put(2, own)
    assert places.table(1) is places.table(0)
    assert copies(places) == 2
    assert places.common(step([0, 1])) is places.table(0)
    assert places.common(step([0, 2])) is None
    kept, gone = places.table(0), weakref.ref(places.table(2))
    places.clear(0)
    assert places.table(1) is kept
    places.put(1, own)
    assert copies(places) == 1
    assert places._kept is kept  # memory for the next table; what comes after that is let go
    places.clear(1)
    assert gone() is not None
    places.clear(2)
    assert gone() is None
    assert places._sources == [None] * 4


def test_on_the_cpu_a_place_has_the_table_itself() -> None:
    places = TablePlaces(2, torch.empty(10, 4))
    source = table()
    places.put(0, source)
    assert places.table(0) is source["weight"]
    places.clear(0)
    assert places._kept is None


def test_pinned_memory_is_taken_in_pieces() -> None:
    memory = PinnedMemory(1000, pin=False)
    tensors = [torch.randn(3, 5), torch.arange(7, dtype=torch.int32), torch.randn(2, 9).bfloat16()]
    held = [memory.hold(tensor) for tensor in tensors]
    assert all(torch.equal(a, b) for a, b in zip(held, tensors, strict=True))
    assert len({tensor.untyped_storage().data_ptr() for tensor in held}) == 1
    assert held[0].untyped_storage().nbytes() == 1024
    large = memory.hold(torch.ones(3000, dtype=torch.uint8))
    assert large.untyped_storage().data_ptr() != held[0].untyped_storage().data_ptr()
    assert torch.equal(held[0], tensors[0])
    assert PinnedMemory(10 * PIECE, pin=False)._piece == PIECE
    with aside(CPU):
        assert torch.equal(memory.hold(held[0]), tensors[0])


@GPU
def test_plain_torch_on_a_gpu() -> None:
    places = TorchPlaces(Room(PLACES, OUT, IN, False, torch.bfloat16, H100))
    slots = Slots(PLACES, OUT, IN)
    for place in range(PLACES - 1):
        packed = pack_rows(torch.randint(-1, 2, (OUT, IN), dtype=torch.int8))
        gamma = torch.rand(OUT) + 0.1
        places.put(place, {"weight": packed, "gamma": gamma})
        slots.put(place, Weights(packed, gamma))
    assert difference(places, slots, H100) < 1e-3


@GPU
def test_pinned_memory_on_a_gpu() -> None:
    memory = PinnedMemory(1 << 20)
    with aside(H100):
        there = torch.randn(1000, device=H100)
        held = memory.hold(there * 2)
    assert held.is_pinned()
    assert torch.equal(held, there.cpu() * 2)


@GPU
def test_tables_on_a_gpu() -> None:
    places = TablePlaces(3, torch.empty(10, 4, device=H100))
    common, own = table(), table()
    for place, tensors in enumerate((common, own, common)):
        places.put(place, tensors)
        assert torch.equal(places.table(place).cpu(), tensors["weight"])
    assert places.table(2) is places.table(0)
