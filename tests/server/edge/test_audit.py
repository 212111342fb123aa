"""The audit log: who did what, refused calls included."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

from server.edge.keys import KeyStore
from server.settings import Settings
from tests.server.conftest import until
from tests.server.guarded import bearer, site_with


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


async def test_every_admin_call_that_changes_or_is_refused_leaves_a_line(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    store = KeyStore(Settings(state_dir=tmp_path / "state").database)
    _, admin = store.create("boss", ["admin"])
    _, chat = store.create("guest", ["chat"])
    store.close()
    async with site_with(tmp_path, keys="on") as site:
        site.http.headers.update(bearer(admin))
        assert (await site.add()).status_code == 201
        assert (await site.http.get("/v1/experts")).status_code == 200
        assert (await site.http.get("/v1/experts/sums")).status_code == 200
        assert (await site.http.delete("/v1/experts/sums")).status_code == 204
        assert (await site.http.delete("/v1/experts/sums")).status_code == 404
        refused = await site.http.delete("/v1/experts/sums", headers=bearer(chat))
        assert refused.status_code == 403
        assert (await site.http.get("/v1/experts", headers=bearer("no"))).status_code == 401
        assert (await site.http.post("/v1/experts/sing")).status_code == 405
        path = tmp_path / "state" / "logs" / "audit.log"
        written = lines(path)
        text = path.read_text()
    assert [(e["key"], e["action"], e["object"], e["outcome"]) for e in written] == [
        ("local", "experts.registration", "sums", "ok"),
        ("boss", "experts.add", "sums", "ok"),
        ("boss", "experts.remove", "sums", "ok"),
        ("boss", "experts.remove", "sums", "refused"),
        ("guest", "experts.remove", "sums", "refused"),
        (None, "experts.list", None, "refused"),
        ("boss", "experts.sing", None, "refused"),
    ]
    assert all(e["time"].endswith("+00:00") for e in written)
    assert written[4]["request"] == refused.headers["x-request-id"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert admin not in text
    assert chat not in text


async def test_how_a_registration_ended_is_told_where_nobody_waited(tmp_path: Path) -> None:
    async with site_with(tmp_path) as site:
        bad = site.manifest(worker={"url": "http://127.0.0.1:9/v1", "model": "m"})
        started = await site.http.post("/v1/experts", params={"wait": "false"}, json=bad)
        assert started.status_code == 202
        path = tmp_path / "state" / "logs" / "audit.log"
        await until(lambda: path.exists() and len(lines(path)) == 2)
        outcomes = {e["action"]: e["outcome"] for e in lines(path)}
        assert outcomes["experts.registration"] == "failed at: starting the worker"
        await site.http.post("/v1/experts", json={"name": "a\nb" * 500})
        last = lines(path)[-1]
        assert (last["outcome"], len(last["object"])) == ("refused", 200)
