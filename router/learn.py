"""Learn one expert's row from its example queries: encode, fit, and keep some back to check."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from router.background import joined
from router.encode import Encoder, Messages
from router.fit import Evidence, Hints, Rivals, Taught, fit_row
from router.framing import framed
from router.general import General, encode_general
from router.head import Background, Floats, HeadRow
from router.joint import JointFit, Training, fit_joint
from router.shipped import shipped_general
from router.solver import FIT_THREADS, Labels
from router.subjects import Subjects
from router.topics import shifts_from, topic_questions
from router.views import last_query, views, with_query

TWO_PART = 12
"""Two-part questions made from the examples."""
MAX_EXAMPLES = 400
"""More example queries than this no longer change the row; the first ones are taken."""
MAX_RIVAL_EXAMPLES = 50
"""Of each other expert, evenly spaced."""
HELD_OUT = 0.2
ROUTED_RATE = 0.03
"""Share of the questions of other subjects that rows learned together may route (cross-validated,
seven experts with 25 examples: of near misses nobody brought, 10 % are routed then)."""

Progress = Callable[[str], None]


@dataclass(frozen=True, eq=False)
class Other:
    """Another expert: its queries, and its row, if it has one for this meta LLM."""

    examples: Sequence[Messages]
    row: HeadRow | None


@dataclass(frozen=True, eq=False)
class Learned:
    """A fitted row, and the examples it has not seen."""

    row: HeadRow
    held_out: tuple[Messages, ...]


@dataclass(frozen=True, eq=False)
class Together:
    """Rows that were fitted together, by name, and the background that belongs to them."""

    experts: Mapping[str, Learned]
    background: Background


async def learn_row(
    encoder: Encoder,
    name: str,
    examples: Sequence[Messages],
    others: Sequence[Other],
    counter: Sequence[Messages] = (),
    background: Background | None = None,
    say: Progress = lambda text: None,
) -> Learned:
    """Fit the row of the expert `name`.

    `examples` are its queries up to where the answer begins; one that ends in an assistant's
    turn is a place inside an answer. `counter` are queries that are not for it. `background` is
    what the others' rows belong to, if there is one. Raises MetaError.
    """
    seen, held_out = split(list(examples)[:MAX_EXAMPLES])
    general = shipped_general(encoder.fingerprint) or await encode_general(encoder, say)
    prompts = _Prompts.of(name, seen, counter[:MAX_EXAMPLES], others, general.openings)
    states = await prompts.encode(encoder, say)
    say("fitting the row")
    rows = [other.row for other in others if other.row is not None]
    against = background or Background.none(encoder.hidden_size)
    with threadpool_limits(FIT_THREADS):
        row = await asyncio.to_thread(_fit, prompts, states, rows, against, general)
    return Learned(row, tuple(held_out))


async def learn_together(
    encoder: Encoder,
    experts: Mapping[str, Sequence[Messages]],
    rows: Mapping[str, HeadRow],
    counter: Sequence[Messages] = (),
    say: Progress = lambda text: None,
) -> Together:
    """Fit where answers begin for all experts at once (`router/joint.py`), and the background
    with them; the rest of their `rows` stays. `counter` are queries that are for none of them.
    Raises MetaError."""
    general = shipped_general(encoder.fingerprint) or await encode_general(encoder, say)
    parts = {name: split(list(examples)[:MAX_EXAMPLES]) for name, examples in experts.items()}
    prompts = [
        replace(_Prompts.of(name, seen, (), (), general.openings), continued=[])
        for name, (seen, _) in parts.items()
    ]
    states = [await own.encode(encoder, say) for own in prompts]
    unwanted = await encoder.states(counter[:MAX_EXAMPLES])
    say("fitting all rows")
    with threadpool_limits(FIT_THREADS):
        fit = await asyncio.to_thread(_fit_together, prompts, states, general, unwanted)
    learned = {}
    for place, (name, (_, held_out)) in enumerate(parts.items()):
        row = rows[name].with_start(fit.weights[place], float(fit.bias[place]), fit.margin)
        learned[name] = Learned(row, tuple(held_out))
    return Together(learned, fit.background)


def _fit_together(
    prompts: Sequence[_Prompts], states: Sequence[_States], general: General, counter: Floats
) -> JointFit:
    counts = [len(own.begins) for own in states]
    starts = np.cumsum([0, *counts])
    view_of = [np.array(own.view_of, np.int64) for own in prompts]
    none = _none(view_of, states, general, counter)
    first = sum(counts)
    training = Training(
        features=np.concatenate([*(own.begins for own in states), none.features]),
        labels=np.repeat([*range(1, len(counts) + 1), 0], [*counts, len(none.features)]),
        kinds=np.concatenate([np.zeros(first, np.int64), none.kinds]),
        views=np.concatenate([*(own.views for own in states), none.views]),
        view_of=np.concatenate(
            [
                *(of + start for of, start in zip(view_of, starts, strict=False)),
                none.view_of + first,
            ]
        ),
        shifts=np.stack([shifts_from(own.topics, general.topics) for own in states]),
        general=general.start,
        general_kind=1 + int(none.kinds.max(initial=-1)),
        two_part=np.concatenate([own.asked for own in states]),
    )
    return fit_joint(training, ROUTED_RATE, ROUTED_RATE)


@dataclass(frozen=True, eq=False)
class _None:
    """What stands for "no expert": features `[n, d]`, the kind `[n]` of each, and views `[m, d]`
    of some, `view_of` `[m]`."""

    features: Floats
    kinds: Labels
    views: Floats
    view_of: Labels


def _none(
    view_of: Sequence[Labels], states: Sequence[_States], general: General, counter: Floats
) -> _None:
    """Shipped near misses, without those of a subject that an expert has, and the user's
    `counter`-examples, which all count."""
    known = general.subject > 0
    subjects = Subjects.fit(general.near[known], general.subject[known] - 1, general.start)
    near = np.where(known, general.subject - 1, subjects.nearest(general.near))
    owned = (subjects.common(s.begins, s.views, of) for s, of in zip(states, view_of, strict=True))
    others = ~np.isin(near, np.concatenate([*owned]))
    kinds = np.concatenate([near[others], subjects.nearest(counter)])
    place, framed_too = np.cumsum(others) - 1, others[general.framed_of]
    return _None(
        features=np.concatenate([general.near[others], counter]),
        kinds=np.unique(kinds, return_inverse=True)[1],
        views=general.framed[framed_too],
        view_of=place[general.framed_of[framed_too]],
    )


def split(examples: list[Messages]) -> tuple[list[Messages], list[Messages]]:
    """Examples to fit on, and every fifth to check with (only the former if there are few).

    Unfinished answers are all fitted on: the check asks for the first token of new answers.
    """
    whole = [example for example in examples if example[-1]["role"] != "assistant"]
    begun = [example for example in examples if example[-1]["role"] == "assistant"]
    step = round(1 / HELD_OUT)
    if len(whole) < 2 * step:
        return examples, []
    seen = [example for i, example in enumerate(whole) if i % step != step - 1]
    return seen + begun, whole[step - 1 :: step]


@dataclass(frozen=True, eq=False)
class _States:
    """The features of a _Prompts' prompts, kind by kind, each `[n, features]`."""

    begins: Floats
    inside: Floats
    views: Floats
    topics: Floats
    asked: Floats
    counter: Floats
    rivals: Floats
    continued: Floats


@dataclass(frozen=True, eq=False)
class _Prompts:
    """What is encoded for one expert.

    Attributes:
        begins: its queries.
        inside: places inside answers where it should carry on.
        views: second views of its queries; `view_of` says of which.
        topics: questions that name it.
        asked: two-part questions: at the start it is not its turn yet,
        continued: and after the first part of the meta LLM's answer it is.
        counter: queries that are not for it.
        rivals: the other experts' queries; `owner` says whose.
    """

    begins: list[Messages]
    inside: list[Messages]
    views: list[Messages]
    topics: list[Messages]
    asked: list[Messages]
    continued: list[Messages]
    counter: list[Messages]
    rivals: list[Messages]
    view_of: list[int] = field(default_factory=list)
    owner: list[int] = field(default_factory=list)

    @classmethod
    def of(
        cls,
        name: str,
        seen: Sequence[Messages],
        counter: Sequence[Messages],
        others: Sequence[Other],
        openings: Sequence[tuple[str, str]],
    ) -> _Prompts:
        begins = [example for example in seen if example[-1]["role"] != "assistant"]
        inside = [example for example in seen if example[-1]["role"] == "assistant"]
        found = views([last_query(example) for example in begins])
        view_of = [number for number, view in enumerate(found) if view is not None]
        seen_as = [with_query(begins[number], found[number] or "") for number in view_of]
        put = [framed(example, number) for number, example in enumerate(begins)]
        asked, continued = _two_part(begins, openings)
        rivals = [(number, e) for number, other in enumerate(others) for e in _some(other.examples)]
        return cls(
            begins=begins,
            inside=inside,
            views=seen_as + put,
            topics=[_ask(question) for question in topic_questions(name)],
            asked=asked + [example[:-1] for example in inside if len(example) > 1],
            continued=continued,
            counter=[query for query in counter if query[-1]["role"] != "assistant"],
            rivals=[example for _, example in rivals],
            view_of=[*view_of, *range(len(begins))],
            owner=[number for number, _ in rivals],
        )

    async def encode(self, encoder: Encoder, say: Progress) -> _States:
        """Continued answers come last: the meta worker has their questions in its cache then."""
        kinds = [self.begins, self.inside, self.views, self.topics, self.asked]
        kinds += [self.counter, self.rivals]
        prompts = [prompt for kind in kinds for prompt in kind]
        total = len(prompts) + len(self.continued)
        states = await encoder.states(prompts, lambda done: say(f"encoding queries {done}/{total}"))
        continued = await encoder.states(
            self.continued, lambda done: say(f"encoding queries {len(prompts) + done}/{total}")
        )
        parts = [*np.split(states, np.cumsum([len(kind) for kind in kinds])[:-1]), continued]
        return _States(*parts)


def _fit(
    prompts: _Prompts,
    states: _States,
    rows: Sequence[HeadRow],
    background: Background,
    general: General,
) -> HeadRow:
    known = general.subject > 0
    place = np.cumsum(known) - 1
    return fit_row(
        own=Evidence(states.begins, states.inside),
        hints=Hints(
            states.views,
            np.array(prompts.view_of, np.int64),
            shifts_from(states.topics, general.topics),
        ),
        two_part=Evidence(states.asked, states.continued),
        counter=states.counter,
        rivals=Rivals(states.rivals, np.array(prompts.owner, np.int64)),
        rows=rows,
        background=background,
        general=Evidence(general.start, general.ends),
        near=general.near[~known],
        taught=Taught(general.near[known], general.framed, place[general.framed_of]),
    )


def _two_part(
    begins: Sequence[Messages], openings: Sequence[tuple[str, str]]
) -> tuple[list[Messages], list[Messages]]:
    """A general question first, then one of the expert's; and the same when the meta LLM has
    answered the first part, as it answers it alone."""
    rng = random.Random(2)
    own = [e[0]["content"] for e in begins if len(e) == 1 and e[0]["role"] == "user"]
    if not own or not openings:
        return [], []
    asked, continued = [], []
    for first, opening in rng.sample(openings, min(TWO_PART, len(openings))):
        question = _ask(joined(first, rng.choice(own), rng))
        asked.append(question)
        continued.append([*question, {"role": "assistant", "content": opening}])
    return asked, continued


def _some(examples: Sequence[Messages]) -> list[Messages]:
    """Of those that were encoded when their expert was learned: they are in the cache."""
    seen, _ = split(list(examples)[:MAX_EXAMPLES])
    whole = [example for example in seen if example[-1]["role"] != "assistant"]
    return whole[:: max(1, -(-len(whole) // MAX_RIVAL_EXAMPLES))]


def _ask(query: str) -> Messages:
    return [{"role": "user", "content": query}]
