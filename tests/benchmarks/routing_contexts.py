"""Queries behind system prompts, other exchanges and polite words: accuracy of the joint fit where
what stands before the query was never seen.

python -m tests.benchmarks.routing_contexts TRAIN.jsonl UNSEEN.jsonl
"""

from __future__ import annotations

import random
import sys
from collections.abc import Sequence
from pathlib import Path

from router.dataset import Query, limit_per_expert, read_queries
from router.encode import Messages
from router.evaluate import figures
from router.joint import decisions, fit_joint
from router.offline import OfflineEncoder
from router.prepare import prepare
from router.training import encode_training, experts_of, labels_of
from router.views import with_query
from router.vocabulary import DEFAULT_SLOTS
from server.settings import Settings

LIMITS = (25, None)
SYSTEM = (
    "You are a concise assistant. Answer in one or two sentences.",
    "You are Max, the friendly support bot of an online bookshop. Be polite and never discuss"
    " competitors.",
    "Answer as briefly as possible. If you are not sure, say so.",
    "You are a patient tutor for school children. Explain step by step and use simple words.",
    "Today is Monday, 3 March 2025. The user is in Berlin. Use metric units and Markdown where it"
    " helps.",
    "You are a senior software engineer. Prefer short answers and code examples.",
    "Respond in a formal tone. Do not use emojis. Keep paragraphs short and structured.",
    "You are an AI assistant that follows instructions extremely well. Help as much as you can.",
    "You are a pirate. Talk like one.",
    "The following is a conversation between a curious user and a knowledgeable assistant.",
    "Always think carefully before you answer, and finish with the final answer on a line of its"
    " own.",
)
EXCHANGES = (
    ("Hi!", "Hello! How can I help you today?"),
    ("What's a good name for a black cat?", "How about Midnight, Shadow or Onyx?"),
    (
        "Can you recommend a film for tonight?",
        "If you like comedies, try The Grand Budapest Hotel. For something tense, Prisoners.",
    ),
    ("Write a haiku about rain.", "Soft rain on the roof,\nthe garden drinks in silence."),
    (
        "How do I boil an egg?",
        "Place the egg in boiling water for 7 to 10 minutes, then cool it in cold water.",
    ),
    ("Translate 'good morning' into Spanish.", "Buenos días."),
    ("What is the capital of Norway?", "The capital of Norway is Oslo."),
    ("How do I reverse a list in Python?", "Use my_list.reverse(), or my_list[::-1] for a copy."),
    (
        "I feel a bit tired today.",
        "I'm sorry to hear that. A short walk and an early night may help.",
    ),
    ("Who wrote Pride and Prejudice?", "Jane Austen wrote it; it was published in 1813."),
    ("Thanks, that helped!", "You're welcome! Is there anything else you would like to know?"),
)

POLITE = (
    "hey, quick one: ",
    "Good morning. I am preparing for an exam and got stuck here. ",
    "ok so ",
    "Could you look at the following for me?\n\n",
    "Sorry to bother you again! ",
)


def greeted(queries: Sequence[Query]) -> list[Messages]:
    """Each query behind polite words in the same turn."""
    rng = random.Random(2)
    return [with_query(query.messages, rng.choice(POLITE) + query.text) for query in queries]


def behind(queries: Sequence[Query], contexts: Sequence[Messages]) -> list[Messages]:
    """Each query behind one of the contexts."""
    rng = random.Random(1)
    return [[*rng.choice(contexts), *query.messages] for query in queries]


def main(train: Path, unseen: Path) -> None:
    cache = Settings().cache_dir
    encoder = OfflineEncoder(prepare(cache / "models", None, DEFAULT_SLOTS), cache / "encodings")
    everything, asked = read_queries(train), read_queries(unseen)
    experts = experts_of(everything)
    truth = labels_of(asked, experts)
    systems: list[Messages] = [[{"role": "system", "content": text}] for text in SYSTEM]
    exchanges: list[Messages] = [
        [{"role": "user", "content": user}, {"role": "assistant", "content": answer}]
        for user, answer in EXCHANGES
    ]
    features = {
        "alone": encoder.encode([query.messages for query in asked]),
        "system prompt": encoder.encode(behind(asked, systems)),
        "another exchange": encoder.encode(behind(asked, exchanges)),
        "polite words": encoder.encode(greeted(asked)),
    }
    print("examples  before the query     accuracy  false routes")
    for limit in LIMITS:
        few = limit_per_expert(everything, limit, 0)
        data = encode_training(few, encoder, lambda done, of: None)
        fit = fit_joint(data)
        for name, states in features.items():
            found = figures(truth, decisions(fit.scores(states)), experts)
            accuracy, false = 100 * found.accuracy, 100 * found.false_route_rate
            print(f"{limit or 'all':>8}  {name:18} {accuracy:8.1f} {false:12.1f}", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
