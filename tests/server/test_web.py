"""The web pages' files: how they are served, and what they may not hold."""

from __future__ import annotations

import gzip
import re
import tomllib
from base64 import b64encode
from hashlib import sha256
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from server.web import FOLDER, MEDIA_TYPES, PAGES, Pages, web_router
from server.wire import install_edge

ROOT = FOLDER.parent.parent
IMPORT = re.compile(r"""\b(?:import|from)[\s(]*["'](\.[^"']+)["']""")


@pytest.fixture(scope="module")
def client() -> TestClient:
    app = FastAPI()
    install_edge(app)
    app.include_router(web_router())
    return TestClient(app)


@pytest.fixture(scope="module")
def html(client: TestClient) -> str:
    return client.get("/").text


@pytest.mark.parametrize("path", PAGES)
def test_a_page_has_a_strict_policy_and_is_asked_for_each_time(
    client: TestClient, path: str
) -> None:
    response = client.get(path)
    assert response.status_code == 200
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    assert response.headers["cache-control"] == "no-cache"
    assert response.headers["x-content-type-options"] == "nosniff"
    policy = dict(
        part.split(" ", 1) for part in response.headers["content-security-policy"].split("; ")
    )
    assert policy["default-src"] == "'none'"
    for directive, inline in (("script-src", "script"), ("style-src", "style")):
        (text,) = re.findall(rf"<{inline}>(.+?)</{inline}>", response.text, re.DOTALL)
        digest = b64encode(sha256(text.encode()).digest()).decode()
        assert policy[directive] == f"'self' 'sha256-{digest}'"
    assert "unsafe" not in response.headers["content-security-policy"]


def test_what_the_browser_has_is_not_sent_again(client: TestClient) -> None:
    tag = client.get("/").headers["etag"]
    again = client.get("/", headers={"If-None-Match": tag})
    assert (again.status_code, again.content) == (304, b"")
    assert client.get("/", headers={"If-None-Match": 'W/"other"'}).status_code == 200


def test_assets_are_kept_for_good_under_their_hash_only(client: TestClient, html: str) -> None:
    path = re.search(r'src="(web/[0-9a-f]{12}/scripts/main\.js)"', html)
    assert path
    kept = client.get(f"/{path[1]}")
    assert kept.headers["content-type"] == "text/javascript; charset=utf-8"
    assert "immutable" in kept.headers["cache-control"]
    assert "sha256" not in kept.headers["content-security-policy"]
    old = client.get("/web/000000000000/scripts/main.js")
    assert (old.text, old.headers["cache-control"]) == (kept.text, "no-cache")


def test_the_hash_follows_every_file(tmp_path: Path) -> None:
    for page in PAGES.values():
        (tmp_path / page).write_text("{{assets}}")
    (tmp_path / "a.js").write_text("1")
    before = Pages(tmp_path)
    (tmp_path / "a.js").write_text("2")
    after = Pages(tmp_path)
    assert before.version != after.version
    assert after.pages["/"].body.decode() == f"web/{after.version}"


def test_compression_is_asked_for(client: TestClient) -> None:
    plain = client.get("/", headers={"Accept-Encoding": "identity"})
    assert "content-encoding" not in plain.headers
    packed = client.get("/", headers={"Accept-Encoding": "gzip"})
    assert packed.headers["content-encoding"] == "gzip"
    assert packed.headers["vary"] == "Accept-Encoding"
    assert int(packed.headers["content-length"]) < len(plain.content) / 2
    assert packed.content == plain.content
    assert gzip.decompress(Pages(FOLDER).pages["/"].gzipped) == plain.content


def test_head_and_what_is_not_there(client: TestClient) -> None:
    head = client.head("/")
    assert (head.status_code, head.content) == (200, b"")
    for path in ("/web/0/nothing.js", "/web/0/../web.py", "/web/0/%2e%2e/web.py", "/web/0/"):
        missing = client.get(path)
        assert missing.status_code == 404, path
        assert missing.json()["error"]["code"] == "not_found"


def test_every_module_that_is_imported_exists_and_every_one_is_imported() -> None:
    scripts = FOLDER / "scripts"
    imported = {scripts / "main.js", scripts / "console" / "main.js", scripts / "theme.js"}
    for script in scripts.rglob("*.js"):
        for target in IMPORT.findall(script.read_text()):
            path = (script.parent / target).resolve()
            assert path.is_file(), f"{script.name} imports {target}, which is not there"
            imported.add(path)
    assert {*scripts.rglob("*.js"), *(FOLDER / "vendor").glob("*.js")} == imported


def test_the_pages_hold_nothing_else_inline_and_name_no_other_host() -> None:
    for page in PAGES.values():
        text = (FOLDER / page).read_text()
        assert not re.search(r"\sstyle=|\son\w+=|javascript:", text)
        assert re.findall(r"<style[^>]*>(.*)</style>", text) == ["{{style}}"]
        assert re.findall(r"<script[^>]*>(.*)</script>", text) == ["{{theme}}", ""]
    for path in FOLDER.rglob("*"):
        if path.is_file() and path.parent.name != "vendor":
            hosts = set(re.findall(r"https?://[\w.]+", path.read_text()))
            assert hosts <= {"http://www.w3.org"}, f"{path} names {hosts}"


def test_the_wheel_takes_every_file() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    patterns = settings["tool"]["setuptools"]["package-data"]["server"]
    packaged = {path for pattern in patterns for path in (ROOT / "server").glob(pattern)}
    needed = {path for path in FOLDER.rglob("*") if path.is_file()}
    assert needed <= packaged
    assert {path.suffix for path in needed} <= {*MEDIA_TYPES, ".html", ".md"}


def test_libraries_keep_their_licence_and_version() -> None:
    vendor = FOLDER / "vendor"
    notes = (vendor / "README.md").read_text()
    for script in vendor.glob("*.js"):
        assert script.name in notes
        library = script.name.split(".")[0]
        assert (vendor / f"{library}.LICENSE.txt").is_file()
        assert re.search(rf"{re.escape(script.name)}.*\d+\.\d+\.\d+", notes)
