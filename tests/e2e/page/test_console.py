"""The expert console: experts added, tried, changed and removed by a person with a browser."""

from __future__ import annotations

import json
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Locator, Page, expect

from server.edge.keys import KeyStore
from tests.e2e.page import browser
from tests.e2e.page.browser import (
    ARITHMETIC,
    PHONE,
    ChattingMeta,
    World,
    opened,
    shoot,
)
from tests.fake_meta import FIRST_ID
from tests.fakes import ExpertToken, FakeWorker, says
from tests.server.workers.test_registration import STARS, SUMS, running

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio(loop_scope="module")]

POEMS = [
    f"{verb} a {form} about {thing}"
    for verb in ("write", "compose", "i need", "recite")
    for form, thing in (
        ("haiku", "rain"),
        ("limerick", "my uncle"),
        ("sonnet", "love"),
        ("verse", "snow"),
        ("ballad", "the sea"),
    )
]
HOSTILE = "<img src=x onerror='window.owned = 1'><script>window.owned = 2</script>"


def console(world: World) -> str:
    return f"{world.url}/experts"


def rows(page: Page) -> Locator:
    return page.locator("#experts tbody tr")


def row(page: Page, name: str) -> Locator:
    return page.locator(f'#experts tr[data-expert="{name}"]')


async def fill_form(page: Page, worker: FakeWorker, name: str, examples: list[str]) -> Locator:
    """Open the dialog and fill it in, up to the button that registers."""
    await page.get_by_role("button", name="Add an expert").click()
    dialog = page.get_by_role("dialog", name="Add an expert")
    await dialog.get_by_label("Name", exact=True).fill(name)
    await dialog.get_by_label("Description").fill("Writes short poems.")
    await dialog.get_by_label("URL, up to /v1").fill(worker.endpoint.base_url)
    await dialog.get_by_label("Its name for the model").fill(worker.endpoint.model)
    await dialog.get_by_label("Example queries, one a line").fill("\n".join(examples))
    return dialog


async def try_query(page: Page, query: str) -> Locator:
    await page.get_by_role("textbox", name="Query").fill(query)
    await page.get_by_role("button", name="Try", exact=True).click()
    tried = page.locator("#tried")
    await expect(tried).not_to_have_attribute("aria-busy", "true")
    await expect(tried).to_be_visible()
    return tried


# ---------------------------------------------------------------- an expert's whole life


async def test_an_expert_is_added_tried_changed_and_removed(world: World) -> None:
    world.reset()
    async with AsyncExitStack() as stack:
        poet = await stack.enter_async_context(FakeWorker(says("Roses"), "poet"))
        page = await stack.enter_async_context(opened(world.browser, console(world)))
        await expect(rows(page)).to_have_count(2)
        await expect(page.locator("#summary")).to_contain_text("live")

        tried = await try_query(page, "write a haiku")
        await expect(tried).to_contain_text("The meta LLM answers.")
        await expect(tried.locator(".chances li")).to_have_count(2)

        dialog = await fill_form(page, poet, "poems", POEMS)
        await expect(dialog).to_contain_text("20 examples")
        await dialog.get_by_role("button", name="Register").click()
        done = page.get_by_role("dialog", name="poems is live")
        await expect(done.locator(".steps li").first).to_be_visible()
        await expect(done.locator('.steps li[data-state="done"]')).not_to_have_count(0)
        await done.get_by_role("button", name="Close").click()
        await expect(row(page, "poems")).to_contain_text("live")
        await expect(row(page, "poems")).to_contain_text("Writes short poems.")

        tried = await try_query(page, "write a haiku")
        await expect(tried.locator(".chances li")).to_have_count(3)
        await expect(tried.locator(".chances li", has_text="poems")).to_contain_text("new")
        await expect(tried.locator(".chances li", has_text="arithmetic")).to_contain_text("before")

        await page.get_by_role("button", name="poems").click()
        dialog = page.get_by_role("dialog", name="poems", exact=True)
        await expect(dialog).to_contain_text("poet at ")
        await expect(dialog.get_by_label("Threshold, percent")).to_be_hidden()
        await dialog.get_by_label("As learned").uncheck()
        await dialog.get_by_label("Threshold, percent").fill("80")
        await expect(row(page, "poems")).to_contain_text("80 %")
        stored = (await world.site.http.get("/v1/experts/poems")).json()
        assert stored["threshold"] == 0.8

        await dialog.get_by_role("button", name="Disable").click()
        await expect(row(page, "poems")).to_contain_text("disabled")
        assert "trivium/poems" not in await world.site.live()
        await dialog.get_by_role("button", name="Enable").click()
        await expect(row(page, "poems")).to_contain_text("live")

        await dialog.get_by_role("button", name="Remove…").click()
        question = page.get_by_role("dialog", name="Remove poems?")
        await expect(question).to_contain_text("finished first")
        await question.get_by_role("button", name="Keep it").click()
        await dialog.get_by_role("button", name="Remove…").click()
        await question.get_by_role("button", name="Remove").click()
        await expect(dialog).to_be_hidden()
        await expect(row(page, "poems")).to_have_count(0)
        assert (await world.site.http.get("/v1/experts/poems")).status_code == 404


async def test_a_key_is_named_by_a_variable_of_the_server(world: World) -> None:
    world.reset()
    async with AsyncExitStack() as stack:
        poet = await stack.enter_async_context(FakeWorker(says("Roses"), "poet"))
        page = await stack.enter_async_context(opened(world.browser, console(world)))
        dialog = await fill_form(page, poet, "poems", POEMS)
        await dialog.get_by_text("It wants an API key").click()
        variable = dialog.get_by_label("Environment variable of this server")
        await variable.fill("HOME")
        await dialog.get_by_role("button", name="Register").click()
        await expect(dialog.get_by_role("alert")).to_contain_text("TRIVIUM_KEY_")
        await expect(variable).to_have_attribute("aria-invalid", "true")
        await page.route(
            "**/v1/experts*",  # nothing is registered
            lambda route: route.abort() if route.request.method == "POST" else route.continue_(),
        )
        async with page.expect_request(lambda r: r.method == "POST") as asked:
            await variable.fill("TRIVIUM_KEY_POEMS")
            await dialog.get_by_role("button", name="Register").click()
        sent = (await asked.value).post_data_json
        assert sent["worker"]["api_key_env"] == "TRIVIUM_KEY_POEMS"


async def test_traffic_shows_without_a_reload(world: World) -> None:
    world.reset()
    async with opened(world.browser, console(world)) as page:
        await expect(row(page, "arithmetic")).to_contain_text("live")
        world.meta.behave = says(ARITHMETIC)
        body = {"model": "trivium", "messages": [{"role": "user", "content": "1 + 1"}]}
        before = (await world.site.http.get("/v1/experts")).json()["meta"]["routed"]
        assert (await world.site.http.post("/v1/chat/completions", json=body)).status_code == 200
        routed = page.locator("#summary div", has_text="Answers routed")
        await expect(routed.locator("dd")).to_contain_text(f"{before + 1}since")
        await expect(row(page, "arithmetic").locator("td").nth(2)).not_to_have_text("–")


async def test_all_are_refitted_and_the_matrix_shows_where_examples_went(world: World) -> None:
    world.reset()
    async with opened(world.browser, console(world)) as page:
        await page.get_by_role("button", name="Refit").click()
        dialog = page.get_by_role("dialog", name="Refit all experts")
        await dialog.get_by_role("button", name="Refit").click()
        await expect(dialog).to_contain_text("the new tokens are in use")
        await expect(dialog.locator("tbody tr")).to_have_count(2)
        await dialog.get_by_role("button", name="Close").click()
        matrix = page.locator("table.confusion")
        assert await matrix.locator("thead th").all_inner_texts() == [
            "arithmetic",
            "astronomy",
            "meta LLM",
        ]
        counts = await matrix.locator("tbody tr").nth(0).locator("td").all_inner_texts()
        held_out = sum(int(count) for count in counts if count != "·")
        assert held_out == len(SUMS) // 5


# ---------------------------------------------------------------- what goes wrong


async def test_refusals_are_shown_at_their_field(world: World) -> None:
    world.reset()
    async with opened(world.browser, console(world)) as page:
        dialog = await fill_form(page, world.astronomy, "astronomy", POEMS)
        await dialog.get_by_role("button", name="Register").click()
        error = dialog.get_by_role("alert")
        await expect(error).to_contain_text("An expert named 'astronomy' is registered; remove it")
        await expect(dialog.get_by_label("Name", exact=True)).to_be_focused()

        await dialog.get_by_label("Name", exact=True).fill("Bad Name")
        await dialog.get_by_role("button", name="Register").click()
        await expect(dialog.get_by_label("Name", exact=True)).to_have_attribute(
            "aria-invalid", "true"
        )
        await dialog.get_by_label("Name", exact=True).fill("poems")
        await dialog.get_by_label("URL, up to /v1").fill("nonsense")
        await dialog.get_by_role("button", name="Register").click()
        await expect(dialog.get_by_label("URL, up to /v1")).to_be_focused()
        await expect(dialog.get_by_label("Name", exact=True)).not_to_have_attribute(
            "aria-invalid", "true"
        )

        await dialog.get_by_label("Example queries").fill('one\n{"messages": broken')
        await dialog.get_by_role("button", name="Register").click()
        await expect(error).to_contain_text("Line 2 begins with { and is not JSON")


async def test_a_registration_that_fails_says_why_and_can_be_changed(world: World) -> None:
    world.reset()
    async with opened(world.browser, console(world)) as page:
        dialog = await fill_form(page, world.astronomy, "poems", POEMS)
        await dialog.get_by_label("Its name for the model").fill("another")
        await dialog.get_by_role("button", name="Register").click()
        failed = page.get_by_role("dialog", name="poems was not registered")
        await expect(failed).to_contain_text("does not serve a model named 'another'")
        await failed.get_by_role("button", name="Change it").click()
        await expect(dialog.get_by_label("Name", exact=True)).to_have_value("poems")


async def test_a_manifest_and_examples_from_a_file(world: World, tmp_path: Path) -> None:
    world.reset()
    lines = [json.dumps({"messages": [{"role": "user", "content": text}]}) for text in POEMS]
    (tmp_path / "poems.jsonl").write_text("\n".join(lines))
    async with opened(world.browser, console(world)) as page:
        dialog = await fill_form(page, world.astronomy, "poems", [])
        files = dialog.locator("input[type=file]")
        await files.first.set_input_files(tmp_path / "poems.jsonl")
        await expect(dialog).to_contain_text("20 examples")
        await dialog.get_by_label("Manifest", exact=True).check()
        box = dialog.get_by_label("Manifest, as JSON")
        await box.fill("name: poems")
        await dialog.get_by_role("button", name="Register").click()
        await expect(dialog.get_by_role("alert")).to_contain_text("trivium experts add FOLDER")
        worker = {"url": world.astronomy.endpoint.base_url, "model": "stars"}
        manifest = {"name": "poems", "description": "Poems.", "worker": worker, "examples": POEMS}
        await box.fill(json.dumps(manifest))
        await dialog.get_by_role("button", name="Register").click()
        await expect(page.get_by_role("dialog", name="poems is live")).to_be_visible()
    assert (await world.site.http.delete("/v1/experts/poems")).status_code == 204


async def test_hostile_texts_do_nothing(world: World) -> None:
    world.reset()
    world.meta.behave = says(HOSTILE)
    worker = {"url": world.astronomy.endpoint.base_url, "model": "stars"}
    response = await world.site.add("hostile", POEMS, worker=worker, description=HOSTILE)
    assert response.status_code == 201, response.text
    async with opened(world.browser, console(world)) as page:
        await expect(row(page, "hostile")).to_contain_text(HOSTILE)
        tried = await try_query(page, HOSTILE)
        await expect(tried).to_contain_text("<img src=x")
        await page.get_by_role("button", name="hostile").click()
        await expect(page.get_by_role("dialog", name="hostile")).to_contain_text(HOSTILE)
        assert await page.evaluate("window.owned") is None
        assert await page.evaluate("window.violations") == []
    assert (await world.site.http.delete("/v1/experts/hostile")).status_code == 204


async def test_a_server_that_is_gone_and_comes_back(world: World) -> None:
    async with opened(world.browser, console(world)) as page:
        await expect(rows(page)).to_have_count(2)
        await page.route("**/v1/experts", lambda route: route.abort())
        await expect(page.get_by_role("alert")).to_contain_text("cannot be reached")
        await page.unroute("**/v1/experts")
        await expect(page.get_by_role("alert")).to_be_hidden()


async def test_the_admin_key_is_asked_for(
    world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    world.reset()
    monkeypatch.setenv("TRIVIUM_KEYS", "on")
    async with AsyncExitStack() as stack:
        meta = await stack.enter_async_context(ChattingMeta())
        (tmp_path / "state").mkdir()
        store = KeyStore(f"sqlite:///{tmp_path / 'state' / 'registry.db'}")
        _, chats = store.create("chats", ["chat"])
        _, runs = store.create("runs", ["admin", "chat"])
        store.close()
        site = await stack.enter_async_context(running(meta, world.arithmetic, tmp_path))
        url = f"{site.http.base_url}/experts"
        page = await stack.enter_async_context(opened(world.browser, url))
        dialog = page.get_by_role("dialog", name="This server asks for a key")
        await dialog.get_by_label("API key").fill(chats)
        await dialog.get_by_label("API key").press("Enter")
        trouble = page.get_by_role("alert")
        await expect(trouble).to_contain_text("lacks the scope 'admin'")
        await trouble.get_by_role("button", name="Use another key").click()
        await dialog.get_by_label("API key").fill(runs)
        await dialog.get_by_label("API key").press("Enter")
        await expect(page.locator("#summary")).to_contain_text("live")
        await expect(trouble).to_be_hidden()
        await expect(page.locator("#no-experts")).to_be_visible()


# ---------------------------------------------------------------- for everyone


async def test_the_pages_link_to_each_other(world: World) -> None:
    async with opened(world.browser, world.url) as page:
        await page.get_by_role("link", name="Experts").click()
        await expect(page.get_by_role("heading", name="Experts", level=1)).to_be_visible()
        await page.get_by_role("link", name="Chat").click()
        await expect(page.get_by_role("textbox", name="Message", exact=True)).to_be_visible()


async def test_keyboard_only(world: World) -> None:
    world.reset()
    async with opened(world.browser, console(world)) as page:
        press, type_ = page.keyboard.press, page.keyboard.type
        await expect(rows(page)).to_have_count(2)
        await page.get_by_role("button", name="Add an expert").focus()
        await press("Enter")
        await expect(page.get_by_label("Name", exact=True)).to_be_focused()
        await type_("poems")
        await press("Tab")
        await type_("Poems.")
        await press("Tab")
        await press("ArrowDown")
        await expect(page.get_by_label("Folder that vLLM can serve")).to_be_visible()
        await press("Escape")
        await expect(page.get_by_role("button", name="Add an expert")).to_be_focused()
        await press("Tab")
        await expect(page.get_by_role("button", name="arithmetic")).to_be_focused()
        await page.wait_for_timeout(2500)  # the list is asked for again meanwhile
        await expect(page.get_by_role("button", name="arithmetic")).to_be_focused()
        await press("Enter")
        dialog = page.get_by_role("dialog", name="arithmetic", exact=True)
        await expect(dialog).to_be_visible()
        await dialog.get_by_label("As learned").focus()
        await press("Space")
        await press("Tab")
        await press("ArrowRight")
        await expect(row(page, "arithmetic")).to_contain_text("51 %")
        await press("Shift+Tab")
        await press("Space")
        await expect(row(page, "arithmetic")).to_contain_text("as learned")
        await press("Escape")
        await expect(page.get_by_role("button", name="arithmetic")).to_be_focused()
        await page.get_by_role("textbox", name="Query").focus()
        await type_("hello")
        await press("Enter")
        await expect(page.locator("#tried")).to_contain_text("answers.")


async def _fill_the_page(world: World, page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    """A query tried before there was an expert for it, and after."""
    query, odds = "Write a haiku about the number 7.", [-0.5, -3.0, -9.0, -9.0]
    monkeypatch.setattr(browser, "LOG_ODDS", np.array(odds, np.float32))
    world.meta.behave = says(ARITHMETIC)
    await try_query(page, query)
    worker = {"url": world.astronomy.endpoint.base_url, "model": "stars"}
    response = await world.site.add(
        "poems", POEMS, worker=worker, description="Writes short poems."
    )
    assert response.status_code == 201, response.text
    await world.site.http.patch("/v1/experts/astronomy", json={"threshold": 0.8})
    slot = response.json()["slot"]
    odds[0], odds[slot] = -3.0, 2.5
    monkeypatch.setattr(browser, "LOG_ODDS", np.array(odds, np.float32))
    world.meta.behave = says(ExpertToken(FIRST_ID + slot))
    world.astronomy.behave = says(
        "Seven autumn leaves / settle on the garden path / and the count is done."
    )
    await expect(row(page, "poems")).to_contain_text("live")
    await expect(row(page, "astronomy")).to_contain_text("80 %")
    await try_query(page, query)
    await expect(row(page, "poems").locator("td").nth(1)).not_to_have_text("0.0 %")


@pytest.mark.parametrize("look", ["light", "dark", "phone"])
async def test_axe_finds_nothing_serious(
    world: World, look: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.reset()
    theme = "dark" if look == "dark" else "light"
    options: dict[str, Any] = {"color_scheme": theme, "reduced_motion": "reduce"}
    options |= {"device_scale_factor": 1.5}
    if look == "phone":
        options |= {"viewport": PHONE, "has_touch": True, "is_mobile": True}
    else:
        options |= {"viewport": {"width": 1180, "height": 1130}}
    async with opened(world.browser, console(world), **options) as page:
        await expect(rows(page)).to_have_count(2)
        await _fill_the_page(world, page, monkeypatch)
        await _check(page)
        await shoot(page, f"console-{look}")
        assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        await page.get_by_role("button", name="arithmetic").click()
        await _check(page)
        await shoot(page, f"console-expert-{look}")
        await page.keyboard.press("Escape")
        dialog = await fill_form(page, world.astronomy, "astronomy", STARS)
        await dialog.get_by_role("button", name="Register").click()
        await expect(dialog.get_by_role("alert")).to_be_visible()
        await _check(page)
        await shoot(page, f"console-add-{look}")
        await dialog.get_by_label("Name", exact=True).fill("stars")
        await dialog.get_by_label("Its name for the model").fill("another")
        await dialog.get_by_label("Example queries").fill("\n".join(f"{s} now" for s in STARS))
        await dialog.get_by_role("button", name="Register").click()
        await expect(page.get_by_role("dialog", name="stars was not registered")).to_be_visible()
        await _check(page)
        await shoot(page, f"console-steps-{look}")
    assert (await world.site.http.delete("/v1/experts/poems")).status_code == 204
    await world.site.http.patch("/v1/experts/astronomy", json={"threshold": None})


async def _check(page: Page) -> None:
    found = (await Axe().run(page)).response["violations"]
    grave = [
        (fault["id"], fault["impact"], [node["html"] for node in fault["nodes"]])
        for fault in found
        if fault["impact"] in ("serious", "critical")
    ]
    assert not grave, grave
