"""One measurement of one checkpoint: vLLM's engine in this process, decode speed and memory.

Started by `tests.benchmarks.ternary`, once for each variant. Prefill is not counted: the clock
runs from the step that gave every stream its first token to the last token.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from vllm import LLM, SamplingParams
from vllm.model_executor.layers.linear import LinearBase

PROMPT_TOKENS = 4
GIB = 1 << 30


@dataclass(frozen=True)
class Decode:
    """Decoding with `streams` requests at once: tokens/s in all, of each round and the median."""

    streams: int
    tokens_s: float
    rounds: tuple[float, ...]


@dataclass(frozen=True)
class Memory:
    """Bytes. `linear` is held by the linear layers but the head, `linear_bf16` is what bf16 would
    take for their weights; `steady` and `peak` are the whole process, resident."""

    linear: int
    linear_bf16: int
    steady: int
    peak: int


def decode_speed(engine: Any, streams: int, tokens: int, vocabulary: int, salt: int) -> float:
    """Tokens/s of `streams` requests of `tokens` tokens each, prefill left out."""
    sampling = SamplingParams(temperature=0, max_tokens=tokens, ignore_eos=True, detokenize=False)
    for i in range(streams):
        prompt = [(7 * salt + 31 * i + j) % vocabulary for j in range(PROMPT_TOKENS)]
        engine.add_request(f"{salt}-{i}", {"prompt_token_ids": prompt}, sampling)
    written: dict[str, int] = {}
    began, before = 0.0, 0
    while engine.has_unfinished_requests():
        for output in engine.step():
            written[output.request_id] = len(output.outputs[0].token_ids)
        if not began and len(written) == streams:
            began, before = time.perf_counter(), sum(written.values())
    return (sum(written.values()) - before) / (time.perf_counter() - began)


def linear_bytes(model: Any) -> tuple[int, int]:
    """Bytes of all linear layers but the head, as held and as bf16 would be."""
    held = plain = 0
    for module in model.modules():
        if isinstance(module, LinearBase):
            tensors = [*module.parameters(recurse=False), *module.buffers(recurse=False)]
            held += sum(tensor.numel() * tensor.element_size() for tensor in tensors)
            plain += 2 * module.input_size * module.output_size
    return held, plain


def memory(engine: Any) -> Memory:
    held, plain = engine.apply_model(linear_bytes)[0]
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    sizes = {line.partition(":")[0]: line.split() for line in lines if line.endswith(" kB")}
    steady, peak = (int(sizes[name][1]) << 10 for name in ("VmRSS", "VmHWM"))  # of one moment
    return Memory(held, plain, steady, peak)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--dtype", required=True)
    parser.add_argument("--rounds", type=int, required=True)
    parser.add_argument("--decode", nargs="+", required=True, help="STREAMS:TOKENS")
    options = parser.parse_args()
    cases = [tuple(map(int, case.split(":"))) for case in options.decode]
    llm = LLM(
        model=str(options.folder),
        dtype=options.dtype,
        skip_tokenizer_init=True,
        enforce_eager=True,
        enable_prefix_caching=False,
        max_num_seqs=max(streams for streams, _ in cases),
        kv_cache_memory_bytes=GIB // 4,
        disable_log_stats=True,
    )
    engine = llm.llm_engine
    vocabulary = engine.model_config.get_vocab_size()
    decode_speed(engine, 2, 3, vocabulary, 0)  # first steps set things up
    decoded = []
    for streams, tokens in cases:
        rounds = tuple(
            decode_speed(engine, streams, tokens, vocabulary, 1 + 10 * streams + turn)
            for turn in range(options.rounds)
        )
        decoded.append(asdict(Decode(streams, statistics.median(rounds), rounds)))
    result = {"decode": decoded, "memory": asdict(memory(engine))}
    options.out.write_text(json.dumps(result), encoding="utf-8")


if __name__ == "__main__":
    main()
