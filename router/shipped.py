"""What the default meta LLM makes of general traffic, shipped so that the first registration need
not encode it. `python -m router.shipped URL` makes the file anew from a running meta worker.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from importlib.resources import files
from pathlib import Path

import numpy as np
from safetensors.numpy import load, save

from router.fit import Evidence

MAX_ENDS = 400
"""Sentence ends that are kept, evenly spaced."""


def shipped_evidence(fingerprint: str) -> Evidence | None:
    """General traffic as the meta LLM with this fingerprint sees it, or None if not shipped."""
    path = files("router") / "data" / _name(fingerprint)
    if not path.is_file():
        return None
    tensors = load(path.read_bytes())
    return Evidence(tensors["start"].astype(np.float32), tensors["ends"].astype(np.float32))


def pack(evidence: Evidence) -> bytes:
    """As a safetensors file: `start` and `ends`, float16."""
    ends = evidence.ends
    step = max(1, -(-len(ends) // MAX_ENDS))
    data: bytes = save(
        {"start": evidence.start.astype(np.float16), "ends": ends[::step].astype(np.float16)}
    )
    return data


def _name(fingerprint: str) -> str:
    return f"general-{fingerprint}.safetensors"


async def _make(url: str, folder: Path) -> Path:
    import aiohttp

    from router.encode import Encoder
    from router.learn import encode_general
    from router.meta_client import MetaClient

    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None)) as session:
        client = MetaClient(session, url, "meta")
        info = await client.info()
        path = folder / _name(info.fingerprint)
        path.unlink(missing_ok=True)
        with tempfile.TemporaryDirectory() as cache:
            encoder = Encoder(client, info, Path(cache))
            evidence = await encode_general(encoder, lambda text: print(text, end="\r"))
    path.write_bytes(pack(evidence))
    return path


if __name__ == "__main__":
    print(asyncio.run(_make(sys.argv[1], Path(__file__).parent / "data")))
