"""What every command that talks to a running server shares."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import aiohttp
from yarl import URL

T = TypeVar("T")

API_KEY = "TRIVIUM_API_KEY"
"""The environment variable with the key that is sent along."""


class CommandError(Exception):
    """The command failed; the message says why and what to do."""


def with_session(work: Callable[[aiohttp.ClientSession], Awaitable[T]], url: str) -> T:
    """Run `work` with a session whose requests are relative to `url`. Raises CommandError."""
    try:
        base = URL(url.rstrip("/") + "/")
        good = base.scheme in ("http", "https") and bool(base.host) and base.port is not None
    except ValueError:
        good = False
    if not good:
        raise CommandError(f"{url} is no address of a server; write it as http://HOST:PORT")

    async def run() -> T:
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=5)
        # A kept connection may be closed by the server just when a POST is sent on it, and that is
        # not repeated: a long command would end with it.
        each_its_own = aiohttp.TCPConnector(force_close=True)
        async with aiohttp.ClientSession(
            base, connector=each_its_own, timeout=timeout, headers=_headers()
        ) as session:
            return await work(session)

    try:
        return asyncio.run(run())
    except aiohttp.ClientConnectorError:
        raise CommandError(
            f"no Trivium server answers at {url}; start one with `make serve` or `trivium serve`,"
            " or name another with --url"
        ) from None
    except BrokenPipeError:  # who reads what is printed has enough
        raise
    except (aiohttp.ClientError, OSError) as error:
        raise CommandError(f"the connection to {url} broke: {error}") from None


def _headers() -> dict[str, str]:
    key = os.environ.get(API_KEY, "").strip()
    return {"Authorization": f"Bearer {key}"} if key else {}


async def checked(response: aiohttp.ClientResponse) -> Any:
    """The JSON body of a good answer. Raises CommandError with the server's own message."""
    if response.status == 204:
        return None
    try:
        body = await response.json()
    except (ValueError, aiohttp.ClientError):
        raise CommandError(f"{response.url} answered {response.status}, not as Trivium") from None
    if response.status >= 400:
        message = (body.get("error") or {}).get("message") if isinstance(body, dict) else None
        raise CommandError(message or f"{response.url} answered {response.status}")
    return body
