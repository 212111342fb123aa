"""What a manifest may name when it comes over HTTP: files, vLLM's arguments, addresses.

Whoever calls a server that asks for no keys, on loopback, is a person or program of this machine
that could start vLLM itself: it may name any folder, as `trivium experts add` does, which calls
this API too. Every other caller may only be far away: the folders it names must lie in
`model_dirs`, and arguments that make vLLM read files, fetch or run code are refused. Experts that
installed packages bring do not come this way.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experts.manifest import ManagedWorker, Manifest, ManifestError, load_manifest, parse_manifest
from server.edge.addresses import Addresses
from server.errors import BadRequest, Forbidden

HARMLESS = frozenset(
    {
        "--block-size",
        "--dtype",
        "--enable-auto-tool-choice",
        "--enable-chunked-prefill",
        "--enable-prefix-caching",
        "--enforce-eager",
        "--gpu-memory-utilization",
        "--kv-cache-dtype",
        "--kv-cache-memory-bytes",
        "--max-model-len",
        "--max-num-batched-tokens",
        "--max-num-seqs",
        "--no-enable-chunked-prefill",
        "--no-enable-prefix-caching",
        "--pipeline-parallel-size",
        "--reasoning-parser",
        "--seed",
        "--tensor-parallel-size",
        "--tool-call-parser",
    }
)
"""vLLM's arguments that only say how much and how fast, and which of its own parsers reads calls.
In full: argparse completes others."""


class Admission:
    """Turns what a client sends into a manifest, or says why not."""

    def __init__(self, folders: Sequence[Path] | None, addresses: Addresses) -> None:
        """`folders`: where files may lie; None: anywhere on this machine."""
        self._folders = None if folders is None else [_resolved(folder) for folder in folders]
        self._addresses = addresses

    async def admit(self, raw: dict[str, Any]) -> Manifest:
        """The manifest in `raw`, or at `{"path": …}` of this machine.

        Raises BadRequest, Forbidden and Unprocessable.
        """
        try:
            manifest = self._read(raw)
        except ManifestError as error:
            raise BadRequest(str(error), param=error.field) from None
        worker = manifest.worker
        if isinstance(worker, ManagedWorker):
            self._confine(worker.checkpoint, "worker.checkpoint")
            if self._folders is not None:
                _check_arguments(worker.args)
        else:
            field = "worker.urls" if worker.urls else "worker.url"
            for url in worker.bases:
                await self._addresses.check_url(url, field)
        return manifest

    def _read(self, raw: dict[str, Any]) -> Manifest:
        if set(raw) == {"path"}:
            path = _resolved(Path(str(raw["path"])))
            self._confine(path, "path")
            return load_manifest(path, self._confine)
        return parse_manifest(raw, base=Path.cwd(), may_read=self._confine)

    def _confine(self, path: Path, param: str) -> None:
        """Raise Forbidden if `path`, links followed, lies outside the folders."""
        if self._folders is None:
            return
        real = _resolved(path)
        if not any(real.is_relative_to(folder) for folder in self._folders):
            folders = ", ".join(map(str, self._folders)) or "none"
            raise Forbidden(
                f"{path} lies outside the folders that models may be taken from over HTTP"
                f" ({folders}); move it there, or list its folder in TRIVIUM_MODEL_DIRS",
                param=param,
            )


def _check_arguments(args: Sequence[str]) -> None:
    """Raise Forbidden for an argument that is not HARMLESS, or a value that follows none."""
    after_name = False
    for arg in args:
        name = arg.partition("=")[0]
        if not arg.startswith("-") and after_name:
            after_name = False
        elif name in HARMLESS:
            after_name = "=" not in arg
        else:
            raise Forbidden(
                f"the argument {arg!r} cannot be given over HTTP; these can:"
                f" {', '.join(sorted(HARMLESS))}",
                param="worker.args",
            )


def _resolved(path: Path) -> Path:
    try:
        return path.expanduser().resolve()
    except (OSError, RuntimeError, ValueError):
        raise BadRequest(f"{path} is no usable path") from None
