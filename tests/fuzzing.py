"""Schemathesis over a whole orchestrator with fake workers: is the OpenAPI document true?"""

from __future__ import annotations

import asyncio
import re
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.fake_meta import FIRST_ID, FakeMeta
from tests.fakes import ExpertToken, FakeWorker, says
from tests.server.workers.test_registration import Site, running

CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "unsupported_method",
    "allow_header_conformance",
    "use_after_free",
)
"""Not: negative_data_rejection, since numbers in strings and fields we do not know are taken, as
vLLM takes them; positive_data_acceptance, since fields may contradict each other in ways that
JSON Schema cannot say."""


CONFIG = """
[checks.not_a_server_error]
expected-statuses = ["2xx", "3xx", "4xx", 504]
"""
"""504: a request may say itself how long its answer may take."""
MOST_SECONDS = 1800
"""For one run of Schemathesis: longer, and something hangs."""


@asynccontextmanager
async def site_to_fuzz(folder: Path) -> AsyncIterator[Site]:
    """An orchestrator with one expert, which the meta calls in mid-answer. Registrations may name
    no file of this machine, and give up soon."""
    async with AsyncExitStack() as stack:
        meta = await stack.enter_async_context(FakeMeta())
        meta.writer.behave = says("Yes ", ExpertToken(FIRST_ID), "no")
        expert = await stack.enter_async_context(FakeWorker(says("4", "2"), "calc"))
        site = await stack.enter_async_context(
            running(meta, expert, folder, model_dirs=(folder / "models",), worker_start_seconds=0.5)
        )
        assert (await site.add()).status_code == 201
        yield site


@dataclass(frozen=True)
class Fuzzed:
    """What a run found. `output` is Schemathesis's own."""

    cases: int
    status: int
    seconds: float
    output: str


async def fuzz(
    url: str, *, phases: str, folder: Path, examples: int = 1, seed: int | None = None
) -> Fuzzed:
    """Run Schemathesis against `url` with at most `examples` random cases an operation; without a
    `seed` they are the same each time."""
    began = time.monotonic()
    (folder / "schemathesis.toml").write_text(CONFIG)
    arguments = [
        *(sys.executable, "-m", "schemathesis.cli", "--no-color", "run", f"{url}/openapi.json"),
        *("--checks", ",".join(CHECKS), "--phases", phases, "--max-examples", str(examples)),
        *(("--generation-deterministic",) if seed is None else ("--seed", str(seed))),
        *("--request-timeout", "10", "--warnings", "off", "--no-shrink"),
        *("--continue-on-failure", "--suppress-health-check", "all"),
    ]
    process = await asyncio.create_subprocess_exec(
        *arguments, cwd=folder, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    try:
        async with asyncio.timeout(MOST_SECONDS):
            output, _ = await process.communicate()
    except BaseException:
        process.kill()
        await process.wait()
        raise
    took = time.monotonic() - began
    text = output.decode("utf-8", "replace")
    generated = re.search(r"(\d+) generated", text)
    if generated is None:
        raise RuntimeError(text)
    return Fuzzed(int(generated[1]), process.returncode or 0, took, text)
