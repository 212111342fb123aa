"""A server that is told to stop: running answers finish, or end with an error event."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
import uvicorn

from server.workers.draining import Drain, Draining, DrainingServer
from server.workers.worker import free_port
from tests.fakes import ExpertToken, FakeWorker, says
from tests.server.conftest import ARITHMETIC, Streamed, World, make_app, until
from tests.server.relay.test_chaos import Meta


@dataclass
class Stopping:
    """A world behind a server that can be told to stop, as by a signal."""

    world: World
    drain: Drain
    server: DrainingServer
    serving: asyncio.Task[None]

    def tell(self) -> None:
        self.server.handle_exit(signal.SIGTERM, None)

    async def stopped(self, seconds: float = 5.0) -> None:
        await asyncio.wait_for(asyncio.shield(self.serving), seconds)
        assert not self.server.force_exit


async def serve(server: uvicorn.Server) -> None:
    """What `Server.serve` does, without catching the signals of the process."""
    await server.main_loop()
    await server.shutdown()


@asynccontextmanager
async def stopping(world: World, seconds: float) -> AsyncIterator[Stopping]:
    drain = Drain(seconds)
    app = make_app(world, lambda app: app.add_middleware(Draining, drain=drain), drain)
    config = uvicorn.Config(app, port=0, log_level="critical", timeout_graceful_shutdown=1)
    config.load()
    server = DrainingServer(config, drain)
    server.lifespan = config.lifespan_class(config)
    await server.startup()
    drain.subscribe(world.pool.end)
    url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    async with httpx.AsyncClient(base_url=url, timeout=10, verify=False) as world.http:
        site = Stopping(world, drain, server, asyncio.create_task(serve(server)))
        yield site
        server.should_exit = True
        await site.stopped()


async def running(site: Stopping) -> asyncio.Task[Streamed]:
    """A stream of which the client has seen the beginning."""
    asked = len(site.world.meta.received)
    task = asyncio.create_task(site.world.stream(max_tokens=4000))
    await until(lambda: len(site.world.meta.received) > asked)
    await asyncio.sleep(0.05)
    return task


async def test_running_answers_finish(world: World) -> None:
    words = [f"{n} " for n in range(30)]
    world.meta.behave = says(*words, delay=0.02)
    async with stopping(world, 10) as site:
        stream = await running(site)
        site.tell()
        await until(lambda: site.drain.begun)
        refused = await world.ask("new")
        assert refused.status_code == 503
        assert refused.json()["error"]["code"] == "shutting_down"
        assert int(refused.headers["retry-after"]) > 0
        health = await world.http.get("/health")
        assert (health.status_code, health.json()["status"]) == (503, "draining")
        assert (await world.http.get("/v1/models")).status_code == 200
        streamed = await stream
        assert (streamed.text(), streamed.finish()) == ("".join(words), ["stop"])
        await site.stopped()
    assert len(world.meta.received) == 1


@pytest.mark.parametrize("stalled", [False, True])
async def test_what_takes_too_long_ends_with_an_error_event(world: World, stalled: bool) -> None:
    world.timeouts = world.timeouts.__class__(first_token=60, stall=60)
    if stalled:
        world.meta.behave = says("a ", "b", failure="stall", fail_after=1)
    else:
        world.meta.behave = says(*["word "] * 3000, delay=0.01)
    async with stopping(world, 0.3) as site:
        stream = await running(site)
        site.tell()
        streamed = await stream
        assert streamed.chunks[-1]["error"]["code"] == "shutting_down"
        assert streamed.done
        assert streamed.finish() == []
        await site.stopped()
    await asyncio.wait_for(world.meta.received[0].over.wait(), 1)
    assert world.meta.received[0].aborted


async def test_told_twice_it_waits_no_longer(world: World) -> None:
    world.meta.behave = says(*["word "] * 3000, delay=0.01)
    async with stopping(world, 60) as site:
        stream = await running(site)
        site.tell()
        await asyncio.sleep(0.2)
        assert not site.server.should_exit
        site.tell()
        assert (await stream).chunks[-1]["error"]["code"] == "shutting_down"
        await site.stopped()


async def test_with_nothing_to_do_it_stops_at_once(world: World) -> None:
    async with stopping(world, 60) as site:
        assert (await world.ask()).status_code == 200
        site.tell()
        await site.stopped(2)


async def test_an_answer_may_still_be_handed_over(world: World) -> None:
    world.meta.behave = says("sum ", ExpertToken(ARITHMETIC), delay=0.3)
    async with stopping(world, 10) as site:
        stream = await running(site)
        site.tell()
        assert (await stream).text() == "sum 42"
        await site.stopped()


async def test_choices_are_all_ended(world: World) -> None:
    world.meta.behave = says(*["word "] * 3000, delay=0.01)
    async with stopping(world, 0.2) as site:
        response = asyncio.create_task(world.ask(n=3, stream=True))
        await until(lambda: len(world.meta.received) == 3)
        await asyncio.sleep(0.05)
        site.tell()
        text = (await response).text
        assert text.count('"code":"shutting_down"') == 1
        assert text.endswith("data: [DONE]\n\n")
        await site.stopped()


# ---------------------------------------------------------------- real signals


@dataclass
class Command:
    """`trivium serve` in a process of its own."""

    process: asyncio.subprocess.Process
    world: World
    """For its client alone."""

    def interrupt(self) -> None:
        self.process.send_signal(signal.SIGINT)


@asynccontextmanager
async def command(meta: FakeWorker, folder: Path) -> AsyncIterator[Command]:
    """The command has begun to serve, with a meta worker that runs here."""
    port, meta_url = free_port(), meta.endpoint.base_url.removesuffix("/v1")
    call = "from server.cli import main; main()"
    arguments = ("serve", "--port", str(port), "--no-starter-experts", "--meta-url", meta_url)
    folders = {"TRIVIUM_STATE_DIR": str(folder), "TRIVIUM_CACHE_DIR": str(folder)}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", call, *arguments),
        env={**os.environ, **folders, "PYTHONUNBUFFERED": "1"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    assert process.stdout is not None
    url, world = f"http://127.0.0.1:{port}", World()
    try:
        async with asyncio.timeout(60):
            while b"serving on" not in (line := await process.stdout.readline()):
                assert line, "the command ended"
        async with httpx.AsyncClient(base_url=url, timeout=30, verify=False) as world.http:
            while (await world.http.get("/health")).status_code != 200:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
            yield Command(process, world)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


@pytest.mark.parametrize("times", [1, 2])
async def test_ctrl_c_in_a_terminal(tmp_path: Path, times: int) -> None:
    words = [f"{number} " for number in range(60)]
    meta = Meta(says(*words, delay=0.03), "meta")
    async with meta, command(meta, tmp_path) as trivium:
        stream = asyncio.create_task(trivium.world.stream())
        await until(lambda: meta.received, 10)
        await asyncio.sleep(0.2)
        for _ in range(times):
            trivium.interrupt()
            await asyncio.sleep(0.3)
        streamed = await stream
        output, _ = await asyncio.wait_for(trivium.process.communicate(), 20)
        assert trivium.process.returncode == 0, output
        assert output.decode().rstrip().endswith("stopped")
        assert b"running requests: 1;" in output
    assert streamed.done
    if times == 1:
        assert (streamed.text(), streamed.finish()) == ("".join(words), ["stop"])
    else:
        assert streamed.chunks[-1]["error"]["code"] == "shutting_down"
