"""The web pages, chat at `/` and console at `/experts`: the files of `web/`, read once; hashed,
compressed, under a strict CSP.

What the first paint needs, the style sheets and the script that sets the theme, stands in the page
itself: the CSP allows these two by their hashes, and no other inline code.
"""

from __future__ import annotations

import gzip
import hashlib
from base64 import b64encode
from dataclasses import dataclass
from pathlib import Path

from fastapi import APIRouter, Request
from starlette.responses import Response

from server.errors import NotFound

FOLDER = Path(__file__).parent / "web"
MEDIA_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
}
"""What is served besides the pages themselves; other files of the folder are not."""
THEME = "scripts/theme.js"
PAGES = {"/": "index.html", "/experts": "experts.html"}
SECURITY_HEADERS = {
    "Cross-Origin-Opener-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
FOR_A_YEAR = "public, max-age=31536000, immutable"
ASK_EACH_TIME = "no-cache"


def content_security_policy(script: str = "", style: str = "") -> str:
    """Whatever a model writes: no inline script or style but these two, nothing from elsewhere, no
    form that is sent, and HTML is parsed by DOMPurify's policy alone (Trusted Types, where the
    browser has them)."""
    return "; ".join(
        (
            "default-src 'none'",
            f"script-src 'self'{_source(script)}",
            f"style-src 'self'{_source(style)}",
            "img-src 'self'",
            "connect-src 'self'",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
            "require-trusted-types-for 'script'",
            "trusted-types dompurify",
        )
    )


def _source(inline: str) -> str:
    """Inline code as a source of the policy: its hash."""
    digest = b64encode(hashlib.sha256(inline.encode()).digest()).decode()
    return f" 'sha256-{digest}'" if inline else ""


@dataclass(frozen=True)
class Asset:
    """A file as it goes out. `etag` is weak: both encodings share it."""

    body: bytes
    gzipped: bytes
    media_type: str
    etag: str
    policy: str = content_security_policy()

    @classmethod
    def of(cls, body: bytes, media_type: str, policy: str = content_security_policy()) -> Asset:
        digest = hashlib.sha256(body).hexdigest()[:20]
        return cls(body, gzip.compress(body, mtime=0), media_type, f'W/"{digest}"', policy)

    def answer(self, request: Request, cache: str) -> Response:
        """200, or 304 if the client has it already."""
        headers = {
            **SECURITY_HEADERS,
            "Content-Security-Policy": self.policy,
            "Cache-Control": cache,
            "ETag": self.etag,
            "Vary": "Accept-Encoding",
        }
        if self.etag in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        if "gzip" not in request.headers.get("accept-encoding", ""):
            return Response(self.body, headers=headers, media_type=self.media_type)
        headers["Content-Encoding"] = "gzip"
        return Response(self.gzipped, headers=headers, media_type=self.media_type)


class Pages:
    """The pages and their assets, whose addresses hold a hash of them all, so that a browser keeps
    them for good and never mixes two versions."""

    def __init__(self, folder: Path) -> None:
        """Raises FileNotFoundError where the package was installed without its web files."""
        files = _files(folder)
        styles = [files.pop(name).decode() for name in sorted(files) if _is_style(name)]
        self._style, self._theme = "\n".join(styles), files.pop(THEME, b"").decode()
        digest = hashlib.sha256()
        for name, body in files.items():
            digest.update(f"{name}\0{len(body)}\0".encode() + body)
        self.version = digest.hexdigest()[:12]
        self.assets = {
            name: Asset.of(body, MEDIA_TYPES[Path(name).suffix]) for name, body in files.items()
        }
        self.pages = {path: self._page(folder / file) for path, file in PAGES.items()}

    def _page(self, file: Path) -> Asset:
        """Addresses are relative, as the pages' calls of the API: it also works below a path of a
        reverse proxy."""
        html = file.read_text(encoding="utf-8")
        for name, text in {
            "assets": f"web/{self.version}",
            "style": self._style,
            "theme": self._theme,
        }.items():
            html = html.replace(f"{{{{{name}}}}}", text)
        policy = content_security_policy(self._theme, self._style)
        return Asset.of(html.encode(), "text/html; charset=utf-8", policy)

    async def get_page(self, request: Request) -> Response:
        """A page itself; the path of its route says which."""
        return self.pages[request.scope["route"].path].answer(request, ASK_EACH_TIME)

    async def get_asset(self, version: str, name: str, request: Request) -> Response:
        """One of their files. Of another version: the present one, not to be kept."""
        asset = self.assets.get(name)
        if asset is None:
            raise NotFound(f"the web pages have no file {name!r}")
        return asset.answer(request, FOR_A_YEAR if version == self.version else ASK_EACH_TIME)


def _is_style(name: str) -> bool:
    """Style sheets stand in the pages: the first paint waits for them."""
    return name.startswith("styles/")


def _files(folder: Path) -> dict[str, bytes]:
    """Names with forward slashes, relative to `folder`, in order."""
    found = sorted(path for path in folder.rglob("*") if path.suffix in MEDIA_TYPES)
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


def web_router(folder: Path = FOLDER) -> APIRouter:
    """The routes of the pages; they are not part of the API's schema."""
    pages, router = Pages(folder), APIRouter(include_in_schema=False)
    methods = ["GET", "HEAD"]
    for path in PAGES:
        router.add_api_route(path, pages.get_page, methods=methods, response_model=None)
    router.add_api_route(
        "/web/{version}/{name:path}", pages.get_asset, methods=methods, response_model=None
    )
    return router
