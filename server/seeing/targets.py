"""Where the metrics of the live workers are, as Prometheus' HTTP service discovery reads it."""

from __future__ import annotations

from urllib.parse import urlsplit

from pydantic import BaseModel

from server.relay.legs import META
from server.relay.snapshot import Snapshot


class Target(BaseModel):
    """One worker: its address, and labels, of which Prometheus takes `__…__` for itself."""

    targets: list[str]
    labels: dict[str, str]


def worker_targets(snapshot: Snapshot) -> list[Target]:
    """Each worker once, with the names of its models: a bank has several."""
    served = [(META, endpoint) for endpoint in snapshot.meta]
    served += [(e.name, endpoint) for e in snapshot.experts for endpoint in e.endpoints]
    models: dict[str, list[str]] = {}
    for name, endpoint in served:
        models.setdefault(endpoint.base_url, []).append(name)
    return [_target(base_url, names) for base_url, names in models.items()]


def _target(base_url: str, models: list[str]) -> Target:
    url = urlsplit(base_url.removesuffix("/v1"))
    return Target(
        targets=[url.netloc],
        labels={
            "models": ",".join(models),
            "__scheme__": url.scheme,
            "__metrics_path__": f"{url.path}/metrics",
        },
    )
