"""The chat page under test: the real orchestrator, fake workers, Debian's Chromium."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from aiohttp import web
from playwright.async_api import Browser, Locator, Page, async_playwright, expect

from tests.fake_meta import FIRST_ID, FakeMeta
from tests.fakes import ExpertToken, FakeWorker, Token, says
from tests.packages import need
from tests.server.workers.test_registration import STARS, SUMS, Site

PICTURES = Path(__file__).resolve().parents[3] / "runs" / "page"
"""Where a run of test_everyone.py writes screenshots; git ignores it. Two of them are kept beside
this file, in `pictures/`, for the README."""
ARITHMETIC, ASTRONOMY = ExpertToken(FIRST_ID), ExpertToken(FIRST_ID + 1)
WIDE = {"width": 1180, "height": 780}
PHONE = {"width": 375, "height": 720}

TWO_PARTS = "In one sentence, what is a fox? Then compute 4821 + 3977."
FOX: tuple[Token, ...] = ("A fox 🦊 is a small ", "**wild", "** animal. ")
SUM: tuple[Token, ...] = ("\n\n", "4821 + 3977 ", "= ", "**8798**")

MARKDOWN = """### A plan

1. First, **bold** and *slanted* words with `code`
2. Then a [link](https://example.org)

| planet | moons |
|---|---:|
| Mars | 2 |

```python
def double(x: int) -> int:
    return 2 * x  # < & >
```

It costs $5 and $10. The root is $x = \\sqrt{2}$, and

$$\\int_0^1 x^2\\,dx = \\frac{1}{3}$$
"""

LOG_ODDS = np.array([4.0, -3.0, -9.0, -9.0], np.float32)
"""What decided at the fake meta, for each slot: arithmetic has the first, astronomy the next."""

# Told by the browser itself, for as long as the page lives: what its policy had to block.
NOTE_VIOLATIONS = """
window.violations = [];
addEventListener("securitypolicyviolation", (event) => {
  window.violations.push(`${event.violatedDirective}: ${event.blockedURI} ${event.sample}`);
});
"""


class ChattingMeta(FakeMeta):
    """A fake meta worker that streams what `chat.behave` says, and does all else as FakeMeta."""

    def __init__(self) -> None:
        super().__init__()
        self.chat = FakeWorker(says("Hello!"), self.model)

    async def _chat(self, request: web.Request) -> web.Response:
        body = await request.json()
        if body.get("stream"):
            if key := body.get("vllm_xargs", {}).get("trivium_explain"):
                self.captures[key] = [np.tile(LOG_ODDS, 2)] * 2
            return await self.chat.chat(request)  # type: ignore[return-value]
        return await super()._chat(request)


@dataclass
class World:
    """The orchestrator with a meta and two experts; tests set what they say."""

    site: Site
    meta: FakeWorker
    arithmetic: FakeWorker
    astronomy: FakeWorker
    browser: Browser

    @property
    def url(self) -> str:
        return str(self.site.http.base_url)

    async def register(self) -> None:
        """Make both experts live, through the public path."""
        astronomy = {
            "url": self.astronomy.endpoint.base_url,
            "model": self.astronomy.endpoint.model,
        }
        for fields in (
            {"name": "arithmetic", "examples": SUMS, "description": "Exact sums and products."},
            {
                "name": "astronomy",
                "examples": STARS,
                "worker": astronomy,
                "description": "Stars, and where to find them.",
            },
        ):
            response = await self.site.add(**fields)
            assert response.status_code == 201, response.text

    def reset(self) -> None:
        """As new for the next test."""
        for worker, text in (
            (self.meta, "Hello!"),
            (self.arithmetic, "42"),
            (self.astronomy, "Moon"),
        ):
            worker.behave = says(text)
            worker.received.clear()


@asynccontextmanager
async def chromium() -> AsyncIterator[Browser]:
    """Debian's Chromium; installed where it is missing, and where that fails the test says so."""
    need("chromium", "/usr/bin/chromium")
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=arguments
        )
        try:
            yield browser
        finally:
            await browser.close()


@asynccontextmanager
async def opened(browser: Browser, url: str, **options: Any) -> AsyncIterator[Page]:
    """The page in a browser profile of its own. Fails at the end if it did what it must not:
    an exception, or anything that its Content-Security-Policy had to block."""
    context = await browser.new_context(**{"viewport": WIDE, "color_scheme": "light"} | options)
    context.set_default_timeout(10_000)
    await context.add_init_script(NOTE_VIOLATIONS)
    page, faults = await context.new_page(), list[str]()
    page.on("pageerror", lambda error: faults.append(str(error)))
    try:
        await page.goto(url)
        yield page
        faults += await page.evaluate("window.violations ?? []")
    finally:
        await context.close()
    assert not faults, faults


def answers(page: Page) -> Locator:
    return page.get_by_role("article", name="Answer")


def questions(page: Page) -> Locator:
    return page.get_by_role("article", name="You")


def box(page: Page) -> Locator:
    return page.get_by_role("textbox", name="Message", exact=True)


async def ask(page: Page, text: str) -> Locator:
    """Send `text`; the answer, complete."""
    count = await answers(page).count()
    await box(page).fill(text)
    await box(page).press("Control+Enter")  # on a phone, Enter makes a new line
    answer = answers(page).nth(count)
    await over(answer)
    return answer


async def over(answer: Locator) -> None:
    """Wait until the answer is complete."""
    await expect(answer.get_by_role("button", name="Copy answer")).to_be_visible()


async def stored(page: Page) -> list[dict[str, Any]]:
    """The conversations that the browser keeps."""
    entries: dict[str, str] = await page.evaluate("({ ...localStorage })")
    return [json.loads(text) for key, text in entries.items() if "conversation" in key]


async def shoot(page: Page, name: str) -> None:
    """A picture of the page in `PICTURES`."""
    PICTURES.mkdir(parents=True, exist_ok=True)
    await page.screenshot(path=PICTURES / f"{name}.png", animations="disabled")


def in_pieces(text: str, size: int = 6) -> list[str]:
    """`text` as a worker would stream it: cut anywhere."""
    return [text[i : i + size] for i in range(0, len(text), size)]
