"""A real Ray cluster of three nodes with real vLLM workers: placed, scaled, woken, and killed."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import ray
from openai import OpenAI
from ray import serve
from ray.cluster_utils import Cluster

from experts.manifest import ManagedWorker
from experts.starter import arithmetic_folder
from server.ray.application import Arguments, ExpertModels, MetaModel, Orchestrators, build
from server.ray.placement import ServeCluster
from server.ray.scaling import Scale, Share
from server.workers.worker import free_port

pytestmark = pytest.mark.e2e
LOOPBACK = "127.0.0.1"
HEAD, *NODES = "127.0.0.2", "127.0.0.3", "127.0.0.4"
"""Loopback too, but Ray does not take them for it: on 127.0.0.1 it would listen elsewhere."""
START_SECONDS = 600.0
SUM = "What is 4821 + 3977?"
LONG = "What is 8731 times 4629?"
TOKENS = 1500


@dataclass
class Site:
    """The application on the cluster, asked over HTTP."""

    port: int
    cluster: Any
    experts: list[Any]
    """Nodes that may have experts."""
    arguments: Arguments

    @property
    def http(self) -> httpx.Client:
        return httpx.Client(base_url=f"http://{LOOPBACK}:{self.port}", timeout=300)

    @property
    def client(self) -> OpenAI:
        url = f"http://{LOOPBACK}:{self.port}/v1"
        return OpenAI(base_url=url, api_key="none", max_retries=0, timeout=300)

    def health(self) -> dict[str, Any]:
        try:
            with self.http as http:
                response = http.get("/health")
        except httpx.HTTPError:
            return {}
        return dict(response.json()) if response.status_code == 200 else {}

    def state(self, name: str = "arithmetic") -> str:
        return str(self.health().get("experts", {}).get(name))

    def ask(self, question: str, **options: Any) -> str:
        answer = self.client.chat.completions.create(
            model="trivium", messages=[{"role": "user", "content": question}], **options
        )
        return str(answer.choices[0].message.content)

    def stream(self, tokens: int) -> tuple[str, int]:
        """A long answer of the expert: how it ended, and its tokens. An error event raises."""
        stream: Any = self.client.chat.completions.create(
            model="trivium/arithmetic",
            messages=[{"role": "user", "content": LONG}],
            max_tokens=tokens,
            stream=True,
            stream_options={"include_usage": True},
            extra_body={"ignore_eos": True},
        )
        finish, used = "", 0
        for chunk in stream:
            finish = next((c.finish_reason for c in chunk.choices if c.finish_reason), finish)
            used = chunk.usage.completion_tokens if chunk.usage else used
        return finish, used


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("ray")
    port = free_port()
    cluster = Cluster(
        initialize_head=True,
        head_node_args={
            "num_cpus": 4,
            "resources": {"head": 2},
            "node_ip_address": HEAD,
            "include_dashboard": False,
        },
    )
    try:
        experts = [
            cluster.add_node(num_cpus=1, node_ip_address=address, resources={"expert": 1})
            for address in NODES
        ]
        ray.init(address=cluster.address, _node_ip_address=HEAD, log_to_driver=False)
        serve.start(http_options={"host": LOOPBACK, "port": port, "location": "HeadOnly"})
        given = arguments(folder)
        serve.run(build(given), name="trivium", route_prefix="/")
        site = Site(port, cluster, experts, given)
        until(lambda: site.health().get("meta") == "live")
        yield site
    finally:
        serve.shutdown()
        ray.shutdown()
        cluster.shutdown()


def arguments(folder: Path) -> Arguments:
    """One expert on a node of its own, two at most; everything quick to decide."""
    scale = Scale(
        target_requests=2,
        upscale_delay_s=1,
        downscale_delay_s=5,
        idle_seconds=10,  # counts reach the controller seconds late on a busy machine
        look_back_s=4,
    )
    at_head = Share(resources={"head": 1})
    return Arguments(
        orchestrators=Orchestrators(share=at_head),
        meta=MetaModel(share=at_head),
        experts=ExpertModels(scale=scale, share=Share(resources={"expert": 1})),
        environment={
            "TRIVIUM_STATE_DIR": str(folder),
            "TRIVIUM_KEYS": "off",
            "TRIVIUM_STARTER_EXPERTS": "false",
            "TRIVIUM_MODEL_DIRS": f'["{arithmetic_folder()}"]',
            "TRIVIUM_PROBE_SECONDS": "1",
            "TRIVIUM_DRAIN_SECONDS": "20",
        },
    )


def until(what: Callable[[], bool], seconds: float = START_SECONDS) -> float:
    """Seconds until something is so."""
    began = time.monotonic()
    while not what():
        assert time.monotonic() - began < seconds, "it took too long"
        time.sleep(0.25)
    return time.monotonic() - began


def test_an_expert_is_registered_and_called(site: Site) -> None:
    folder = arithmetic_folder()
    manifest = {
        "name": "arithmetic",
        "description": "Exact arithmetic, worked out step by step.",
        "worker": {"checkpoint": str(folder / "checkpoint"), "replicas": 2, "min_replicas": 0},
        "examples": str(folder / "examples.jsonl"),
    }
    with site.http as http:
        answer = http.post("/v1/experts", json=manifest, timeout=START_SECONDS)
    assert answer.status_code == 201, answer.text
    assert "8798" in site.ask(SUM)
    assert "trivium-expert-arithmetic" in serve.status().applications


def test_another_orchestrator_that_deploys_it_too_changes_nothing(site: Site) -> None:
    spec = ManagedWorker(checkpoint=arithmetic_folder() / "checkpoint", replicas=2, min_replicas=0)
    defaults = site.arguments.defaults(site.arguments.settings())

    @ray.remote(num_cpus=0, runtime_env={"env_vars": dict(site.arguments.environment)})
    def another() -> None:
        """As in a replica of the orchestrator: Ray adds a deployer's environment."""
        asyncio.run(ServeCluster(defaults, "trivium").deploy("arithmetic", spec))

    enough = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        load = pool.submit(keep_asking, site, enough)  # an idle one would go to sleep by itself
        try:
            until(lambda: len(workers("arithmetic")) == 1)
            (before,) = workers("arithmetic")
            ray.get(another.remote())
            time.sleep(10)
            after = workers("arithmetic")
        finally:
            enough.set()
        ends = load.result()
    assert [process.pid for process in after] == [before.pid]
    assert set(ends) == {("length", TOKENS)}


def test_replicas_come_under_load_and_a_lost_node_ends_no_stream(site: Site) -> None:
    enough = threading.Event()
    with ThreadPoolExecutor(8) as pool:
        load = [pool.submit(keep_asking, site, enough) for _ in range(8)]
        try:
            seconds = until(lambda: "2 replicas" in site.state())
            time.sleep(2)  # both have answers to write
            kill(site, site.experts.pop())
        finally:
            enough.set()
        ends = [end for asked in load for end in asked.result()]
    assert len(ends) > 8
    assert set(ends) == {("length", TOKENS)}
    print(f"a second replica after {seconds:.0f} s; {len(ends)} streams, all whole")


def keep_asking(site: Site, enough: threading.Event) -> list[tuple[str, int]]:
    """How streams ended, one begun after the other until it is enough."""
    ends = []
    while not enough.is_set():
        ends.append(site.stream(TOKENS))
    return ends


def test_an_idle_expert_sleeps_and_is_woken(site: Site) -> None:
    print(f"asleep after {until(lambda: 'asleep' in site.state()):.0f} s")
    until(lambda: not workers("arithmetic"), 60)  # a replica that leaves answers a while longer
    began = time.monotonic()
    assert "8798" in site.ask(SUM)
    print(f"woken, and answered after {time.monotonic() - began:.0f} s")
    assert len(workers("arithmetic")) == 1


def test_a_meta_worker_that_is_killed_comes_back_with_the_head(site: Site) -> None:
    (meta,) = workers("meta")
    meta.kill()
    until(lambda: meta.pid not in [p.pid for p in workers("meta")] and bool(workers("meta")))
    until(lambda: site.health().get("meta") == "live")
    assert "8798" in site.ask(SUM)


def test_a_removed_expert_leaves_the_cluster(site: Site) -> None:
    with site.http as http:
        assert http.delete("/v1/experts/arithmetic").status_code in (200, 204)
    until(lambda: "trivium-expert-arithmetic" not in serve.status().applications, 120)
    until(lambda: not workers("arithmetic"), 60)


def workers(name: str) -> list[psutil.Process]:
    """vLLM processes of this machine that serve a model for Ray's replicas."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        command = process.info["cmdline"] or []
        if "--served-model-name" in command and "vllm.entrypoints.openai.api_server" in command:
            served = command[command.index("--served-model-name") + 1]
            if served == name and any("ray::" in " ".join(p.cmdline()) for p in process.parents()):
                found.append(process)
    return found


def kill(site: Site, node: Any) -> None:
    """As if its machine lost power: the raylet and all it started."""
    raylet = next(p.process.pid for p in node.all_processes["raylet"])
    for process in [*psutil.Process(raylet).children(recursive=True), psutil.Process(raylet)]:
        os.kill(process.pid, signal.SIGKILL)
    site.cluster.worker_nodes.discard(node)
