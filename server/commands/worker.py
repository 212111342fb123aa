"""`trivium worker …`: one worker in the foreground, as `trivium serve` starts it; for containers.

It listens where TRIVIUM_HOST and TRIVIUM_PORT say. A worker asks for no key: who can reach it can
use it, so a network in front must let orchestrators through and nobody else.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console

from experts.manifest import ManagedWorker, Manifest, ManifestError, load_manifest
from server.commands.client import CommandError
from server.commands.configuration import load_settings
from server.commands.serve import check_engine, check_port, prepare_meta
from server.settings import Settings
from server.workers.starters import installed_manifests
from server.workers.vllm_command import (
    Command,
    Machine,
    expert_command,
    meta_command,
    this_machine,
)


def meta(args: Sequence[str]) -> None:
    """Fetch and expand the meta LLM if that is to be done yet, and become its vLLM."""
    check_engine()
    settings = load_settings()
    checkpoint = prepare_meta(settings, Console(highlight=False, soft_wrap=True))
    become(meta_worker(settings, checkpoint, args, this_machine()), settings)


def expert(name: str, args: Sequence[str]) -> None:
    """Become the vLLM of one expert: `name` is a manifest's path, or a starter expert's name."""
    check_engine()
    settings = load_settings()
    become(expert_worker(settings, find_manifest(name), args, this_machine()), settings)


def meta_worker(
    settings: Settings, checkpoint: Path, args: Sequence[str], machine: Machine
) -> Command:
    """The meta worker that listens where `settings` say. `args` come last, for vLLM."""
    listening = ("--host", settings.host, *settings.meta_args, *args)
    return meta_command(checkpoint, settings.port, listening, machine)


def expert_worker(
    settings: Settings, manifest: Manifest, args: Sequence[str], machine: Machine
) -> Command:
    """The same of an expert's worker. Raises CommandError if it runs elsewhere."""
    spec = manifest.worker
    if not isinstance(spec, ManagedWorker):
        raise CommandError(
            f"the worker of {manifest.name} runs at {spec.bases[0]}, so there is nothing to start"
            " here; a manifest whose worker has a `checkpoint` can be started"
        )
    listening = ("--host", settings.host, *spec.args, *args)
    return expert_command(manifest.name, spec.checkpoint, settings.port, listening, machine)


def find_manifest(name: str) -> Manifest:
    """A manifest by its path, or that of a starter expert by its name. Raises CommandError."""
    starters = {manifest.name: manifest for manifest in installed_manifests()}
    if not Path(name).exists() and name in starters:
        return starters[name]
    try:
        return load_manifest(Path(name))
    except ManifestError as error:
        raise CommandError(f"{error}; starter experts: {', '.join(sorted(starters))}") from None


def become(
    command: Command,
    settings: Settings,
    execute: Callable[[str, tuple[str, ...], dict[str, str]], None] = os.execve,
) -> None:
    """Replace this process by a worker, so that signals reach vLLM itself."""
    check_port(settings.host, settings.port)
    execute(command.argv[0], command.argv, dict(command.env))
