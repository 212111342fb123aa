"""`trivium ternary verify`: one checkpoint in transformers' BitNet code and in ours under vLLM.

Both sides round activations to int8, and their float arithmetic before it differs in the last
bit. So now and then a value rounds the other way, the next layers see slightly other inputs, and
in a deep model the logits end up a few percent apart although nothing is wrong. What is compared:

- each ternary layer alone, on the same input. There is nothing to add up, so a difference is a
  fault: a wrong scale, swapped parts, a missing norm or bias, a misread byte.
- the logits of the whole model. They may differ as much as transformers' own logits do when every
  layer's input is changed by about one rounding error, which is measured here.
- greedy text, which must be the same up to a token that is about as likely as its rival.
"""

from __future__ import annotations

import json
import multiprocessing
import tempfile
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.table import Table

from experts.checkpoint import Reader
from experts.verification_sides import (
    Floats,
    Ids,
    Reference,
    ReferenceText,
    Served,
    ServedText,
    VerificationError,
    prepare_process,
    run_reference,
    run_served,
)

LAYER_LIMIT = 0.02
"""Of a layer's relative difference. One activation that rounds the other way changes it by about
(peak / rms) / 127 / √inputs, below 0.01 from 16 inputs on; computing in bf16 by 0.005."""
LOGIT_LIMIT = 0.02
"""Of the median relative difference of logits, where rounding alone makes less. Small random
models reached 0.005; the mildest fault tried on them (one query scale doubled) made 0.04."""
NOISE_FACTOR = 3.0
"""How many times the measured effect of rounding is still taken for rounding."""
TIE_FACTOR = 6.0
"""How many times the limit of logits two tokens may lie apart for either to be right. It is a
root mean square, and the two single logits may err in opposite directions."""
PROMPTS = (
    "The Moon shows phases because",
    "To add 4871 and 2956, first add the ones:",
    "def largest(numbers):\n    ",
    "Once upon a time, in a village by the sea, there lived a fisherman who",
)
RANDOM_LENGTH = 24


@dataclass(frozen=True)
class Verification:
    """What was measured, each figure with its limit.

    Attributes:
        layers: ternary layers compared; `layer_difference` is the largest relative difference,
            of the layer `worst_layer`.
        logit_difference: median over positions of the relative difference (root mean square
            over the largest logits, divided by all logits' standard deviation).
        largest_logit_difference: of a single logit, as it stands.
        rounding: what `logit_difference` is between two runs of transformers, one of them with
            every layer's input changed by one rounding error.
        same_top: share of positions where both have the same largest logit.
        same_texts: texts that are equal, of `texts`.
        text_gap: where texts part, how far apart the two tokens are in transformers' logits
            (largest of all texts, in standard deviations).
    """

    folder: str
    dtype: str
    layers: int
    worst_layer: str
    layer_difference: float
    layer_limit: float
    positions: int
    logit_difference: float
    largest_logit_difference: float
    rounding: float
    logit_limit: float
    same_top: float
    texts: int
    same_texts: int
    text_gap: float
    text_limit: float

    @property
    def passed(self) -> bool:
        """The verdict. NaN fails."""
        return (
            self.layer_difference <= self.layer_limit
            and self.logit_difference <= self.logit_limit
            and self.text_gap <= self.text_limit
        )


def verify(folder: Path, tokens: int, as_json: bool) -> int:
    """Compare both sides on `folder` and print the figures; 0 if they agree, else 1.

    Raises CheckpointError for a folder that is no sound bitnet checkpoint, VerificationError if
    a side cannot load it.
    """
    with own_process() as reference, own_process() as served:
        result = compare(folder, tokens, reference, served, Console(stderr=True))
    if as_json:
        print(json.dumps(asdict(result) | {"passed": result.passed}))
    else:
        Console(highlight=False).print(_table(result))
    return 0 if result.passed else 1


@contextmanager
def own_process() -> Iterator[Executor]:
    """A process for one of the sides; what it prints goes to a file that is deleted at the end."""
    with tempfile.TemporaryDirectory() as folder:
        log = str(Path(folder) / "log")
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(1, context, prepare_process, (log,)) as executor:
            yield executor


def compare(
    folder: Path, tokens: int, reference: Executor, served: Executor, console: Console
) -> Verification:
    """Run both sides, each in its executor, one after the other. Raises as `verify` does."""
    layout = Reader(folder).layout  # a damaged checkpoint is refused here, and by name
    prompts = _prompts(folder, layout.config, tokens)
    dtype = "bfloat16" if _cuda() else "float32"
    rounding = 2.0**-8 if dtype == "bfloat16" else 2.0**-23
    with console.status("transformers: loading, then generating..."):
        theirs = _result(
            reference, "transformers", run_reference, folder, prompts, tokens, rounding
        )
    texts = [text.ids for text in theirs.texts]
    with console.status("vLLM: loading, then generating..."):
        ours = _result(
            served, "vLLM", run_served, folder, prompts, texts, theirs.layers, tokens, dtype
        )
    return judge(str(folder), dtype, theirs, ours, tokens)


def judge(folder: str, dtype: str, theirs: Reference, ours: Served, tokens: int) -> Verification:
    """Both sides' results as figures with limits."""
    missing = theirs.layers.keys() - ours.layers.keys()
    if missing:
        raise VerificationError(f"{min(missing)} is ternary in transformers and not in vLLM")
    worst = max(ours.layers, key=lambda name: np.nan_to_num(ours.layers[name], nan=np.inf))
    pairs = list(zip(theirs.texts, ours.texts, strict=True))
    differences = [_logit_differences(*pair) for pair in pairs]
    relative = np.concatenate(
        [_relative(d, t.logits[:-1]) for d, (t, _) in zip(differences, pairs, strict=True)]
    )
    nudges = [_relative(t.nudged - t.logits, t.logits) for t in theirs.texts]
    rounding = float(np.median(np.concatenate(nudges)))
    limit = max(LOGIT_LIMIT, NOISE_FACTOR * rounding)
    same_top = [o.tokens[:, 0] == t.logits[:-1].argmax(-1) for t, o in pairs]
    gaps = [_text_gap(theirs_, ours_.text, tokens) for theirs_, ours_ in pairs]
    return Verification(
        folder=folder,
        dtype=dtype,
        layers=len(ours.layers),
        worst_layer=worst,
        layer_difference=ours.layers[worst],
        layer_limit=LAYER_LIMIT,
        positions=len(relative),
        logit_difference=float(np.median(relative)),
        largest_logit_difference=float(max(np.abs(d).max() for d in differences)),
        rounding=rounding,
        logit_limit=limit,
        same_top=float(np.concatenate(same_top).mean()),
        texts=len(gaps),
        same_texts=sum(t.ids[-tokens:] == o.text for t, o in pairs),
        text_gap=max(gaps),
        text_limit=TIE_FACTOR * limit,
    )


def _logit_differences(theirs: ReferenceText, ours: ServedText) -> Floats:
    """`[positions, TOP]`: vLLM's largest logits minus transformers' of the same tokens."""
    difference: Floats = ours.logits - np.take_along_axis(theirs.logits[:-1], ours.tokens, -1)
    return difference


def _relative(differences: Floats, logits: Floats) -> npt.NDArray[np.float64]:
    """Root mean square of each position's differences, in standard deviations of its logits."""
    squares = np.square(differences, dtype=np.float64).mean(-1)
    relative: npt.NDArray[np.float64] = np.sqrt(squares) / logits.std(-1)
    return relative


def _text_gap(theirs: ReferenceText, ours: Ids, tokens: int) -> float:
    """How far apart the first two tokens are that differ, 0 if none do."""
    start = len(theirs.ids) - tokens
    for number, (their_token, our_token) in enumerate(zip(theirs.ids[start:], ours, strict=True)):
        if their_token != our_token:
            logits = theirs.logits[start + number - 1]
            return abs(float(logits[their_token] - logits[our_token])) / float(logits.std())
    return 0.0


def _prompts(folder: Path, config: Any, tokens: int) -> list[Ids]:
    """Token ids of `PROMPTS`, or random ones where the folder holds no tokenizer."""
    from transformers import AutoTokenizer

    room = config.max_position_embeddings - tokens - 1
    if room < 2:
        raise VerificationError(f"texts of {tokens} tokens are too long for this model")
    if (folder / "tokenizer_config.json").exists():
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        return [tuple(tokenizer(text)["input_ids"][:room]) for text in PROMPTS]
    random = np.random.default_rng(0)
    length = min(RANDOM_LENGTH, room)
    return [tuple(random.integers(0, config.vocab_size, length).tolist()) for _ in PROMPTS]


def _cuda() -> bool:
    import torch

    return torch.cuda.is_available()


def _result(executor: Executor, side: str, run: Any, *arguments: Any) -> Any:
    try:
        return executor.submit(run, *arguments).result()
    except BrokenProcessPool:
        raise VerificationError(
            f"the process of {side} ended before it answered; the usual reason is too little memory"
        ) from None


def _table(result: Verification) -> Table:
    title = f"{result.folder}: transformers and Trivium in vLLM, {result.dtype}"
    table = Table("compared", "measured", "limit", "", title=title, title_justify="left")

    def row(what: str, measured: str, value: float | None = None, limit: float = 0.0) -> None:
        if value is None:
            table.add_row(what, measured, "", "")
        else:
            table.add_row(what, measured, f"{limit:.2g}", "ok" if value <= limit else "DIFFERS")

    worst, limit = result.layer_difference, result.layer_limit
    row(f"{result.layers} ternary layers, each alone", f"{worst:.2g}", worst, limit)
    row("  worst layer", result.worst_layer)
    difference = result.logit_difference
    row(
        f"logits at {result.positions} positions, median",
        f"{difference:.2g}",
        difference,
        result.logit_limit,
    )
    row("  what rounding alone makes in transformers", f"{result.rounding:.2g}")
    row("  largest difference of one logit", f"{result.largest_logit_difference:.3g}")
    row("  same largest logit", f"{result.same_top:.1%}")
    same = f"{result.same_texts} of {result.texts} equal"
    row("greedy texts, how far apart rivals are", same, result.text_gap, result.text_limit)
    table.caption = "the same model" if result.passed else "NOT the same model"
    table.caption_justify = "left"
    return table
