"""A bank: one vLLM engine that holds many ternary experts of one architecture.

vLLM's LoRA machinery carries everything that is common to models chosen per request: addressing
by name, how many are resident, which is evicted, prefix-cache separation. An "adapter" here holds
no numbers, only the path of a whole expert (`adapters.py`), which is read beside the steps
(`shelf.py`); when vLLM activates it, it gets a place, and has its weights there from the next step
on (`contents.py`): on a CPU the place refers to them, on a GPU they are copied. Every layer
multiplies each token of a mixed batch with the weights of its request's place (`layers.py`,
`step.py`).
"""
