"""The grouped product of humming: on the CPU with one that is a fake, and on a GPU, where nothing
but torch and humming need be installed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
import torch

from experts.kernels import Groups, Slots, Weights, grouped_ternary_linear
from experts.kernels.blocks import Blocks, send
from experts.kernels.humming import Activations, GpuSlots, Room, words
from experts.packing import pack_rows
from tests.experts.kernels.fake_humming import FakeHumming

CPU = torch.device("cpu")
GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
H100 = torch.device("cuda:0")
PLACES, OUT, IN = 6, 48, 64
MIXED = [2, 0, 2, 4, 0, 2, 2, 2, 5, 2, 2]
"""The places of a batch's rows; 5 is empty."""


@dataclass
class Rows:
    """A batch whose rows have the experts in `places`, as a step of a bank has them."""

    places: list[int]
    device: torch.device = CPU
    made: dict[int, Blocks] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.groups = Groups.of(torch.tensor(self.places))

    def blocks(self, size: int) -> Blocks:
        if size not in self.made:
            self.made[size] = Blocks.of(self.groups, size, self.device)
        return self.made[size]


@pytest.fixture
def humming(monkeypatch: pytest.MonkeyPatch) -> FakeHumming:
    return FakeHumming(monkeypatch)


def room(device: torch.device = CPU, has_bias: bool = True, **other: Any) -> Room:
    sizes = {"count": PLACES, "outputs": OUT, "inputs": IN} | other
    return Room(**sizes, has_bias=has_bias, dtype=torch.bfloat16, device=device)


def matrix(seed: int, made: Room) -> Weights:
    torch.manual_seed(seed)
    values = torch.randint(-1, 2, (made.outputs, made.inputs), dtype=torch.int8)
    bias = torch.randn(made.outputs, dtype=made.dtype) if made.has_bias else None
    return Weights(pack_rows(values), torch.rand(made.outputs) + 0.1, bias)


def fill(slots: GpuSlots, made: Room) -> Slots:
    """Matrices in all slots but the last, and the same in the reference's."""
    reference = Slots(made.count, made.outputs, made.inputs)
    for place in range(made.count - 1):
        slots.put(place, slots.prepare(matrix(place, made)))
        reference.put(place, matrix(place, made))
    return reference


def difference(
    slots: GpuSlots, reference: Slots, places: list[int], device: torch.device = CPU
) -> float:
    """Of a product from the oracle's, as a share of its norm."""
    x = torch.randn(len(places), reference.inputs).bfloat16()
    rows = Rows(places, device)
    expected = grouped_ternary_linear(x, reference, rows.groups).float()
    y = slots.product(x.to(device), rows).cpu()
    assert y.dtype == x.dtype
    return float((y.float() - expected).norm() / expected.norm())


@pytest.mark.parametrize("signed", [False, True])
def test_packing_for_humming(signed: bool) -> None:
    values = torch.randint(-1, 2, (32, 64), dtype=torch.int8)
    packed = words(pack_rows(values), 32, signed)
    assert (packed.shape, packed.dtype) == ((32, 4), torch.int32)
    codes = {-1: 3, 0: 0, 1: 1} if signed else {-1: 1, 0: 2, 1: 3}
    for column in range(64):
        found = packed[:, column // 16] >> 2 * (column % 16) & 3
        assert found.tolist() == [codes[value] for value in values[:, column].tolist()]
    with pytest.raises(ValueError, match="no matrix"):
        words(pack_rows(values[:30]), 30, signed)


@pytest.mark.parametrize("has_bias", [False, True])
@pytest.mark.parametrize("places", [MIXED, [3], [1] * 20, [0, 1, 2, 3, 4] * 30])
def test_each_row_has_its_own_weights(
    humming: FakeHumming, places: list[int], has_bias: bool
) -> None:
    made = room(has_bias=has_bias)
    slots = GpuSlots(made, "int8")
    assert difference(slots, fill(slots, made), places) < 0.005


def test_an_empty_slot_gives_zeros(humming: FakeHumming) -> None:
    made = room()
    slots = GpuSlots(made, "int8")
    fill(slots, made)
    x = torch.randn(2, IN).bfloat16()
    y = slots.product(x, Rows([PLACES - 1, 0]))
    assert y[0].count_nonzero() == 0
    assert y[1].count_nonzero() > 0
    slots.clear(0)
    assert slots.product(x, Rows([0, 0])).count_nonzero() == 0


def test_activations_as_they_are(humming: FakeHumming) -> None:
    made = room()
    slots = GpuSlots(made, "bf16")
    assert difference(slots, fill(slots, made), MIXED) < 0.02  # the oracle rounds them to int8


def test_what_humming_cannot_serve_is_refused(humming: FakeHumming) -> None:
    with pytest.raises(ValueError, match=r"no kernel for torch\.float32"):
        GpuSlots(Room(2, OUT, IN, False, torch.float32, CPU), "int8")
    with pytest.raises(ValueError, match="no matrix"):
        GpuSlots(room(outputs=40), "int8")


def test_a_swap_copies_and_does_nothing_else(humming: FakeHumming) -> None:
    made = room()
    slots = GpuSlots(made, "int8")
    reference, comer = fill(slots, made), matrix(99, made)
    prepared = slots.prepare(comer)
    done = humming.transformed
    memory = {name: stack.data_ptr() for name, stack in slots._stacks.items()}
    slots.put(2, prepared)
    reference.put(2, comer)
    assert humming.transformed == done
    assert {name: stack.data_ptr() for name, stack in slots._stacks.items()} == memory
    assert {n: t.shape for n, t in prepared.items()} == {
        n: stack.shape[1:] for n, stack in slots._stacks.items()
    }
    assert difference(slots, reference, MIXED) < 0.005


def test_tiles_fit_the_rows_of_the_experts_in_use(humming: FakeHumming) -> None:
    """humming reckons with rows spread over all experts: with few in use, each has more."""
    slots = GpuSlots(room(count=16), "int8")
    x = torch.randn(8, IN).bfloat16()
    for places in ([3] * 4 + [9] * 4, [7] * 8, [*range(8)]):
        slots.product(x, Rows(places))
    assert [call["valid_shape_m"] for call in humming.calls] == [64, 128, 16]
    assert [len(call["sorted_ids"]) for call in humming.calls] == [16, 16, 64]


def test_layers_share_a_batchs_table(humming: FakeHumming) -> None:
    one, other = GpuSlots(room(), "int8"), GpuSlots(room(outputs=32), "int8")
    x, rows = torch.randn(len(MIXED), IN).bfloat16(), Rows(MIXED)
    one.product(x, rows)
    other.product(x, rows)
    first, second = humming.calls
    assert first["sorted_ids"] is second["sorted_ids"]


def test_blocks_are_those_of_moe_align_block_size() -> None:
    """The example in the docstring of vLLM's `moe_align_block_size`, one row for each pair."""
    chosen = torch.tensor([2, 3, 4, 1, 2, 4, 1, 3, 4, 1, 2, 3])
    blocks = Blocks.of(Groups.of(chosen), 4, CPU)
    assert blocks.rows.tolist() == [3, 6, 9, 12, 0, 4, 10, 12, 1, 7, 11, 12, 2, 5, 8, 12]
    assert blocks.places.tolist() == [1, 2, 3, 4]
    assert blocks.padded.tolist() == [16]
    long = Blocks.of(Groups.of(torch.tensor([7] * 9 + [3])), 4, CPU)
    assert long.rows.tolist() == [9, 10, 10, 10, 0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 10, 10]
    assert long.places.tolist() == [3, 7, 7, 7]


def test_what_is_there_is_not_sent() -> None:
    tensor = torch.ones(3)
    assert send(tensor, CPU) is tensor


@GPU
@pytest.mark.parametrize("activations", ["int8", "bf16"])
@pytest.mark.parametrize("has_bias", [False, True])
@pytest.mark.parametrize("inputs", [256, 320])  # 320 is padded, as are the peak's columns
def test_on_a_gpu(inputs: int, has_bias: bool, activations: Activations) -> None:
    pytest.importorskip("humming")
    made = room(H100, has_bias=has_bias, outputs=768, inputs=inputs)
    slots = GpuSlots(made, activations)
    reference = fill(slots, made)
    tolerance = 0.005 if activations == "int8" else 0.02
    for places in (MIXED, [3], [1] * 20, [0, 1, 2, 3, 4] * 30, [0] * 300 + [1] * 5):
        assert difference(slots, reference, places, H100) < tolerance, places


@GPU
def test_an_empty_slot_gives_zeros_on_a_gpu() -> None:
    pytest.importorskip("humming")
    slots = GpuSlots(room(H100, outputs=256, inputs=256), "int8")
    x = torch.randn(3, 256).bfloat16().to(H100)
    assert slots.product(x, Rows([0, 1, 1], H100)).count_nonzero() == 0


@GPU
def test_nothing_waits_for_the_gpu() -> None:
    """Neither products nor swaps, which come between the products before and after them."""
    pytest.importorskip("humming")
    made = room(H100, outputs=768, inputs=256)
    slots, places = GpuSlots(made, "int8"), [0] * 40 + [1] * 24
    fill(slots, made)
    comers = [matrix(seed, made) for seed in range(50, 54)]
    held = [{n: t.cpu().pin_memory() for n, t in slots.prepare(w).items()} for w in comers]
    x = torch.randn(64, 256).bfloat16()
    on_gpu = x.to(H100)
    slots.product(on_gpu, Rows(places, H100))  # compiles
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        answers = []
        for tensors in held:
            slots.put(1, tensors)
            answers.append(slots.product(on_gpu, Rows(places, H100)))
    finally:
        torch.cuda.set_sync_debug_mode("default")
    for comer, y in zip(comers, answers, strict=True):
        own = Slots(1, made.outputs, made.inputs)
        own.put(0, comer)
        expected = grouped_ternary_linear(x[40:], own, Groups.of(torch.zeros(24))).float()
        assert (y[40:].cpu().float() - expected).norm() / expected.norm() < 0.005


@GPU
def test_a_graph_replays_the_product() -> None:
    """With tables that stay where they are: what a bank under CUDA graphs would do."""
    pytest.importorskip("humming")
    made = room(H100, outputs=768, inputs=256)
    slots, rows = GpuSlots(made, "int8"), Rows([0] * 5 + [3] * 3, H100)
    reference = fill(slots, made)
    x = torch.randn(8, 256).bfloat16().to(H100)
    slots.product(x, rows)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        y = slots.product(x, rows)
    x.copy_(torch.randn(8, 256).bfloat16())
    graph.replay()
    expected = grouped_ternary_linear(x.cpu(), reference, rows.groups).float()
    assert (y.cpu().float() - expected).norm() / expected.norm() < 0.005
