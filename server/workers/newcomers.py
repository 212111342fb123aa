"""What an expert must show before it is called: that it generates, that its examples are its own,
and that the running meta LLM routes them to it."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from experts.manifest import Example, Manifest
from experts.registry import RegisteredExpert
from router.encode import Messages
from router.learn import Learned
from router.meta_client import MetaClient, MetaInfo
from server.errors import Unprocessable, UpstreamError
from server.relay.legs import META
from server.relay.snapshot import Endpoint
from server.relay.upstream import ChatUpstream
from server.workers.worker import Worker, WorkerFailed

MIN_ACCURACY = 0.5
"""Share of held-out examples the meta must route right for an expert to be accepted."""


@dataclass(frozen=True)
class Checked:
    """Where the running meta routes an expert's held-out examples; None without any."""

    accuracy: float | None = None
    routes: Mapping[str, int] | None = None


async def ready_endpoints(worker: Worker) -> tuple[Endpoint, ...]:
    """Where its replicas answer, once they do. Raises Unprocessable."""
    try:
        return await worker.ready()
    except WorkerFailed as error:
        raise Unprocessable(str(error), param="worker") from None


async def ask_first_word(upstream: ChatUpstream, endpoint: Endpoint, manifest: Manifest) -> None:
    """One short generation. Raises Unprocessable if the model cannot do it."""
    messages = [m.model_dump() for m in manifest.examples[0].messages]
    continued = messages[-1]["role"] == "assistant"
    body = {
        "model": endpoint.model,
        "messages": messages[:-1] if continued else messages,
        "max_tokens": 1,
        "stream": True,
    }
    try:
        async for _ in upstream.stream_chat(endpoint, body):
            pass
    except UpstreamError as error:
        raise Unprocessable(f"the expert's worker does not generate: {error}") from None


def refuse_shared(manifest: Manifest, experts: Iterable[RegisteredExpert]) -> None:
    """Raise Unprocessable if examples are also those of another expert: a query can be handed
    to one of them only."""
    own = {text_of(prompt): prompt for prompt in prompts(manifest)}
    for expert in experts:
        shared = [text for text in map(text_of, prompts(expert.manifest)) if text in own]
        if expert.name != manifest.name and shared:
            raise Unprocessable(
                f"{len(shared)} of the {len(own)} examples are examples of the expert"
                f" {expert.name!r} too (such as {shared[0][:60]!r}): leave them out of one of"
                " the two, or remove the other expert first",
                param="examples",
            )


async def check_held_out(
    meta: MetaClient,
    info: MetaInfo,
    slots: Mapping[int, str],
    name: str,
    learned: Learned,
) -> Checked:
    """Where the running meta routes the held-out examples of `name`. `slots` says who has
    which.

    Raises Unprocessable if less than MIN_ACCURACY of them reach it.
    """
    if not learned.held_out:
        return Checked()
    names = {info.vocabulary.token_id(slot): who for slot, who in sorted(slots.items())}
    routes = await asyncio.gather(*(meta.routed_to(p, [*names]) for p in learned.held_out))
    found = Counter(names[route] if route is not None else META for route in routes)
    accuracy = found[name] / len(routes)
    if accuracy < MIN_ACCURACY:
        del found[name]
        most, count = found.most_common(1)[0]
        where = "stay at the meta LLM" if most == META else f"go to the expert {most!r}"
        raise Unprocessable(
            f"only {accuracy:.0%} of {len(routes)} held-out examples of {name!r} reach"
            f" it, and {count} {where}: give more examples, or examples that differ more from"
            " general queries and from those of other experts",
            param="examples",
        )
    return Checked(accuracy, dict(found))


def text_of(prompt: Messages) -> str:
    """What two prompts have in common that are the same but for case and blanks."""
    return "\n".join(f"{m['role']}: {' '.join(m['content'].lower().split())}" for m in prompt)


def prompts(manifest: Manifest) -> list[Messages]:
    """A manifest's examples."""
    return asked(manifest.examples)


def asked(examples: Sequence[Example]) -> list[Messages]:
    """Examples as the meta LLM is asked them."""
    return [[m.model_dump() for m in example.messages] for example in examples]


def counter_examples(experts: Mapping[str, RegisteredExpert]) -> list[Messages]:
    """Counter-examples of experts, but for those that are examples of another one."""
    manifests = [expert.manifest for expert in experts.values()]
    own = {text_of(prompt) for manifest in manifests for prompt in prompts(manifest)}
    counter = [prompt for manifest in manifests for prompt in asked(manifest.counter_examples)]
    return [prompt for prompt in counter if text_of(prompt) not in own]
