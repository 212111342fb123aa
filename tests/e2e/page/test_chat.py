"""Asking, stopping, asking again; conversations, models and settings."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from playwright.async_api import Page, Route, expect

from tests.e2e.page.browser import World, answers, ask, box, over, questions, stored
from tests.fakes import Reply, continues, in_turn, says
from tests.server.conftest import until

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio(loop_scope="module")]

# ---------------------------------------------------------------- asking


async def test_an_answer_streams_in(world: World, page: Page) -> None:
    world.meta.behave = says("Paris ", "is the ", "capital. ", "It is ", "large.", delay=0.15)
    await box(page).fill("What is the capital of France?")
    await box(page).press("Enter")
    answer = answers(page).first
    await expect(answer).to_contain_text("Paris")
    assert "large" not in await answer.inner_text(), "the answer did not stream"
    await expect(page.get_by_role("button", name="Stop")).to_be_visible()
    await over(answer)
    await expect(answer).to_contain_text("Paris is the capital. It is large.")
    await expect(questions(page)).to_contain_text("What is the capital of France?")
    await expect(page).to_have_title("What is the capital of France? · Trivium")
    read = await page.locator("#announcer").inner_text()
    assert "Paris is the capital." in read
    assert "It is large." in read
    sent = world.meta.bodies[0]
    assert sent["messages"] == [{"role": "user", "content": "What is the capital of France?"}]
    [conversation] = await stored(page)
    assert conversation["turns"][1]["segments"], "the page did not ask for a trace"


async def test_stop_keeps_what_is_there_and_ends_the_workers_request(
    world: World, page: Page
) -> None:
    world.meta.behave = says(*("word " for _ in range(200)), delay=0.03)
    await box(page).fill("Go on")
    await box(page).press("Enter")
    await expect(answers(page)).to_contain_text("word word")
    await page.get_by_role("button", name="Stop").click()
    await expect(answers(page)).to_contain_text("Stopped.")
    await until(lambda: world.meta.received[0].aborted)
    await expect(page.get_by_role("button", name="Send")).to_be_visible()
    world.meta.behave = says("Done.")
    await expect(await ask(page, "And now?")).to_contain_text("Done.")
    roles = [message["role"] for message in world.meta.bodies[1]["messages"]]
    assert roles == ["user", "assistant", "user"]


async def test_regenerate_replaces_the_last_answer(world: World, page: Page) -> None:
    world.meta.behave = in_turn(says("First."), says("Second."))
    answer = await ask(page, "Say something")
    await expect(answer).to_contain_text("First.")
    await answer.get_by_role("button", name="Answer again").click()
    await expect(answers(page)).to_have_count(1)
    await expect(answers(page)).to_contain_text("Second.")
    assert world.meta.bodies[0]["messages"] == world.meta.bodies[1]["messages"]


async def test_an_answer_that_no_other_replaces_stays(world: World, page: Page) -> None:
    refused = Reply(status=429, error={"error": {"message": "too much", "code": 429}})
    world.meta.behave = in_turn(says("First."), lambda body: refused, says("Third."))
    answer = await ask(page, "Say something")
    await answer.get_by_role("button", name="Answer again").click()
    await expect(answers(page)).to_contain_text("First.")
    await expect(answers(page)).to_contain_text("No other answer came.")
    [conversation] = await stored(page)
    assert conversation["turns"][1]["text"] == "First."
    await answers(page).get_by_role("button", name="Try again").click()
    await expect(answers(page)).to_contain_text("Third.")
    await expect(answers(page)).not_to_contain_text("No other answer came.")


async def test_edit_and_resend_drops_what_followed(world: World, page: Page) -> None:
    world.meta.behave = in_turn(says("One."), says("Two."), says("Three."))
    await ask(page, "first")
    await ask(page, "second")
    question = questions(page).first
    await question.hover()
    await question.get_by_role("button", name="Edit this message").click()
    await page.get_by_role("textbox", name="Edit your message").fill("changed")
    await question.get_by_role("button", name="Send").click()
    await expect(answers(page)).to_have_count(1)
    await expect(answers(page)).to_contain_text("Three.")
    await expect(questions(page)).to_have_text(["changed"])
    assert world.meta.bodies[2]["messages"] == [{"role": "user", "content": "changed"}]


async def test_model_picker(world: World, page: Page) -> None:
    picker = page.get_by_role("combobox", name="Model")
    await expect(picker.locator("option")).to_have_text(["Auto", "meta", "arithmetic", "astronomy"])
    await expect(picker).to_have_value("trivium")
    await picker.select_option("astronomy")
    await expect(await ask(page, "Hi")).to_contain_text("Moon")
    assert not world.meta.received
    await page.reload()
    await expect(picker).to_have_value("trivium/astronomy")


async def test_system_prompt_and_sampling(world: World, page: Page) -> None:
    await page.get_by_role("button", name="Settings of this chat").click()
    dialog = page.get_by_role("dialog", name="Settings of this chat")
    await dialog.get_by_label("System prompt").fill("Be brief.")
    await dialog.get_by_label("Temperature").fill("0.3")
    await dialog.get_by_label("Longest answer").fill("2")
    await dialog.get_by_role("button", name="Done").click()
    world.meta.behave = says("a ", "b ", "c ")
    answer = await ask(page, "Hi")
    await expect(answer).to_contain_text("The longest answer allowed was reached")
    sent = world.meta.bodies[0]
    assert sent["messages"][0] == {"role": "system", "content": "Be brief."}
    assert (sent["temperature"], sent["max_tokens"]) == (0.3, 2)
    assert "top_p" not in sent
    assert "seed" not in sent


# ---------------------------------------------------------------- conversations


async def test_conversations_survive_a_reload(world: World, page: Page) -> None:
    world.meta.behave = in_turn(says("Alpha."), says("Beta."))
    await ask(page, "first chat")
    await page.get_by_role("button", name="New chat").first.click()
    await expect(answers(page)).to_have_count(0)
    await ask(page, "second chat")
    await page.reload()
    await expect(answers(page)).to_contain_text("Beta.")
    links = page.locator("#conversations a")
    await expect(links).to_have_text(["second chat", "first chat"])
    await links.nth(1).click()
    await expect(answers(page)).to_contain_text("Alpha.")
    await page.go_back()
    await expect(answers(page)).to_contain_text("Beta.")


async def test_rename_export_and_delete(world: World, page: Page) -> None:
    await ask(page, "a question")
    await page.locator("#conversations li").hover()
    await page.get_by_role("button", name="Rename “a question”").click()
    await page.get_by_role("textbox", name="New name").fill("Greetings")
    await page.keyboard.press("Enter")
    await expect(page.locator("#conversations a")).to_have_text(["Greetings"])
    await page.locator("#conversations li").hover()
    async with page.expect_download() as download:
        await page.get_by_role("button", name="Export “Greetings” as JSON").click()
    file = await download.value
    assert file.suggested_filename == "Greetings.json"
    saved = json.loads(Path(await file.path()).read_text())  # noqa: ASYNC240
    assert [turn["text"] for turn in saved["turns"]] == ["a question", "Hello!"]
    assert saved["format"] == "trivium-conversation"
    await page.locator("#conversations li").hover()
    await page.get_by_role("button", name="Delete “Greetings”").click()
    await page.get_by_role("button", name="Keep it").click()
    await expect(page.locator("#conversations li")).to_have_count(1)
    await page.locator("#conversations li").hover()
    await page.get_by_role("button", name="Delete “Greetings”").click()
    await page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    await expect(page.locator("#conversations li")).to_have_count(0)
    await page.reload()
    await expect(page.locator("#conversations li")).to_have_count(0)


async def test_an_answer_cut_by_a_reload_is_kept(world: World, page: Page) -> None:
    world.meta.behave = says(*("word " for _ in range(100)), delay=0.05)
    await box(page).fill("Go on")
    await box(page).press("Enter")
    await expect(answers(page)).to_contain_text("word word")
    await page.reload()
    await expect(answers(page)).to_contain_text("word word")
    await expect(answers(page)).to_contain_text("Stopped.")


async def test_an_answer_whose_connection_breaks_goes_on(world: World, page: Page) -> None:
    """The first request gets what a killed orchestrator has sent, the second another one."""
    world.meta.behave = continues("Foxes ", "are ", "small.")
    chunk = {"choices": [{"index": 0, "delta": {"content": "Foxes "}, "finish_reason": None}]}
    sent = []

    async def broken(route: Route) -> None:
        sent.append(route.request.post_data_json)
        if len(sent) > 1:
            await route.continue_()
            return
        body = f"data: {json.dumps(chunk)}\n\n"
        await route.fulfill(status=200, content_type="text/event-stream", body=body)

    await page.route("**/v1/chat/completions", broken)
    await expect(await ask(page, "What is a fox?")).to_contain_text("Foxes are small.")
    assert sent[1]["messages"][-1] == {"role": "assistant", "content": "Foxes "}
    assert sent[1]["continue_final_message"]
    [conversation] = await stored(page)
    assert [(s["start"], s["end"]) for s in conversation["turns"][1]["segments"]] == [(6, 16)]


async def test_two_tabs_show_and_keep_the_same_conversation(world: World, page: Page) -> None:
    world.meta.behave = in_turn(says("One."), says("Two."), says("Three."))
    await ask(page, "first")
    other = await page.context.new_page()
    await other.goto(page.url)
    await expect(answers(other)).to_have_count(1)
    await ask(other, "second")
    await expect(answers(page)).to_have_count(2)
    await ask(page, "third")
    await expect(answers(other)).to_have_count(3)
    [conversation] = await stored(page)
    texts = [turn["text"] for turn in conversation["turns"]]
    assert texts == ["first", "One.", "second", "Two.", "third", "Three."]
    await other.close()


async def test_a_tab_shows_what_another_writes_and_waits_for_it(world: World, page: Page) -> None:
    world.meta.behave = says(*(f"word{n} " for n in range(60)), delay=0.1)
    await box(page).fill("Go on")
    await box(page).press("Enter")
    await expect(answers(page)).to_contain_text("word1")
    other = await page.context.new_page()
    await other.goto(page.url)
    await expect(answers(other)).to_contain_text("word9")
    await answers(other).evaluate("node => node.marked = true")
    await box(other).fill("Me too")
    await box(other).press("Enter")
    await expect(box(other)).to_have_value("Me too"), "it was sent while the other tab writes"
    for tab in (page, other):
        whole = answers(tab).get_by_role("button", name="Copy answer")
        await expect(whole).to_be_visible(timeout=20_000)
    await expect(answers(other)).to_contain_text("word59")
    assert await answers(other).evaluate("node => node.marked"), "the answer was drawn anew"
    world.meta.behave = says("Fine.")
    await box(other).press("Enter")
    await expect(answers(other).last).to_contain_text("Fine.")
    await expect(answers(page).last).to_contain_text("Fine.")
    await other.close()


async def test_the_page_works_where_site_data_is_blocked(world: World) -> None:
    """As with "block all cookies": the storages themselves cannot be touched."""
    blocked = """
    for (const name of ["localStorage", "sessionStorage"]) Object.defineProperty(
      window, name, { get() { throw new DOMException("blocked", "SecurityError"); } });
    """
    world.reset()
    context = await world.browser.new_context()
    await context.add_init_script(blocked)
    page = await context.new_page()
    await page.goto(world.url)
    notice = page.get_by_text("The browser keeps nothing for this page")
    await expect(notice).to_be_visible(timeout=20_000)  # a profile without any cache
    await expect(await ask(page, "Hi")).to_contain_text("Hello!")
    await context.close()


async def test_focus_stays_in_the_list_where_a_chat_is_deleted(world: World, page: Page) -> None:
    for text in ("One", "Two", "Three"):
        await page.get_by_role("button", name="New chat").first.click()
        await ask(page, text)
    await page.locator("#conversations li").filter(has_text="Two").hover()
    await page.get_by_role("button", name="Delete “Two”").click()
    await page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    await expect(page.get_by_role("link", name="One")).to_be_focused()


async def test_the_skip_link_leaves_the_conversation_in_the_address(
    world: World, page: Page
) -> None:
    await ask(page, "Hi")
    url = page.url
    await page.locator(".skip").focus()
    await page.keyboard.press("Enter")
    await expect(box(page)).to_be_focused()
    assert page.url == url


async def test_an_input_methods_enter_sends_nothing(world: World, page: Page) -> None:
    """As Safari tells of it: the composition is over, and only the key's code says what it was."""
    await box(page).fill("にほん")
    press = "new KeyboardEvent('keydown', {key: 'Enter', keyCode: 229, bubbles: true})"
    await box(page).evaluate(f"box => box.dispatchEvent({press})")
    await expect(answers(page)).to_have_count(0)
    await expect(box(page)).to_have_value("にほん")


async def test_a_chat_goes_on_in_the_background(world: World, page: Page) -> None:
    world.meta.behave = in_turn(says("slow ", "answer", delay=0.3), says("Quick."))
    await box(page).fill("slow")
    await box(page).press("Enter")
    await page.get_by_role("button", name="New chat").first.click()
    await expect(await ask(page, "quick")).to_contain_text("Quick.")
    await page.locator("#conversations a").nth(1).click()
    await expect(answers(page)).to_contain_text("slow answer")
