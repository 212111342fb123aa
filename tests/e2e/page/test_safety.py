"""What a model writes is shown and never carried out; faults are told in sentences."""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Page, expect

from server.edge.keys import KeyStore
from tests.e2e.page.browser import (
    MARKDOWN,
    ChattingMeta,
    World,
    answers,
    ask,
    in_pieces,
    opened,
    questions,
)
from tests.fakes import refuses, says
from tests.server.workers.test_registration import running, until

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio(loop_scope="module")]

HOSTILE = """
<script>window.owned = 1</script>
<img src=x onerror="window.owned = 2">
<svg onload="window.owned = 3"><animate onbegin="window.owned = 3"/></svg>
<style>body { display: none }</style><link rel=stylesheet href="//evil.example/x.css">
<a href="javascript:window.owned = 4">raw</a> <b onclick="window.owned = 5">bold</b>
<iframe srcdoc="<script>parent.owned = 6</script>"></iframe><base href="//evil.example/">
<form action="//evil.example"><input name=key><button>send</button></form>
<p style="position:fixed;inset:0" class="dialog">over everything</p>
<math><mtext><table><mglyph><style><!--</style><img title="--&gt;&lt;img src=1 onerror=owned=7&gt;">

[one](javascript:window.owned=8) [two](data:text/html,<script>owned=9</script>)
[three](<jAvAsCrIpT:alert(1)>) ![picture](https://evil.example/pixel.png) [fine](https://example.org/a)
[four](https://example.org "x\\" onmouseover=\\"owned=10")

$\\href{javascript:owned=11}{x}$ and $\\style{display:none}{y}$
and $\\includegraphics{//evil.example}$

```"><img src=x onerror=owned=12>
</code></pre><script>owned = 13</script>
```
"""


async def test_a_hostile_answer_does_nothing(world: World, page: Page) -> None:
    requests: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    world.meta.behave = says(*in_pieces(HOSTILE))
    answer = await ask(page, "<img src=x onerror='window.owned = 14'>")
    await answer.get_by_role("button", name="Who wrote this").click()
    await page.wait_for_timeout(300)
    assert await page.evaluate("window.owned") is None
    assert await page.evaluate("window.violations") == [], "the policy had to step in"
    assert not [url for url in requests if not url.startswith((world.url, "blob:"))]
    tags = await answer.locator(".prose").evaluate(
        "node => [...new Set([...node.querySelectorAll('*')].map(e => e.localName))]"
    )
    forbidden = {"script", "img", "style", "iframe", "form", "input", "base", "link", "animate"}
    assert not forbidden & set(tags)
    attributes = await answer.locator(".prose").evaluate(
        "node => [...node.querySelectorAll('*')].flatMap(e => e.getAttributeNames())"
    )
    assert not [name for name in attributes if name.startswith("on") or name == "srcdoc"]
    links = answer.locator(".prose a[href]")
    hrefs = [await link.get_attribute("href") for link in await links.all()]
    assert set(hrefs) == {
        "https://evil.example/pixel.png",
        "https://example.org/a",
        "https://example.org",
    }
    for link in await links.all():
        assert await link.get_attribute("rel") == "noopener noreferrer nofollow"
    assert await answer.locator(".dialog").count() == 0
    await expect(answer).to_contain_text("<script>window.owned = 1</script>")
    await expect(questions(page)).to_contain_text("<img src=x onerror='window.owned = 14'>")


async def test_markdown_code_and_formulas(world: World, page: Page) -> None:
    await page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    requests: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    await ask(page, "Nothing special")
    assert not any("temml" in url for url in requests), "fetched before any formula"
    world.meta.behave = says(*in_pieces(MARKDOWN))
    answer = await ask(page, "Show me everything")
    await expect(answer.locator("math")).to_have_count(2)
    assert sum("temml" in url for url in requests) == 1
    await expect(answer).to_contain_text("It costs $5 and $10.")
    await expect(answer.locator("h4")).to_have_text("A plan")
    await expect(answer.locator("ol > li")).to_have_count(2)
    await expect(answer.locator("td")).to_have_text(["Mars", "2"])
    await expect(answer.locator("td").nth(1)).to_have_attribute("align", "right")
    await answer.get_by_role("button", name="Copy code").click()
    copied = await page.evaluate("navigator.clipboard.readText()")
    assert copied == "def double(x: int) -> int:\n    return 2 * x  # < & >\n"
    await answer.get_by_role("button", name="Copy answer").click()
    assert await page.evaluate("navigator.clipboard.readText()") == MARKDOWN


# ---------------------------------------------------------------- faults


@pytest.mark.parametrize(
    ("behaviour", "sentence"),
    [
        (refuses(500, "boom"), "The model that was writing failed. Try again"),
        (
            refuses(
                400, "This model's maximum context length is 10 tokens. However, you requested 12"
            ),
            "too long for the model",
        ),
        (says("some ", "x", failure="cut", fail_after=1), "The model that was writing failed."),
    ],
)
async def test_errors_are_sentences_with_what_to_do(
    world: World, page: Page, behaviour: Any, sentence: str
) -> None:
    world.meta.behave = behaviour
    answer = await ask(page, "Hi")
    await expect(answer.locator(".notice")).to_contain_text(sentence)
    world.meta.behave = says("Fine now.")
    snapshots = world.site.app.state.services.snapshots
    await until(lambda: snapshots.current.meta, 30)  # its breaker may be open
    await answer.get_by_role("button", name="Try again").click()
    await expect(answers(page)).to_have_count(1)
    await expect(answers(page)).to_contain_text("Fine now.")


async def test_a_server_that_is_gone(world: World, page: Page) -> None:
    await page.route("**/v1/chat/completions", lambda route: route.abort())
    answer = await ask(page, "Hi")
    await expect(answer).to_contain_text("The server cannot be reached. Check that it is running")


async def test_a_key_is_asked_for_once(
    world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    world.reset()
    monkeypatch.setenv("TRIVIUM_KEYS", "on")
    async with AsyncExitStack() as stack:
        meta = await stack.enter_async_context(ChattingMeta())
        store = KeyStore(f"sqlite:///{_folder(tmp_path / 'state') / 'registry.db'}")
        _, secret = store.create("page", ["chat"])
        store.close()
        site = await stack.enter_async_context(running(meta, world.arithmetic, tmp_path))
        url = str(site.http.base_url)
        page = await stack.enter_async_context(opened(world.browser, url))
        dialog = page.get_by_role("dialog", name="This server asks for a key")
        await dialog.get_by_label("API key").fill("wrong")
        await dialog.get_by_role("button", name="Use this key").click()
        await expect(dialog).to_contain_text("did not accept")
        await dialog.get_by_label("API key").fill(secret)
        await dialog.get_by_label("API key").press("Enter")
        await expect(dialog).to_be_hidden()
        await expect(await ask(page, "Hi")).to_contain_text("Hello!")
        await page.reload()
        await expect(await ask(page, "Again")).to_contain_text("Hello!")
        assert secret not in await page.evaluate("JSON.stringify(localStorage)")


def _folder(path: Path) -> Path:
    path.mkdir()
    return path
