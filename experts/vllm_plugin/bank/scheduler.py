"""vLLM's scheduler for a bank: the experts take turns, so that none of them starves.

Used with `--scheduler-cls experts.vllm_plugin.bank.scheduler.TurnScheduler`. vLLM lets at most
`max_loras` experts into a step, those of its running requests first: while they have any, requests
for other experts wait. Here `turns.py` decides which experts may run. Running requests of others
are held back: they keep their row and their KV cache. They are preempted, those whose turn comes
last first, if someone whose turn it is needs the row, or needs the blocks to go on, or has nothing
running without them. Waiting requests of others wait.

Stands on what vLLM 0.32 does not promise to plugins, all of it touched here and only here, in
`v1/core/sched/scheduler.py`:

- `schedule` plans the requests in `running`, then admits from `waiting` while `running` and
  `num_waiting_for_streaming_input` are fewer than `max_num_active_reqs`. It asks
  `_handle_blocked_waiting_request` about each candidate, and calls
  `kv_cache_manager.allocate_slots` for the blocks of each request, which answers None and changes
  nothing when there are too few. Model runners keep the state of a running request that is not
  planned (`_update_states` of V1; V2 keeps every request's row until it is finished or preempted).
- `_preempt_request` frees a request's blocks and puts it in front of `waiting`; it works on
  `self.waiting` as it is at that moment, while `schedule` keeps the queue that it scans.
- `requests` holds all unfinished requests in order of arrival, `_holds_kv_blocks` tells which of
  them go on while new ones are paused, `finished_recving_kv_req_ids` which have been transferred.
- `make_stats` is sent to the front end with every step's output. Stages unknown to the front end
  in `num_kv_fetch_reqs_by_stage` are carried and ignored.

`AsyncScheduler` is right without asynchronous scheduling too (the CPU build never has it): its
placeholders for tokens under way are then settled before the next step is planned.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections import Counter
from dataclasses import asdict
from typing import Any

from vllm.v1.core.sched.async_scheduler import AsyncScheduler
from vllm.v1.core.sched.interface import PauseState
from vllm.v1.core.sched.output import SchedulerOutput
from vllm.v1.core.sched.request_queue import FCFSRequestQueue, RequestQueue
from vllm.v1.metrics.stats import SchedulerStats
from vllm.v1.request import Request, RequestStatus

from experts.errors import ExpertsError
from experts.vllm_plugin.bank.turns import Figures, Turns

TURN_SECONDS = "TRIVIUM_BANK_TURN_SECONDS"
"""Environment variable: how long an expert keeps its place while others wait for it."""
_STAGE = "trivium_bank "
"""Before the figures, in the name of a stage that no request is in."""


class TurnScheduler(AsyncScheduler):  # type: ignore[misc]  # untyped to mypy
    """vLLM's scheduler, with turns of experts. Requests that name no expert need no turn."""

    running: list[Request]
    waiting: RequestQueue

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Raises ExpertsError if the engine serves no adapters, or a turn's length is nonsense."""
        super().__init__(*args, **kwargs)
        if self.lora_config is None:
            raise ExpertsError("the TurnScheduler is for banks: start vLLM with --enable-lora")
        places = min(self.lora_config.max_loras, self.max_num_active_reqs)
        self.turns = Turns(places, turn_seconds())
        self._allocate = self.kv_cache_manager.allocate_slots
        self.kv_cache_manager.allocate_slots = self._allocate_or_make_room
        # What follows is of the step that is being planned.
        self._placed: frozenset[int] = frozenset()
        self._hungry: set[int] = set()  # those with a place and requests that are not running
        self._held: list[Request] = []  # the last gives way first
        self._gave_way = FCFSRequestQueue()
        self._rows: Counter[int] = Counter()  # of each expert, in the first `_counted` of `running`
        self._counted = 0

    def schedule(self, throttle_prefills: bool = False) -> SchedulerOutput:
        """As vLLM's, for the experts whose turn it is."""
        if self._pause_state == PauseState.PAUSED_ALL:
            return super().schedule(throttle_prefills)
        self._give_places()
        before = self.running
        self._hold_back()
        output = super().schedule(throttle_prefills)
        self._put_back(before)
        return output

    def make_stats(self, *args: Any, **kwargs: Any) -> SchedulerStats | None:
        """As vLLM's, with our figures; `figures_of` reads them in the front end."""
        stats = super().make_stats(*args, **kwargs)
        if stats is not None:
            figures = asdict(self.turns.figures(time.monotonic()))
            stats.num_kv_fetch_reqs_by_stage[_STAGE + json.dumps(figures)] = 0
        return stats

    def _give_places(self) -> None:
        ready = [request for request in self.requests.values() if self._is_ready(request)]
        self._placed = self.turns.decide(time.monotonic(), filter(None, map(expert_of, ready)))
        waiting = {expert_of(r) for r in ready if r.status != RequestStatus.RUNNING}
        self._hungry = waiting & self._placed
        self._rows.clear()
        self._counted = 0

    def _is_ready(self, request: Request) -> bool:
        """Whether a request needs nothing but a place to run."""
        status = request.status
        if status == RequestStatus.RUNNING:
            return True
        if self._pause_state == PauseState.PAUSED_NEW and not self._holds_kv_blocks(request):
            return False
        if status == RequestStatus.WAITING_FOR_STRUCTURED_OUTPUT_GRAMMAR:
            structured = request.structured_output_request
            return structured is not None and structured.grammar is not None
        if status == RequestStatus.WAITING_FOR_REMOTE_KVS:
            return request.request_id in self.finished_recving_kv_req_ids
        return status in (RequestStatus.WAITING, RequestStatus.PREEMPTED)

    def _may_run(self, request: Request) -> bool:
        expert = expert_of(request)
        return not expert or expert in self._placed

    def _hold_back(self) -> None:
        """Leave in `running` only what may run; the rest is held, sorted by turn, then age."""
        order = {expert: place for place, expert in enumerate(self.turns.queue)}
        held = [request for request in self.running if not self._may_run(request)]
        self._held = sorted(held, key=lambda request: order[expert_of(request)])
        self.running = [request for request in self.running if self._may_run(request)]

    def _put_back(self, before: list[Request]) -> None:
        """Undo `_hold_back` for what is still held; what gave way waits in front of the others."""
        order = {request: place for place, request in enumerate(before)}
        running = [*self.running, *self._held]
        self.running = sorted(running, key=lambda request: order.get(request, len(order)))
        self._held = []
        for request in reversed(self._gave_way):
            self.waiting.prepend_request(request)
        self._gave_way.clear()

    def _handle_blocked_waiting_request(self, request: Request) -> bool:
        """Whether a waiting request may be admitted, and there is a row for it."""
        ready = super()._handle_blocked_waiting_request(request)
        return (
            ready
            and self._may_run(request)
            and not self._yields(expert_of(request))
            and self._has_row()
        )

    def _yields(self, expert: int) -> bool:
        """Whether the next row is for another expert: one that has none yet, or one that has less
        than its share while `expert` has at least that."""
        for request in self.running[self._counted :]:  # admitted since the last candidate
            self._rows[expert_of(request)] += 1
        self._counted = len(self.running)
        if not expert:
            return False
        mine, share = self._rows[expert], self.max_num_active_reqs // len(self._placed)
        theirs = [self._rows[other] for other in self._hungry - {expert}]
        return any(rows == 0 < mine or rows < share <= mine for rows in theirs)

    def _has_row(self) -> bool:
        """Whether there is a row for one more request, made free if need be. vLLM itself has
        counted all but what is held."""
        rows = len(self.running) + len(self._held) + self.num_waiting_for_streaming_input
        return rows < self.max_num_active_reqs or self._give_way()

    def _allocate_or_make_room(self, request: Request, *args: Any, **kwargs: Any) -> Any:
        """Blocks for a request whose turn it is; None if there are too few. What is held back is
        preempted for a request that is running, and for an expert's first; for more of them it
        would have to be computed again too often."""
        blocks = self._allocate(request, *args, **kwargs)
        if request.status != RequestStatus.RUNNING and self._rows[expert_of(request)]:
            return blocks
        while blocks is None and self._give_way():
            blocks = self._allocate(request, *args, **kwargs)
        return blocks

    def _give_way(self) -> bool:
        """Preempt one request that is held back; False if there is none."""
        if not self._held or not self._request_blocks_can_be_freed(self._held[-1]):
            return False
        scanned, self.waiting = self.waiting, self._gave_way  # vLLM is amid its own queue
        self._preempt_request(
            self._held.pop(), time.monotonic(), drop_stale_output=self.requires_kv_delivery
        )
        self.waiting = scanned
        return True


def expert_of(request: Request) -> int:
    """The number of the expert that a request names; 0 if it names none."""
    return request.lora_request.lora_int_id if request.lora_request is not None else 0


def turn_seconds() -> float:
    """The length of a turn that the environment asks for, by default 1 second. Raises
    ExpertsError."""
    text = os.environ.get(TURN_SECONDS, "1.0")
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise ExpertsError(f"{TURN_SECONDS} is {text!r}; it must be a number of seconds above 0")
    return seconds


def figures_of(stats: SchedulerStats) -> Figures | None:
    """The figures of a bank's scheduler in what vLLM's loggers are given; None if it is not one."""
    for stage in stats.num_kv_fetch_reqs_by_stage:
        if stage.startswith(_STAGE):
            return Figures(**json.loads(stage.removeprefix(_STAGE)))
    return None
