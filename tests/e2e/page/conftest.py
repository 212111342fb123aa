"""A running orchestrator with fake workers and a browser for each module; a page for each test."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest
import pytest_asyncio
from playwright.async_api import Page

from tests.e2e.page.browser import ChattingMeta, World, chromium, opened
from tests.fakes import FakeWorker, says
from tests.server.workers.test_registration import running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    async with AsyncExitStack() as stack:
        browser = await stack.enter_async_context(chromium())
        meta = await stack.enter_async_context(ChattingMeta())
        arithmetic = await stack.enter_async_context(FakeWorker(says("42"), "sums"))
        astronomy = await stack.enter_async_context(FakeWorker(says("Moon"), "stars"))
        folder = tmp_path_factory.mktemp("page")
        site = await stack.enter_async_context(running(meta, arithmetic, folder))
        world = World(site, meta.chat, arithmetic, astronomy, browser)
        await world.register()
        yield world


@pytest_asyncio.fixture(loop_scope="module")
async def page(world: World) -> AsyncIterator[Page]:
    world.reset()
    async with opened(world.browser, world.url) as page:
        yield page
