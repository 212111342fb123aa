"""The tables of the CUDA benchmark, from its result. Needs nothing but the standard library."""

from __future__ import annotations

from typing import Any

from tests.benchmarks import report

GIB = 1 << 30
Row = dict[str, Any]


def show(result: Row) -> None:
    """Print products, decode latency beside the paper's, and memory beside the paper's."""
    names = list(dict.fromkeys(row["contestant"] for row in result["figures"]))
    cases: dict[tuple[str, str, int], dict[str, Row]] = {}
    for row in result["figures"]:
        key = (row["model"], row["matrix"], row["tokens"])
        cases.setdefault(key, {})[row["contestant"]] = row
    report.show_table(
        "\nMicroseconds (times faster than bf16)",
        ["matrix", "out × in", "tokens", *names],
        [_product_row(case, names) for case in cases.values()],
    )
    latency = []
    for model, own in result["latency_ratios"].items():
        cells = [f"{own[name]:.2f}×" if name in own else "-" for name in names]
        latency.append([model, *cells, _ratio(result["paper"]["latency"].get(model))])
    report.show_table(
        "\nOne block's products, one token: times faster than bf16",
        ["model", *names, "paper, whole model"],
        latency,
    )
    report.show_table(
        "\nWeights of a whole model, GiB (as allocated on the device)",
        ["model", "bf16", "ternary", "times smaller", "paper"],
        _memory_rows(result["memory"], result["paper"]["memory"]),
    )


def _product_row(case: dict[str, Row], names: list[str]) -> list[str]:
    plain = next(iter(case.values()))
    cells = [f"{plain['model']} {plain['matrix']}", f"{plain['out']} × {plain['inputs']}"]
    cells.append(str(plain["tokens"]))
    for name in names:
        if name not in case:
            cells.append("-")
            continue
        text = f"{case[name]['seconds'] * 1e6:.1f}"
        faster = _ratio(case[name]["times_bf16"])
        cells.append(text if name == names[0] else f"{text} ({faster})")
    return cells


def _memory_rows(memory: list[Row], paper: dict[str, float]) -> list[list[str]]:
    rows = []
    for plain, ternary in zip(memory[::2], memory[1::2], strict=True):
        cells = []
        for own in (plain, ternary):
            measured = own["allocated"]
            text = "" if measured is None else f" ({measured / GIB:.2f})"
            cells.append(f"{own['computed'] / GIB:.2f}{text}")
        smaller = _ratio(plain["computed"] / ternary["computed"])
        rows.append([plain["model"], *cells, smaller, _ratio(paper.get(plain["model"]))])
    return rows


def _ratio(figure: float | None) -> str:
    return "-" if figure is None else f"{figure:.2f}×"
