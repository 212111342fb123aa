"""What stands between the network and the routes, in its order."""

from __future__ import annotations

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware

from server.api.messages import errors as anthropic
from server.edge.audit import Auditing, AuditLog
from server.edge.auth import Authentication, LocalOnly
from server.edge.bodies import BodyLimit
from server.edge.keyring import Keyring
from server.edge.ledger import Ledger
from server.edge.limits import Throttle
from server.settings import Settings
from server.wire import REQUEST_ID


def install_guard(
    app: FastAPI,
    settings: Settings,
    keyring: Keyring,
    audit: AuditLog,
    ledger: Ledger | None = None,
) -> None:
    """Add the middleware that `settings` asks for; to be called before `install_edge`. `ledger`
    None: this process is the only one of its server.

    What is added last sees a request first: is the page allowed (CORS), who calls, is there
    room, is the body too large.
    """
    app.add_middleware(BodyLimit, most=settings.max_body_bytes)
    app.add_middleware(Throttle, most=settings.max_in_flight, ledger=ledger)
    if settings.keys_required:
        app.add_middleware(Authentication, keyring=keyring)
    elif settings.local_only:
        app.add_middleware(LocalOnly, origins=settings.cors_origins)
    app.add_middleware(Auditing, audit=audit)
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=("GET", "POST", "PATCH", "DELETE"),
            allow_headers=("*",),  # clients' libraries send many of their own
            expose_headers=("Retry-After", REQUEST_ID, anthropic.REQUEST_ID),
        )
