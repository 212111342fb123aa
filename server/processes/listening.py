"""How a process of the server listens: at the public address, and the owner for its relays too."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import uvicorn
from starlette.types import ASGIApp

from server.settings import Settings

SHUTDOWN_SECONDS = 10
"""For connections to close, once the running answers are over."""

LEFT_SECONDS = 1
"""For what is left of forwarded requests when the draining has waited for them already."""


def public_config(app: ASGIApp, settings: Settings) -> uvicorn.Config:
    """At the address that clients know."""
    return _config(
        app,
        host=settings.host,
        port=settings.port,
        timeout_graceful_shutdown=SHUTDOWN_SECONDS,
    )


def owners_config(app: ASGIApp, path: Path) -> uvicorn.Config:
    """At a unix socket, for what relays forward; they say for whom (`X-Forwarded-For`)."""
    return _config(
        app,
        uds=str(path),
        lifespan="off",
        forwarded_allow_ips="*",
        timeout_graceful_shutdown=LEFT_SECONDS,
    )


def _config(app: ASGIApp, **options: Any) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        log_level="warning",
        log_config=None,  # its lines go where ours do
        access_log=False,
        **options,
    )


def family_of(host: str) -> socket.AddressFamily:
    """That of IPv6 for an address with colons, else that of IPv4."""
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def shared_socket(settings: Settings) -> socket.socket:
    """A socket of this process alone, at an address where others have one too: the kernel spreads
    connections over them (Linux).

    One socket for all, which every process accepts from, is spread badly: of 32 connections that
    come at once a process takes 4 to 18, and keeps them. Raises OSError.
    """
    listening = socket.socket(family_of(settings.host))
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listening.bind((settings.host, settings.port))
    except OSError:
        listening.close()
        raise
    return listening


class Unsignalled(uvicorn.Server):
    """A server besides the one that signals are for."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield
