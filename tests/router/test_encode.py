"""The encoder's cache: what was seen once is not asked again; damage is repaired."""

from __future__ import annotations

from pathlib import Path

import aiohttp
import numpy as np
import pytest

from router.encode import Encoder, Messages
from router.meta_client import MetaClient, MetaError, MetaInfo, Written
from router.vocabulary import ExpertVocabulary
from tests.fake_meta import FakeMeta

INFO = MetaInfo("v", ExpertVocabulary(100, 4), 3, "print")


class CountingMeta:
    """Stands in for a MetaClient and counts."""

    def __init__(self) -> None:
        self.asked: list[Messages] = []

    async def write(self, messages: Messages, tokens: int) -> Written:
        self.asked.append(messages)
        states = np.full((tokens, 3), len(messages[0]["content"]), np.float32)
        return Written(("été",) * tokens, states)


def ask(text: str) -> Messages:
    return [{"role": "user", "content": text}]


async def test_what_is_cached_is_not_asked_again(tmp_path: Path) -> None:
    meta = CountingMeta()
    first = await Encoder(meta, INFO, tmp_path).encode([ask("a"), ask("bb")], 2)  # type: ignore[arg-type]
    done: list[int] = []
    again = await Encoder(meta, INFO, tmp_path).encode(  # type: ignore[arg-type]
        [ask("bb"), ask("a")], 2, done.append
    )
    assert len(meta.asked) == 2
    assert sorted(done) == [1, 2]
    assert [w.states[0, 0] for w in first] == [1, 2]
    assert [w.states[0, 0] for w in again] == [2, 1]
    assert again[0].tokens == ("été", "été")


async def test_length_and_checkpoint_are_part_of_the_key(tmp_path: Path) -> None:
    meta = CountingMeta()
    await Encoder(meta, INFO, tmp_path).encode([ask("a")], 2)  # type: ignore[arg-type]
    await Encoder(meta, INFO, tmp_path).encode([ask("a")], 3)  # type: ignore[arg-type]
    other = MetaInfo("v", INFO.vocabulary, 3, "another")
    await Encoder(meta, other, tmp_path).encode([ask("a")], 2)  # type: ignore[arg-type]
    assert len(meta.asked) == 3


async def test_a_damaged_entry_is_encoded_again(tmp_path: Path) -> None:
    meta = CountingMeta()
    encoder = Encoder(meta, INFO, tmp_path)  # type: ignore[arg-type]
    await encoder.encode([ask("a")], 1)
    entry = next((tmp_path / "print").glob("*.npz"))
    entry.write_bytes(entry.read_bytes()[:40])
    assert (await encoder.encode([ask("a")], 1))[0].states.shape == (1, 3)
    assert len(meta.asked) == 2


async def test_an_entry_without_its_states_is_encoded_again(tmp_path: Path) -> None:
    class Forgetful(CountingMeta):
        async def write(self, messages: Messages, tokens: int) -> Written:
            await super().write(messages, tokens)
            return Written(("a",), np.zeros((0, 0), np.float32))

    await Encoder(Forgetful(), INFO, tmp_path).encode([ask("a")], 1)  # type: ignore[arg-type]
    meta = CountingMeta()
    assert (await Encoder(meta, INFO, tmp_path).states([ask("a")])).shape == (1, 3)  # type: ignore[arg-type]
    assert len(meta.asked) == 1


async def test_states_that_a_worker_lost_are_an_error() -> None:
    """Behind one address there may be two, of which the other one has them."""
    async with FakeMeta() as meta, aiohttp.ClientSession() as session:
        client = MetaClient(session, meta.url, meta.model)
        assert len((await client.write(ask("a"), 1)).states) == 1
        meta.keeps_captures = False
        with pytest.raises(MetaError, match="lost the states"):
            await client.write(ask("a"), 1)
