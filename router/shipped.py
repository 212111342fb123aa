"""What the default meta LLM makes of general traffic, shipped so that the first registration need
not encode it. `python -m router.shipped URL` makes the file anew from a running meta worker.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
from importlib.resources import files
from pathlib import Path

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save

from router.general import General, encode_general

MAX_ENDS = 400
"""Sentence ends that are kept, evenly spaced."""
OPENINGS = "openings"
NUMBERS = ("subject", "framed_of")


def shipped_general(fingerprint: str) -> General | None:
    """General traffic as the meta LLM with this fingerprint sees it, or None if not shipped."""
    path = files("router") / "data" / _name(fingerprint)
    return unpack(Path(str(path))) if path.is_file() else None


def pack(general: General) -> bytes:
    """As a safetensors file: the states as float16, the openings in the metadata."""
    step = max(1, -(-len(general.ends) // MAX_ENDS))
    tensors = {
        "start": general.start,
        "near": general.near,
        "framed": general.framed,
        "ends": general.ends[::step],
        "topics": general.topics,
    }
    packed = {name: states.astype(np.float16) for name, states in tensors.items()}
    for name in NUMBERS:
        packed[name] = getattr(general, name).astype(np.int16)
    data: bytes = save(packed, metadata={OPENINGS: json.dumps(general.openings)})
    return data


def unpack(path: Path) -> General:
    """What `pack` wrote."""
    with safe_open(path, framework="numpy") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        openings = json.loads(file.metadata()[OPENINGS])
    numbers = {name: tensors.pop(name).astype(np.int64) for name in NUMBERS}
    states = {name: tensor.astype(np.float32) for name, tensor in tensors.items()}
    openings = tuple((query, opening) for query, opening in openings)
    return General(**states, **numbers, openings=openings)


def _name(fingerprint: str) -> str:
    return f"general-{fingerprint}.safetensors"


async def _make(url: str, folder: Path) -> Path:
    import aiohttp

    from router.encode import Encoder
    from router.meta_client import MetaClient

    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None)) as session:
        client = MetaClient(session, url, "meta")
        info = await client.info()
        with tempfile.TemporaryDirectory() as cache:
            encoder = Encoder(client, info, Path(cache))
            general = await encode_general(encoder, lambda text: print(text, end="\r"))
    path = folder / _name(info.fingerprint)
    path.write_bytes(pack(general))
    return path


if __name__ == "__main__":
    print(asyncio.run(_make(sys.argv[1], Path(__file__).parent / "data")))
