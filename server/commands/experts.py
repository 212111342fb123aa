"""`trivium experts …`: the admin API from the terminal."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiohttp
from rich.console import Console
from rich.markup import escape
from rich.status import Status
from rich.table import Table
from rich.text import Text

from experts.manifest import ManifestError, load_manifest
from server.commands.client import CommandError, checked, with_session

POLL_SECONDS = 0.3
UNHEARD_SECONDS = 60.0


def add(url: str, path: Path, as_json: bool = False) -> None:
    """Register the manifest at `path` and show each step until the expert is live."""
    try:
        manifest = load_manifest(path)
    except ManifestError as error:
        raise CommandError(str(error)) from None
    console = Console(stderr=True, highlight=False)

    async def work(session: aiohttp.ClientSession) -> dict[str, Any]:
        body = manifest.model_dump(mode="json")
        async with session.post("v1/experts", params={"wait": "false"}, json=body) as response:
            view = await checked(response)
        with console.status("") as status:
            return await _followed(session, view, status)

    view = with_session(work, url)
    registration = view["registration"]
    if registration is not None and registration["state"] == "failed":
        raise CommandError(
            f"{manifest.name} was not registered; it failed at “{registration['step']}”:"
            f" {registration['error']}"
        )
    if as_json:
        print(json.dumps(view, indent=2))
        return
    accuracy = view["accuracy"]
    held_out = "" if accuracy is None else f"; {accuracy:.0%} of held-out examples routed to it"
    print(f"{manifest.name} is live as trivium/{manifest.name}{held_out}")


def list_experts(url: str, as_json: bool) -> None:
    """Print a table of all experts."""

    async def work(session: aiohttp.ClientSession) -> list[dict[str, Any]]:
        async with session.get("v1/experts") as response:
            return list((await checked(response))["data"])

    views = with_session(work, url)
    if as_json:
        print(json.dumps(views, indent=2))
        return
    expert_table(views)


def expert_table(views: list[dict[str, Any]]) -> None:
    """Print the table."""
    if not views:
        print("no experts are registered; add one with `trivium experts add PATH`")
        return
    table = Table("name", "state", "bank", "slot", "examples", "held-out accuracy", box=None)
    for view in views:
        table.add_row(
            view["name"],
            Text(view["state"]),  # a worker's last words may look like markup
            _text(view["bank"]),
            _text(view["slot"]),
            _text(view["examples"]),
            _share(view["accuracy"]),
        )
    Console(highlight=False).print(table)


def show(url: str, name: str, as_json: bool) -> None:
    """Print everything about one expert."""
    view = with_session(lambda session: _get(session, name), url)
    if as_json:
        print(json.dumps(view, indent=2))
        return
    for key, value in view.items():
        if value is not None:
            text = json.dumps(value) if isinstance(value, dict) else value
            print(f"{key:<14}{text}")


def refit(url: str, as_json: bool) -> None:
    """Fit all experts' tokens together, and print what became of each."""

    async def work(session: aiohttp.ClientSession) -> dict[str, Any]:
        async with session.post("v1/experts/refit") as response:
            return dict(await checked(response))

    with Console(stderr=True).status("fitting all experts' tokens"):
        found = with_session(work, url)
    if as_json:
        print(json.dumps(found, indent=2))
        return
    table = Table("name", "held-out accuracy before", "after", box=None)
    for name, own in found.items():
        table.add_row(name, _share(own["before"]), _share(own["after"]))
    Console(highlight=False).print(table)


def change(
    url: str, name: str, enabled: bool | None, threshold: float | None, as_json: bool = False
) -> None:
    """Change what a person decides about an expert; a threshold of 0 is the learned one."""
    changes: dict[str, Any] = {} if enabled is None else {"enabled": enabled}
    if threshold is not None:
        changes["threshold"] = threshold or None
    if not changes:
        raise CommandError("nothing to change: give --enable, --disable or --threshold")

    async def work(session: aiohttp.ClientSession) -> dict[str, Any]:
        async with session.patch(f"v1/experts/{quote(name, safe='')}", json=changes) as response:
            return dict(await checked(response))

    view = with_session(work, url)
    if as_json:
        print(json.dumps(view, indent=2))
        return
    threshold = view["threshold"]
    asked = "as learned" if threshold is None else f"from a probability of {threshold:g} on"
    print(f"{name} is {view['state']}; called {asked}")


def remove(url: str, name: str) -> None:
    """Remove an expert."""

    async def work(session: aiohttp.ClientSession) -> None:
        async with session.delete(f"v1/experts/{quote(name, safe='')}") as response:
            await checked(response)

    with_session(work, url)
    print(f"{name} is removed; answers it is writing are finished first")


async def _followed(
    session: aiohttp.ClientSession, view: dict[str, Any], status: Status
) -> dict[str, Any]:
    """The view of an expert once its registration has ended.

    Where requests are spread over several orchestrators, the others do not know the expert (404)
    until it is stored, and then nothing of the registration (null). One that cannot be asked for a
    moment is asked again: the registration goes on. Raises CommandError.
    """
    name, heard = view["name"], time.monotonic()
    while (view["registration"] or {}).get("state") == "running":
        status.update(escape(f"{name}: {view['registration']['step']}"))
        await asyncio.sleep(POLL_SECONDS)
        with contextlib.suppress(aiohttp.ClientError):
            async with session.get(f"v1/experts/{quote(name, safe='')}") as response:
                if response.status not in (404, 429) and response.status < 500:
                    view, heard = dict(await checked(response)), time.monotonic()
        if time.monotonic() - heard > UNHEARD_SECONDS:
            raise CommandError(
                f"{name} is being registered, but no server says how far that is; look for it"
                " with `trivium experts list`"
            )
    return view


async def _get(session: aiohttp.ClientSession, name: str) -> dict[str, Any]:
    async with session.get(f"v1/experts/{quote(name, safe='')}") as response:
        return dict(await checked(response))


def _share(accuracy: float | None) -> str:
    return "–" if accuracy is None else f"{accuracy:.0%}"


def _text(value: object) -> str:
    return "–" if value is None else str(value)
