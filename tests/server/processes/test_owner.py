"""A server of two processes: they answer as one, and each outlives what befalls the other."""

from __future__ import annotations

import asyncio
import json
import re
import signal
from collections.abc import AsyncIterator

import httpx
import pytest
import pytest_asyncio

from tests.server.processes.sites import SLOW_TEXT as SLOWLY
from tests.server.processes.sites import Many, ask, begun, many, text_of
from tests.server.workers.test_registration import STARS, SUMS

pytestmark = pytest.mark.asyncio(loop_scope="module")

GONE_SECONDS = 10
"""For a process that is to end."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Many]:
    async with many(tmp_path_factory.mktemp("many")) as running:
        yield running


@pytest.fixture
def site(server: Many) -> Many:
    server.write_at_once()
    server.meta.writer.received.clear()
    server.expert.received.clear()
    return server


# ---------------------------------------------------------------- as one


async def test_both_processes_answer(site: Many) -> None:
    async with site.through_each() as clients:
        for http in clients:
            assert await text_of(http) == "42"
            assert (await http.get("/health")).json() == {
                "status": "ok",
                "meta": "live",
                "experts": {},
            }
        models = [(await http.get("/v1/models")).json() for http in clients]
        assert models[0] == models[1]
        for path in ("/", "/openapi.json", "/v1/experts", "/nothing"):
            first, second = [await http.get(path) for http in clients]
            assert (first.status_code, first.text) == (second.status_code, second.text)


async def test_an_expert_registered_through_one_answers_through_the_other(site: Many) -> None:
    async with site.through_each() as (owner, relay):
        for name, here, there in (("sums", owner, relay), ("suns", relay, owner)):
            said = {"x-request-id": f"adding-{name}"}
            examples = [f"{example} {name}" for example in SUMS]
            added = await here.post("/v1/experts", json=site.manifest(name, examples), headers=said)
            assert added.status_code == 201, added.text
            assert added.headers["x-request-id"] == said["x-request-id"]
            assert await text_of(there, model=f"trivium/{name}") == "42"
            assert await text_of(here, model=f"trivium/{name}") == "42"
            assert (await there.delete(f"/v1/experts/{name}")).status_code == 204
            for http in (here, there):
                assert (await ask(http, model=f"trivium/{name}")).status_code == 404
    lines = [json.loads(line) for line in site.state("logs/audit.log").read_text().splitlines()]
    added = [line for line in lines if str(line.get("request")).startswith("adding-")]
    assert [(line["request"], line["object"], line["outcome"]) for line in added] == [
        ("adding-sums", "sums", "ok"),
        ("adding-suns", "suns", "ok"),
    ]


async def test_what_an_answer_in_a_relay_may_need_stays(site: Many) -> None:
    async with site.through_each() as (owner, relay):
        assert (await owner.post("/v1/experts", json=site.manifest("sums", SUMS))).is_success
        site.expert.received.clear()  # the registration has asked, too
        site.write_slowly(8)
        answer = asyncio.create_task(text_of(relay, model="trivium/sums"))
        await begun(site.expert, 1)
        site.write_at_once()
        assert (await owner.delete("/v1/experts/sums")).status_code == 204
        stars = await owner.post("/v1/experts", json=site.manifest("stars", STARS))
        assert stars.json()["slot"] == 1, "the slot of an expert that still writes was given away"
        again = await owner.post("/v1/experts?wait=false", json=site.manifest("sums", SUMS))
        step = again.json()["registration"]["step"]
        assert not answer.done(), "the answer was over before the test"
        assert step == "waiting for its turn"
        assert await answer == SLOWLY
        async with asyncio.timeout(20):
            while (view := (await owner.get("/v1/experts/sums")).json())["state"] != "live":  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        assert view["slot"] == 0
        for name in ("sums", "stars"):
            assert (await owner.delete(f"/v1/experts/{name}")).status_code == 204


async def test_metrics_add_up_and_outlive_a_relay(site: Many) -> None:
    async with site.through_each() as (owner, relay):
        before = answers(await owner.get("/metrics"))
        for http in (owner, relay, relay):
            await text_of(http)
        pages = [await http.get("/metrics") for http in (owner, relay)]
        assert [answers(page) for page in pages] == [before + 3, before + 3]
        for sample in ("process_start_time_seconds", 'trivium_worker_state{state="live"'):
            assert pages[0].text.count(f"\n{sample}") == 1
        site.write_slowly()
        running = [asyncio.create_task(text_of(http)) for http in (owner, relay)]
        await begun(site.meta.writer, 5)
        async with httpx.AsyncClient(base_url=site.url) as http:
            assert "trivium_requests_in_flight 2.0" in (await http.get("/metrics")).text
        await asyncio.gather(*running)
        await replaced(site)
        async with httpx.AsyncClient(base_url=site.url) as http:
            page = await http.get("/metrics")
        assert answers(page) >= before + 3, "what the relay had counted was forgotten"
        assert "trivium_requests_in_flight 0.0" in page.text


async def test_a_killed_relay_takes_only_its_own_answers_along(site: Many) -> None:
    site.write_slowly()
    async with site.through_each() as (owner, relay):
        kept, lost = (asyncio.create_task(text_of(http)) for http in (owner, relay))
        await begun(site.meta.writer, 2)
        await replaced(site)
        with pytest.raises(httpx.RemoteProtocolError):
            await lost
        assert await kept == SLOWLY
    site.write_at_once()
    async with site.through_each() as (_, relay):
        assert await text_of(relay) == "42"


async def test_lines_of_several_processes_are_whole(site: Many) -> None:
    async with site.through_each() as clients:
        await asyncio.gather(*(many_requests(http) for http in clients))
    assert len([json.loads(line) for line in site.log.splitlines()]) > 400


async def many_requests(http: httpx.AsyncClient) -> None:
    for number in range(200):
        await http.get(f"/v1/models/{number}/{'x' * 150}")


async def replaced(site: Many) -> None:
    """Kill the relay, and wait until another has come."""
    (old,) = site.relays()
    old.kill()
    async with asyncio.timeout(30):
        while not (left := site.relays()) or left[0].pid == old.pid:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    await site.until_up()


def answers(page: httpx.Response) -> float:
    """Finished answers, as /metrics says."""
    found = re.search(r'trivium_answers_total\{.*outcome="finished"} (\S+)', page.text)
    return float(found[1]) if found else 0.0


# ---------------------------------------------------------------- the end


async def test_ctrl_c_lets_answers_of_all_processes_finish(site: Many) -> None:
    """Keep it the last of this module: it ends the server."""
    site.write_slowly()
    async with site.through_each() as clients:
        running = [asyncio.create_task(text_of(http)) for http in clients]
        await begun(site.meta.writer, 2)
        (relay,) = site.relays()
        site.process.send_signal(signal.SIGINT)
        await asyncio.sleep(0.5)
        async with httpx.AsyncClient(base_url=site.url) as http:
            assert (await ask(http)).status_code == 503
        assert await asyncio.gather(*running) == [SLOWLY] * 2
    await asyncio.to_thread(site.process.wait, GONE_SECONDS)
    assert site.process.returncode == 0
    assert not relay.is_running()
