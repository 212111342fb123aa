"""`trivium plan …`: tables, JSON, pictures, flags that vLLM's commands take, errors."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from experts.plan.quantities import PlanError
from server.cli import app

GPUS = ["plan", "--gpu", "H100", "--count", "3", "--meta", "8B"]
EXPERTS = ["--expert", "law=7B:ternary*4", "--expert", "code=34B"]
LOAD = ["--requests", "300", "--rate", "20", "--share", "0.5"]


def run(*arguments: str) -> str:
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def figures(*arguments: str) -> Any:
    return json.loads(run(*arguments, "--json"))


def test_a_plan_says_where_workers_stand_and_how_they_are_started() -> None:
    plan = figures(*GPUS, *EXPERTS, "--concurrency", "8")
    workers = {worker["name"]: worker for worker in plan["workers"]}
    assert list(workers) == ["meta", "code", "bank-1"]
    assert workers["bank-1"]["experts"] == 4
    assert workers["code"]["devices"] == 2
    lines = {name: shlex.split(line) for name, line in plan["commands"].items()}
    assert list(lines) == ["meta", "code", "serve"]
    assert lines["code"][-1 - len(plan["flags"]["code"]) :][0] == "--"
    assert "FOLDER_OF_CODE" in lines["code"]
    serve = dict(word.split("=", 1) for word in lines["serve"] if "=" in word)
    assert serve["TRIVIUM_META_URL"] == "http://127.0.0.1:8101"
    assert "TRIVIUM_PORT=8101" in lines["meta"]
    bank = json.loads(serve["TRIVIUM_BANK_ARGS"])
    assert bank == plan["flags"]["bank-1"]
    assert bank[bank.index("--max-num-seqs") + 1] == "8"
    share = float(bank[bank.index("--gpu-memory-utilization") + 1])
    needed = workers["bank-1"]["total"] / plan["memory"]
    assert needed <= share < needed + 0.00011
    assert serve["CUDA_VISIBLE_DEVICES"] == ",".join(map(str, workers["bank-1"]["on"]))
    assert plan["flags"]["bank-1"][:2] == ["--max-model-len", "4096"]


def test_a_worker_on_several_gpus_is_parallel() -> None:
    command = figures("plan", "--gpu", "H100", "--count", "4", "--meta", "70B")["commands"]["meta"]
    assert "--tensor-parallel-size 4" in command
    assert "CUDA_VISIBLE_DEVICES=0,1,2,3" in command


def test_workers_that_fit_a_gpu_fit_it_with_their_flags() -> None:
    small = ("--expert", "a=500M*40", "--context", "2048", "--concurrency", "8")
    plan = figures("plan", "--gpu", "H200", "--meta", "8B", *small)
    shares = [
        float(flags[flags.index("--gpu-memory-utilization") + 1])
        for flags in plan["flags"].values()
    ]
    assert len(shares) > 30
    assert sum(shares) < 0.93


def test_banks_that_differ_have_arguments_that_suit_all() -> None:
    banks = ("--expert", "a=135M:ternary*2", "--expert", "b=1B:ternary*2")
    plan = figures("plan", "--gpu", "H100", "--meta", "8B", *banks)
    serve = dict(w.split("=", 1) for w in shlex.split(plan["commands"]["serve"]) if "=" in w)
    arguments = json.loads(serve["TRIVIUM_BANK_ARGS"])
    largest = max(plan["workers"][1:], key=lambda worker: worker["total"])
    share = float(arguments[arguments.index("--gpu-memory-utilization") + 1])
    assert share >= largest["total"] / plan["memory"]
    several = ("--expert", "a=13B:ternary*10", "--expert", "b=14B:ternary*10")
    text = run("plan", "--gpu", "H100", "--count", "3", "--meta", "8B", *several)
    assert "banks on several GPUs" in text


def test_without_options_it_plans_what_ships_for_this_machine() -> None:
    plan = figures("plan", "--concurrency", "1", "--context", "512")
    assert plan["accelerator"] == "cpu"
    assert [worker["name"] for worker in plan["workers"]] == ["meta", "bank-1"]
    flags = plan["flags"]["bank-1"]
    cache = plan["workers"][1]["kv_cache"]
    assert flags[flags.index("--kv-cache-memory-bytes") + 1] == str(cache)
    assert "CUDA_VISIBLE_DEVICES" not in " ".join(plan["commands"].values())


def test_tables_and_picture_of_a_plan(tmp_path: Path) -> None:
    picture = tmp_path / "plan.png"
    text = run(*GPUS, *EXPERTS, "--price", "2.5", "--picture", str(picture))
    assert "What fits" in text
    assert "cost/1M tokens" in text
    assert "more like law-1" in text
    assert picture.read_bytes()[:4] == b"\x89PNG"


def test_scaling_of_a_data_set(tmp_path: Path) -> None:
    picture = tmp_path / "scaling.png"
    found = figures("plan", "scaling", "--tokens", "22B", "--parameters", "135M")
    assert [answer["law"] for answer in found["answers"]] == ["kaplan", "hoffmann", "besiroglu"]
    assert found["answers"][0]["deserved"] == pytest.approx(1e9, rel=0.1)
    assert 135e6 in found["sizes"]
    arguments = ("plan", "scaling", "--tokens", "50M", "--law", "kaplan", "--compute", "1")
    text = run(*arguments, "--picture", str(picture))
    assert "1.3B" in text  # the optimum of one PF-day, table 6
    assert "besiroglu" not in text
    assert picture.is_file()


def test_a_simulation_compares_with_a_dense_model(tmp_path: Path) -> None:
    picture = tmp_path / "simulation.png"
    arguments = ["--meta", "8B", "--expert", "law=7B:ternary*4", *LOAD, "--dense", "70B"]
    found = figures("plan", "simulate", *arguments)
    ours, dense = found["meta and experts"], found["dense 70B"]
    assert set(ours["replicas"]) == {"meta", "bank-1"}
    assert ours["first"]["p95"] <= 1.0
    assert dense["per_token"]["p95"] <= 0.05
    assert dense["devices"] > ours["devices"]
    text = run("plan", "simulate", *arguments[:-2], "--picture", str(picture))
    assert "Latencies and cost" in text
    assert picture.is_file()


def test_replicas_can_be_fixed_and_traces_replayed(tmp_path: Path) -> None:
    trace = tmp_path / "trace.csv"
    rows = [f"{i * 0.2},{500 + i},{20 + i}" for i in range(50)]
    trace.write_text("\n".join(["Timestamp,Request tokens,Response tokens", *rows]))
    arguments = ["plan", "simulate", "--meta", "8B", "--expert", "a=3B", "--trace", str(trace)]
    found = figures(*arguments, "--replicas", "meta=3", "--replicas", "a=2")
    assert found["meta and experts"]["replicas"] == {"meta": 3, "a": 2}
    assert figures(*arguments, "--seed", "1") == figures(*arguments, "--seed", "1")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["plan", "--gpu", "L4", "--meta", "70B"], "the meta LLM needs"),
        (["plan", "--gpu", "H1", "--meta", "8B"], "no accelerator is called"),
        ([*GPUS, "--expert", "a=3B", "--expert", "a=7B"], "names of their own"),
        (["plan", "simulate", "--meta", "8B", "--replicas", "x=1", *LOAD], "the workers are meta"),
        (["plan", "simulate", "--meta", "1T", "--gpu", "L4", *LOAD], "does not fit on 8 × L4"),
        (["plan", "scaling", "--tokens", "many"], "no number"),
        ([*GPUS, "--picture", "/nowhere/p.png"], "cannot be written"),
    ],
)
def test_what_cannot_be_planned_is_said(arguments: list[str], message: str) -> None:
    with pytest.raises(PlanError, match=message):
        CliRunner().invoke(app, arguments, catch_exceptions=False)
