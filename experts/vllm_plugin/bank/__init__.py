"""A bank: one vLLM engine that holds many ternary experts of one architecture.

vLLM's LoRA machinery carries everything that is common to models chosen per request: addressing
by name, how many are resident, which is evicted, prefix-cache separation. An "adapter" here holds
no numbers, only the path of a whole expert (`adapters.py`); when vLLM activates it in a slot, the
expert's packed weights are copied there (`contents.py`), and every layer multiplies each token of
a mixed batch with the weights of its request's slot (`layers.py`, `step.py`).
"""
