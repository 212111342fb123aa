"""Starter experts: found under the entry point `trivium.experts`, registered like anyone's."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path

from experts.manifest import Manifest, ManifestError, load_manifest
from experts.registry import NO_CHOICES, Choices, RegisteredExpert, Registry, RegistryError
from server.errors import TriviumError
from server.workers.registration import Registrar

GROUP = "trivium.experts"

log = logging.getLogger(__name__)


def installed_manifests() -> Iterator[Manifest]:
    """Manifests of the installed packs. Each entry point is a callable that returns a folder."""
    for point in entry_points(group=GROUP):
        try:
            folder: Path = point.load()()
            yield load_manifest(folder)
        except (ManifestError, ImportError, AttributeError) as error:
            log.warning("the expert pack %r cannot be loaded: %s", point.name, error)


async def register_starters(registry: Registry, registrar: Registrar) -> None:
    """Register packs that are new or have changed; one that a person removed stays removed.

    Where all experts come from packs, the rows of new ones are fitted once more, together: that
    tells them apart better than one after the other, and no person's expert is touched.
    """
    stored = {expert.name: expert for expert in registry.experts()}
    manifests = list(installed_manifests())
    came = []
    for manifest in manifests:  # one at a time: each is away no longer than it has to be
        known = stored.get(manifest.name)
        if known is not None and _changed(known, manifest, registry):
            came.append(await _renewed(known, manifest, registry, registrar))
    async with asyncio.TaskGroup() as group:
        coming = []
        for manifest in manifests:
            if manifest.name not in stored and not registry.starter_seen(manifest.name):
                task = await _started(manifest, registrar)
                coming.append(group.create_task(_see_through(task, registry)))
    if any(came) or any(task.result() for task in coming):
        await _fit_together(registry, registrar)


async def _renewed(
    known: RegisteredExpert, manifest: Manifest, registry: Registry, registrar: Registrar
) -> bool:
    """Register a pack in place of what it was; what a person has decided about it stays so."""
    try:
        registry.mark_starter(manifest.name, seen=False)  # so a failure is tried again
        await registrar.remove(manifest.name)
    except (TriviumError, RegistryError) as error:
        log.error("the starter expert %s stays as it was: %s", manifest.name, error)
        return False
    return await _see_through(await _started(manifest, registrar, known.choices), registry)


async def _started(
    manifest: Manifest, registrar: Registrar, choices: Choices = NO_CHOICES
) -> asyncio.Task[RegisteredExpert] | None:
    try:
        return await registrar.start(manifest, choices)
    except (TriviumError, RegistryError) as error:
        log.error("the starter expert %s did not register: %s", manifest.name, error)
        return None


async def _see_through(task: asyncio.Task[RegisteredExpert] | None, registry: Registry) -> bool:
    """Whether a pack is registered in the end; only then it counts as seen, so that one whose
    registration failed or was cut off is tried again at the next start."""
    if task is None:
        return False
    await asyncio.wait({task})
    if task.cancelled() or task.exception():  # its progress tells why
        return False
    registry.mark_starter(task.result().name)
    return True


async def _fit_together(registry: Registry, registrar: Registrar) -> None:
    names = [expert.name for expert in registry.experts() if expert.choices.enabled]
    if len(names) < 2 or not all(map(registry.starter_seen, names)):
        return
    try:
        await registrar.refit()
    except (TriviumError, RegistryError) as error:
        log.warning("the starter experts keep the rows that they were given one by one: %s", error)
    else:
        log.info("the rows of %s are fitted together", ", ".join(names))


def _changed(known: RegisteredExpert, manifest: Manifest, registry: Registry) -> bool:
    """Whether a pack, not a person's expert of the same name, differs from what is stored."""
    return registry.starter_seen(known.name) and known.manifest != manifest
