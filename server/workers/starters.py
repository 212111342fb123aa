"""Starter experts: found under the entry point `trivium.experts`, registered like anyone's."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Iterator
from dataclasses import asdict
from importlib.metadata import entry_points
from pathlib import Path

from experts.manifest import Manifest, ManifestError, load_manifest
from experts.registry import Choices, RegisteredExpert, Registry
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
    coming: list[Awaitable[None]] = []
    stored = {expert.name: expert for expert in registry.experts()}
    for manifest in installed_manifests():
        known = stored.get(manifest.name)
        if known is None and registry.starter_seen(manifest.name):
            continue
        if known is not None and not _changed(known, manifest, registry):
            continue
        try:
            if known is not None:
                registry.mark_starter(manifest.name, seen=False)  # so a failure is tried again
                await registrar.remove(manifest.name)
            task = await registrar.start(manifest)
        except TriviumError as error:
            log.error("the starter expert %s did not register: %s", manifest.name, error)
        else:
            coming.append(_see_through(task, known, registry, registrar))
    results = await asyncio.gather(*coming, return_exceptions=True)
    if any(result is None for result in results):
        await _fit_together(registry, registrar)


async def _see_through(
    task: asyncio.Task[RegisteredExpert],
    before: RegisteredExpert | None,
    registry: Registry,
    registrar: Registrar,
) -> None:
    """Wait until a pack is registered; only then it counts as seen, so that one whose registration
    failed or was cut off is tried again at the next start. What a person had decided about it
    `before` stays so."""
    name = (await task).name
    registry.mark_starter(name)
    if before is not None and before.choices != Choices():
        try:
            await registrar.choose(name, **asdict(before.choices))
        except TriviumError as error:
            log.warning("what was chosen for the starter expert %s is lost: %s", name, error)


async def _fit_together(registry: Registry, registrar: Registrar) -> None:
    names = [expert.name for expert in registry.experts() if expert.choices.enabled]
    if len(names) < 2 or not all(map(registry.starter_seen, names)):
        return
    try:
        await registrar.refit()
    except TriviumError as error:
        log.warning("the starter experts keep the rows that they were given one by one: %s", error)
    else:
        log.info("the rows of %s are fitted together", ", ".join(names))


def _changed(known: RegisteredExpert, manifest: Manifest, registry: Registry) -> bool:
    """Whether a pack, not a person's expert of the same name, differs from what is stored."""
    return registry.starter_seen(known.name) and known.manifest != manifest
