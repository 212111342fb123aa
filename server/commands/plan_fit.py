"""`trivium plan`: what fits, what it costs, how fast it can be; as tables, JSON, or a picture."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import entry_points
from pathlib import Path

from rich.console import Console
from rich.table import Table

from experts.plan.accelerators import accelerator
from experts.plan.models import DEFAULT_META, Model, parse_expert, parse_model
from experts.plan.placement import Load
from experts.plan.quantities import PlanError, show_count, show_gib
from experts.plan.report import Plan, make_plan
from server.commands.plan_flags import commands, flags, remark
from server.workers.starters import GROUP

WIDEST = 200


@dataclass(frozen=True)
class Options:
    """As they were typed."""

    gpu: str
    count: int
    meta: str | None
    experts: Sequence[str]
    context: int
    concurrency: int
    shared_embedding: bool
    price: float | None


def fit(options: Options, as_json: bool, picture: Path | None) -> None:
    """Print the plan. Raises PlanError."""
    device = accelerator(options.gpu)
    meta, experts = models(options.meta, options.experts)
    load = Load(options.context, options.concurrency)
    plan, placement = make_plan(
        meta, experts, device, options.count, load, options.shared_embedding
    )
    lines = commands(placement, device, load)
    if picture is not None:
        draw("draw_plan", picture, plan)
    if as_json:
        own = {w.name: flags(w, device, load) for w in placement.workers if w.on}
        print(json.dumps({**asdict(plan), "flags": own, "commands": lines}, indent=2))
        return
    console = Console(highlight=False, width=None if Console().is_terminal else WIDEST)
    console.print(f"{plan.count} × {plan.accelerator}, {_usable(plan)} ({plan.source})")
    console.print(_memory(plan), _speed(plan, options.price), sep="\n\n")
    console.print("\n".join(_remarks(plan)))
    console.print(
        "\nCommands. An expert with a worker of its own is added by that one's address"
        " (`url: http://127.0.0.1:PORT/v1` and `model: NAME` in its manifest); one in a bank as"
        " ever, for `trivium serve` has the banks:",
        soft_wrap=True,
    )
    for line in lines.values():
        console.print(line, soft_wrap=True)
    if (more := remark(placement)) is not None:
        console.print(more, soft_wrap=True)


def models(meta: str | None, experts: Sequence[str]) -> tuple[Model, list[Model]]:
    """Those that were named; if none was, those that Trivium ships. Raises PlanError."""
    found = [model for text in experts for model in parse_expert(text)]
    names = [model.name for model in found]
    if len(set(names)) < len(names) or "meta" in names:
        raise PlanError("experts need names of their own, and none may be called meta")
    if meta is None and not found:
        found = [parse_model(str(p.load()()), p.name) for p in entry_points(group=GROUP)]
    return (DEFAULT_META if meta is None else parse_model(meta, "meta")), found


def draw(what: str, picture: Path, *figures: object) -> None:
    """Draw with a function of `experts.plan.pictures`. Raises PlanError."""
    try:
        from experts.plan import pictures
    except ImportError:
        raise PlanError(
            "pictures need matplotlib, which is not installed: run `make install`, or"
            " `pip install matplotlib`"
        ) from None
    try:
        getattr(pictures, what)(*figures, picture)
    except (OSError, ValueError) as error:
        raise PlanError(f"{picture} cannot be written: {error}") from None


def _usable(plan: Plan) -> str:
    return f"{show_gib(plan.usable)} of {show_gib(plan.memory)} GiB each for workers"


def _memory(plan: Plan) -> Table:
    table = Table(title="What fits", title_justify="left", box=None)
    table.add_column("worker")
    for column in ("experts", "weights", "on", "context", "KV KiB/token"):
        table.add_column(column, justify="right")
    for column in ("weights GiB", "KV cache GiB", "other GiB", "in all GiB"):
        table.add_column(column, justify="right")
    for w in plan.workers:
        size = show_count(w.parameters) + (" ternary" if w.ternary else "")
        where = ",".join(map(str, w.on)) or "no room"
        cells = [str(w.experts or "–"), size, where, str(w.context)]
        cells.append(f"{w.kv_per_token / 1024:.1f}")
        cells += [show_gib(b) for b in (w.weights, w.kv_cache, w.other, w.total)]
        table.add_row(w.name, *cells)
    return table


def _speed(plan: Plan, price: float | None) -> Table:
    title = f"How fast at best, {plan.concurrency} sequences at full context"
    table = Table(title=title, title_justify="left", box=None)
    table.add_column("worker")
    cost = "device hours" if price is None else "cost"
    columns = ["1 stream tok/s", "all streams tok/s", "bound by", "prefill tok/s"]
    for column in [*columns, "first token ms", f"{cost}/1M tokens", "loss at best"]:
        table.add_column(column, justify="right")
    for w in plan.workers:
        b = w.bounds
        speeds = [f"{b.decode_one:,.0f}", f"{b.decode_all:,.0f}", b.limited_by]
        speeds += [f"{b.prefill:,.0f}", f"{1000 * b.first_token:.1f}"]
        hours = w.device_hours_per_million * (1 if price is None else price)
        table.add_row(w.name, *speeds, f"{hours:.3g}", f"{w.loss:.2f}")
    return table


def _remarks(plan: Plan) -> list[str]:
    lines = [""]
    for name, number in plan.room.items():
        lines.append(f"Room for {number} more like {name}.")
    if plan.left_out:
        lines.append(f"No room for {', '.join(plan.left_out)}: more with --count.")
    lines.append(
        "Speeds are bounds of bandwidth and arithmetic: real ones are lower. A bank's are those of"
        " one of its experts. Loss: L(N) of Kaplan et al., nats a token."
    )
    return lines
