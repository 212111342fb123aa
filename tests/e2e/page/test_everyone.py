"""For everyone: keyboard, screen readers, phones, both themes, slow lines."""

from __future__ import annotations

from typing import Any

import pytest
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Page, expect

from tests.e2e.page.browser import (
    ARITHMETIC,
    ASTRONOMY,
    MARKDOWN,
    PHONE,
    World,
    answers,
    ask,
    box,
    in_pieces,
    opened,
    over,
    questions,
    shoot,
)
from tests.fakes import in_turn, refuses, says

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio(loop_scope="module")]


async def test_keyboard_only(world: World, page: Page) -> None:
    world.meta.behave = in_turn(
        says("One.", ASTRONOMY), says(*("word " for _ in range(100)), delay=0.05), says("Three.")
    )
    press, type_ = page.keyboard.press, page.keyboard.type
    await expect(box(page)).to_be_focused()
    await type_("line one")
    await press("Shift+Enter")
    await type_("line two")
    await press("Enter")
    await over(answers(page).first)
    assert world.meta.bodies[0]["messages"][0]["content"] == "line one\nline two"
    await expect(box(page)).to_be_focused()
    await press("Control+.")
    await expect(answers(page).locator(".trace")).to_be_visible()
    await press("Control+.")
    await type_("long")
    await press("Enter")
    await expect(answers(page).nth(1)).to_contain_text("word")
    await press("Escape")
    await expect(answers(page).nth(1)).to_contain_text("Stopped.")
    await press("ArrowUp")
    await expect(page.get_by_role("textbox", name="Edit your message")).to_be_focused()
    await press("Escape")
    await expect(page.get_by_role("textbox", name="Edit your message")).to_have_count(0)
    await press("Shift+Escape")
    await expect(box(page)).to_be_focused()
    await press("ArrowUp")
    await press("End")
    await type_("er")
    await press("Enter")
    await expect(answers(page).nth(1)).to_contain_text("Three.")
    await expect(questions(page).nth(1)).to_contain_text("longer")
    await press("Control+/")
    await expect(page.get_by_role("dialog", name="Keys")).to_contain_text("New chat")
    await press("Escape")
    await press("Control+Shift+O")
    await expect(answers(page)).to_have_count(0)
    await expect(box(page)).to_be_focused()


LIGHTHOUSE = in_pieces(
    "A lighthouse is a tower whose lamp tells ships at night where the coast is. "
)
STEPS = """

4821 + 3977:
1+7+0=08 2+7+0=09 8+9+0=17 4+3+1=08
4821 + 3977 = **8798**"""


async def _fill_the_page(world: World, page: Page) -> None:
    """Every kind of thing that a conversation can show."""
    world.meta.behave = says(*in_pieces(MARKDOWN))
    await ask(page, "Make a plan, with a table, some code and a formula.")
    await expect(answers(page).locator("math").first).to_be_visible()
    world.meta.behave = says(*LIGHTHOUSE, ARITHMETIC, delay=0.1)
    world.arithmetic.behave = says(*in_pieces(STEPS, 12), delay=0.05)
    answer = await ask(page, "In one sentence, what is a lighthouse? Then compute 4821 + 3977.")
    await answer.get_by_role("button", name="Who wrote this").click()


@pytest.mark.parametrize("theme", ["light", "dark"])
async def test_axe_finds_nothing_serious(world: World, theme: Any) -> None:
    world.reset()
    async with opened(
        world.browser,
        world.url,
        color_scheme=theme,
        reduced_motion="reduce",
        device_scale_factor=1.5,
    ) as page:
        await expect(page.get_by_role("button", name="What is 4821 + 3977?")).to_be_visible()
        await _check(page)
        await shoot(page, f"welcome-{theme}")
        await _fill_the_page(world, page)
        await _check(page)
        await shoot(page, f"trace-{theme}")
        await page.locator("#scroller").evaluate("node => node.scrollTo(0, 0)")
        await shoot(page, f"markdown-{theme}")
        await _check(page)
        await page.get_by_role("button", name="Settings of this chat").click()
        await _check(page)
        await shoot(page, f"settings-{theme}")
        await page.keyboard.press("Escape")
        await page.get_by_role("button", name="Keys").click()
        await _check(page)
        await shoot(page, f"keys-{theme}")
        await page.keyboard.press("Escape")
        world.meta.behave = refuses(500, "boom")
        await ask(page, "This one fails")
        await _check(page)
        await shoot(page, f"error-{theme}")


async def test_the_way_to_the_end_covers_no_message_box(world: World) -> None:
    world.reset()
    async with opened(world.browser, world.url) as page:
        await _fill_the_page(world, page)
        await page.get_by_role("textbox", name="Message").fill("\n".join(["a long message"] * 12))
        await page.locator("#scroller").evaluate("node => node.scrollTo(0, 0)")
        latest = await page.get_by_role("button", name="Latest").bounding_box()
        composer = await page.locator("#composer").bounding_box()
        await shoot(page, "latest")
        assert latest is not None
        assert composer is not None
        assert latest["y"] + latest["height"] < composer["y"]


async def _check(page: Page) -> None:
    found = (await Axe().run(page)).response["violations"]
    grave = [
        (fault["id"], fault["impact"], [node["html"] for node in fault["nodes"]])
        for fault in found
        if fault["impact"] in ("serious", "critical")
    ]
    assert not grave, grave


async def test_a_phone_has_no_sideways_scroll(world: World) -> None:
    world.reset()
    options = {"viewport": PHONE, "has_touch": True, "is_mobile": True, "device_scale_factor": 2}
    async with opened(world.browser, world.url, **options) as page:
        await shoot(page, "phone-welcome")
        await _fill_the_page(world, page)
        world.meta.behave = says("long" * 80, " `", "code" * 60, "`\n\n```\n", "x" * 300, "\n```")
        await ask(page, "w" * 200)
        for end in ("0", "node.scrollHeight"):
            await page.locator("#scroller").evaluate(f"node => node.scrollTo(0, {end})")
            assert await page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
            assert (
                await page.locator("#scroller").evaluate("n => n.scrollWidth - n.clientWidth") <= 0
            )
        trace = answers(page).nth(1).locator(".trace")
        await trace.scroll_into_view_if_needed()
        await shoot(page, "phone-trace")
        await page.get_by_role("button", name="Conversations", exact=True).tap()
        await expect(page.get_by_role("button", name="Close the list")).to_be_focused()
        await _check(page)
        await shoot(page, "phone-drawer")
        await page.keyboard.press("Escape")
        await expect(page.get_by_role("button", name="Conversations", exact=True)).to_be_focused()


async def test_the_theme_switch_is_kept(world: World, page: Page) -> None:
    background = "getComputedStyle(document.documentElement).backgroundColor"
    light = await page.evaluate(background)
    switch = page.get_by_role("button", name="theme; press to change")
    await expect(switch).to_contain_text("System")
    await switch.click()
    await switch.click()
    await expect(switch).to_contain_text("Dark")
    dark = await page.evaluate(background)
    assert dark != light
    await page.reload()
    assert await page.evaluate(background) == dark


MOST_BYTES = 150_000
TIMING = """
() => new Promise((resolve) => setTimeout(() => resolve({
  paint: performance.getEntriesByName("first-contentful-paint")[0]?.startTime,
  bytes: ["navigation", "resource"].flatMap((kind) => performance.getEntriesByType(kind))
    .filter((entry) => !entry.name.includes("/v1/"))
    .reduce((sum, entry) => sum + entry.transferSize, 0),
}), 500))
"""


async def test_it_is_small_and_paints_soon(
    world: World, page: Page, capsys: pytest.CaptureFixture[str]
) -> None:
    first = await page.evaluate(TIMING)
    world.meta.behave = says("$x^2$")
    await expect((await ask(page, "A formula")).locator("math")).to_be_visible()
    everything = (await page.evaluate(TIMING))["bytes"]
    await page.reload()
    again = await page.evaluate(TIMING)
    with capsys.disabled():
        print(
            f"\nchat page: {first['bytes'] / 1000:.0f} kB,"
            f" with formulas {everything / 1000:.0f} kB;"
            f" first paint {first['paint']:.0f} ms, on a reload {again['paint']:.0f} ms"
        )
    assert 10_000 < first["bytes"] < everything < MOST_BYTES
    assert again["bytes"] < first["bytes"] / 4, "the browser fetched again what it has"
    assert first["paint"] < 2000
