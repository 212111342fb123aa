"""The pure state machine of one choice: which model writes next, and what the client sees.

    decision ──> whole at expert ──> whole at meta            (tools, grammars)
    text at meta ──expert token──> text at expert ──> finish
         ^                              │ failure: resume at another replica of the expert;
         └───── without one: resume at meta, that expert's token masked

A failed leg at the meta is resumed there too, at another replica if there is one. "Home" is the
model that begins and that answers are resumed at: the meta LLM, or the model that the client
pinned.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import msgspec

from server.errors import (
    ContextTooLong,
    DeadlineExceeded,
    NotReady,
    ShuttingDown,
    TriviumError,
    UpstreamRejected,
)
from server.relay.events import (
    Considered,
    Event,
    Failed,
    Finished,
    RawDelta,
    Routed,
    Segment,
    TextDelta,
    Usage,
    WorkerEvent,
)
from server.relay.legs import Leg, Plan, Target
from server.relay.snapshot import LiveExpert
from server.relay.stops import SeamStops

MAX_FAILURES = 10
"""Legs that may fail in one choice before it is given up."""
MAX_FRUITLESS = 3
"""Legs in a row that may fail without having written any text."""


@dataclass(frozen=True)
class LegEnded:
    """The worker's stream is complete (a `Finished` came)."""

    kind: Literal["leg_ended"] = "leg_ended"


@dataclass(frozen=True)
class LegFailed:
    """The worker's stream failed, before or after its first event.

    `another`: the same model has a replica that can be asked and has not failed in this choice.
    """

    error: TriviumError
    another: bool = False
    kind: Literal["leg_failed"] = "leg_failed"


class Emit(msgspec.Struct, frozen=True):
    """Pass `event` on."""

    event: Event


@dataclass(frozen=True)
class StartLeg:
    """Leave the current leg, if any, and start this one."""

    leg: Leg


@dataclass(frozen=True)
class Done:
    """This choice is over; leave the current leg."""


Action = Emit | StartLeg | Done


@dataclass
class _Progress:
    """The current leg and what has come of it so far."""

    leg: Leg
    start: int
    since: float
    token_id: int | None = None
    """The expert token that led here, and its probability there."""
    probability: float | None = None
    usage: Usage | None = None
    deltas: int = 0
    first: float | None = None
    """When the first delta came."""
    closed: bool = False
    finish: Finished | None = None
    chances: Mapping[str, float] | None = None
    """Of each expert, where this leg ended with an expert token, or else where it began."""

    def tokens(self) -> int:
        """Tokens of the answer that this leg wrote; the expert token is none of them."""
        if self.leg.purpose == "decision":
            return 0
        if self.usage is None:
            return self.deltas
        return self.usage.completion_tokens - (self.chosen() is not None)

    def chosen(self) -> LiveExpert | None:
        """The expert whose token ended this leg."""
        finish = self.finish
        if finish is None or finish.finish_reason != "stop":
            return None
        return next((e for e in self.leg.experts if e.token_id == finish.stop_reason), None)


class Handoff:
    """One choice of one request. Times are seconds of any monotonic clock."""

    _now: _Progress

    def __init__(self, plan: Plan, choice: int = 0, began: float = 0.0) -> None:
        self._plan = plan
        self._choice = choice
        self._began = began
        stops = () if plan.structured else plan.stops
        self._stops = SeamStops(stops, include=plan.include_stop)
        self._parts: list[str] = []
        self._sent = 0
        self._spent = 0
        self._resumable = True
        self._lost: set[str] = set()
        """Experts that failed; their tokens are masked from then on."""
        self._failures = self._fruitless = 0
        self._prompt: Usage | None = None
        self._rest = Usage()
        self._segments: list[Segment] = []

    @property
    def _text(self) -> str:
        """All text written so far, held back or sent: what the next model continues. Joined when
        it is asked for, which is once or twice a leg."""
        self._parts = ["".join(self._parts)]
        return self._parts[0]

    # ------------------------------------------------------------ what came of it

    @property
    def segments(self) -> tuple[Segment, ...]:
        """Legs so far, clipped to the text that the client sees."""
        end = len(self._text)
        return tuple(
            s
            if max(s.start, s.end) <= end
            else replace(s, start=min(s.start, end), end=min(s.end, end))
            for s in self._segments
        )

    @property
    def prompt(self) -> Usage:
        """Tokens of the first leg's prompt, which all choices of a request share."""
        return self._prompt or Usage()

    @property
    def rest(self) -> Usage:
        """All other tokens: completions, and the prompts of further legs."""
        return self._rest

    # ------------------------------------------------------------ the machine

    def start(self, now: float) -> list[Action]:
        """The first leg."""
        leg = self._leg_at_home()
        if self._plan.structured and leg.experts:
            return self._begin(replace(leg, purpose="decision", max_tokens=1), now)
        return self._begin(leg, now)

    def on(self, event: WorkerEvent | LegEnded | LegFailed, now: float) -> list[Action]:
        """What to do about an event of the current leg."""
        match event:
            case TextDelta():
                return self._on_text(event, now)
            case RawDelta():
                return self._on_raw(event, now)
            case Usage():
                self._now.usage = event
            case Finished():
                self._now.finish = event
            case Considered():
                self._now.chances = event.chances
            case LegEnded():
                return self._on_end(now)
            case LegFailed():
                return self._on_failure(event, now)
        return []

    def on_batch(
        self, batch: Sequence[WorkerEvent | LegEnded | LegFailed], now: float
    ) -> tuple[list[Event], StartLeg | Done | None]:
        """What the client gets of a batch, and what ends the leg, if anything in the batch does."""
        events: list[Event] = []
        as_it_comes = not (self._choice or self._stops.some or self._now.leg.purpose == "decision")
        for event in batch:
            if as_it_comes and event.kind == "text" and event.logprobs is None:
                self._took(event.text, now)
                self._sent += len(event.text)
                events.append(event)
            elif event.kind == "usage":
                if not (self._now.usage or self._segments or self._choice):
                    events.append(event)
                self._now.usage = event
            else:
                for action in self.on(event, now):
                    if not isinstance(action, Emit):
                        return events, action  # it is the last of the actions
                    events.append(action.event)
        return events, None

    def abort(self, now: float) -> None:
        """The answer is wanted no more: account for the current leg, unless that is done."""
        if not self._now.closed:
            self._close_leg("aborted", now)

    def _on_text(self, delta: TextDelta, now: float) -> list[Action]:
        logprobs = self._logprobs(delta.logprobs)
        if self._now.leg.purpose == "decision":
            return []
        self._took(delta.text, now)
        sent, stop = self._stops.push(delta.text)
        actions = self._emit_text(sent, logprobs)
        if stop is None:
            return actions
        self._parts = [self._text[: self._sent]]
        self._close_leg("finished", now)
        return [*actions, *self._done("stop", stop)]

    def _took(self, text: str, now: float) -> None:
        """Take note of text that the current leg wrote."""
        progress = self._now
        if not progress.deltas:
            progress.first = now
        progress.deltas += 1
        self._parts.append(text)
        if progress.leg.purpose == "whole":
            self._resumable = False

    def _on_raw(self, delta: RawDelta, now: float) -> list[Action]:
        if self._now.leg.purpose == "decision":
            return []
        if not self._now.deltas:
            self._now.first = now
        self._now.deltas += 1
        self._resumable = False
        logprobs = self._logprobs(delta.logprobs)
        return [Emit(RawDelta(delta.fields, self._choice, logprobs))]

    def _on_end(self, now: float) -> list[Action]:
        finish, expert = self._now.finish, self._now.chosen()
        assert finish is not None, "a worker's stream ended well without a finish reason"
        if expert is not None:
            return self._hand_over(expert, now)
        if self._now.leg.purpose == "decision":
            return self._begin(self._leg_at_home(), now)
        rest = self._emit_text(self._stops.flush())
        self._close_leg("finished", now)
        return [*rest, *self._done(finish.finish_reason, finish.stop_reason)]

    def _hand_over(self, expert: LiveExpert, now: float) -> list[Action]:
        probability = (self._now.chances or {}).get(expert.name)
        self._close_leg("handoff", now)
        self._fruitless = 0
        self._stops.seam()
        target = Target(expert.name, expert.endpoints)
        leg = replace(self._leg_at_home(), target=target, at_home=False, experts=())
        begin = self._begin(leg, now)
        self._now.token_id, self._now.probability = expert.token_id, probability
        return [Emit(Routed(expert.name, self._choice)), *begin]

    def _on_failure(self, failure: LegFailed, now: float) -> list[Action]:
        leg, error, first = self._now.leg, failure.error, not self._segments
        too_long = isinstance(error, ContextTooLong)
        if too_long and leg.max_tokens is not None and not first:
            # Without a limit the worker writes to the end of its context, which is nearer.
            self._now.leg = replace(leg, max_tokens=None)
            return [StartLeg(self._now.leg)]
        fruitless = self._now.start == len(self._text)
        self._close_leg("failed", now, error)
        full = (too_long and leg.at_home and self._text) or self._remaining() == 0
        if full and self._resumable:
            return [*self._emit_text(self._stops.flush()), *self._done("length", None)]
        self._failures += 1
        self._fruitless = self._fruitless + 1 if fruitless else 0
        again = failure.another and not isinstance(error, UpstreamRejected)
        if self._beyond_help(error, again, first):
            return [Emit(Failed(error)), Done()]
        self._stops.seam()
        return self._begin(self._leg_again(leg) if again else self._leg_elsewhere(leg), now)

    def _beyond_help(self, error: TriviumError, again: bool, first: bool) -> bool:
        """Whether the choice cannot go on. `again`: the same model could."""
        given_up = self._failures >= MAX_FAILURES or self._fruitless >= MAX_FRUITLESS
        if given_up or not self._resumable or isinstance(error, DeadlineExceeded | ShuttingDown):
            return True
        if again or not self._now.leg.at_home:
            return False
        refused = isinstance(error, UpstreamRejected | NotReady)
        return refused or (first and not self._text)

    # ------------------------------------------------------------ legs

    def _leg_at_home(self) -> Leg:
        """Home continues from all text so far, and may call any expert that is not lost."""
        plan, text = self._plan, self._text
        start = plan.structured or plan.position == "start"
        allowed = () if start and text else plan.experts
        return Leg(
            plan.home,
            "whole" if plan.structured else "text",
            choice=self._choice,
            prefix=text,
            max_tokens=self._remaining(),
            spent=self._spent,
            experts=tuple(e for e in allowed if e.name not in self._lost),
            position="start" if start else "anywhere",
        )

    def _leg_again(self, failed: Leg) -> Leg:
        """The same model goes on from all text so far."""
        if failed.at_home and failed.purpose != "decision":
            return self._leg_at_home()
        limit = 1 if failed.purpose == "decision" else self._remaining()
        return replace(failed, prefix=self._text, max_tokens=limit, spent=self._spent)

    def _leg_elsewhere(self, failed: Leg) -> Leg:
        """Home goes on; what failed there is tried again, and an expert that failed is lost."""
        if not failed.at_home:
            self._lost.add(failed.target.name)
        return self._leg_at_home()

    def _begin(self, leg: Leg, now: float) -> list[Action]:
        if leg.purpose == "whole":
            leg = replace(leg, experts=())
        self._now = _Progress(leg, len(self._text), now)
        return [StartLeg(leg)]

    def _close_leg(
        self,
        outcome: Literal["finished", "handoff", "failed", "aborted"],
        now: float,
        error: TriviumError | None = None,
    ) -> None:
        """Account for the current leg: tokens, usage, and its segment of the trace."""
        leg, tokens = self._now, self._now.tokens()
        leg.closed = True
        self._spent += tokens
        used = msgspec.structs.replace(leg.usage or Usage(), completion_tokens=tokens)
        prompt = msgspec.structs.replace(used, completion_tokens=0, reasoning_tokens=None)
        if self._prompt is None and leg.usage is not None:
            self._prompt = prompt
            self._rest += msgspec.structs.replace(used, prompt_tokens=0, cached_tokens=None)
        else:
            self._rest += used
        self._segments.append(
            Segment(
                model=leg.leg.target.name,
                choice=self._choice,
                start=leg.start,
                end=len(self._text),
                start_ms=self._ms(leg.since),
                end_ms=self._ms(now),
                tokens=tokens,
                outcome=outcome,
                token_id=leg.token_id,
                probability=leg.probability,
                error=error.message if error else None,
                chances=leg.chances,
                first_ms=None if leg.first is None else self._ms(leg.first),
                error_type=type(error).__name__ if error else None,
            )
        )

    # ------------------------------------------------------------ small things

    def _emit_text(self, text: str, logprobs: Mapping[str, Any] | None = None) -> list[Action]:
        self._sent += len(text)
        if not text and not logprobs:
            return []
        return [Emit(TextDelta(text, self._choice, logprobs))]

    def _done(self, reason: str, stop_reason: int | str | None) -> list[Action]:
        return [Emit(Finished(reason, stop_reason, self._choice)), Done()]

    def _logprobs(self, logprobs: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
        """Without the entry of the expert token, which is not part of the answer."""
        if not logprobs:
            return None
        content: Sequence[Mapping[str, Any]] = logprobs.get("content") or ()
        if content and self._now.chosen() is not None:
            content = content[:-1]
            logprobs = {**logprobs, "content": content}
        return logprobs if self._plan.logprobs and content else None

    def _remaining(self) -> int | None:
        budget = self._plan.budget
        return None if budget is None else max(0, budget - self._spent)

    def _ms(self, at: float) -> float:
        return round((at - self._began) * 1000, 3)


def total_usage(choices: Sequence[Handoff], of_one_prompt: int | None = None) -> Usage:
    """Usage of a request: each prompt once, and everything else of every choice.

    The first `of_one_prompt` choices share a prompt, so do the next, and so on; None: all do.
    """
    size = of_one_prompt or len(choices)
    shared = [choices[i : i + size] for i in range(0, len(choices), size)]
    prompts = [max((c.prompt for c in group), key=_prompt_size) for group in shared]
    return sum((c.rest for c in choices), start=sum(prompts[1:], start=prompts[0]))


def _prompt_size(usage: Usage) -> int:
    return usage.prompt_tokens
