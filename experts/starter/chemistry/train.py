"""Trains the chemistry expert: `python -m experts.starter.chemistry.train --minutes 120`.

Runs on a CPU or a GPU. It may be stopped at any time; the same command goes on from the last
checkpoint in `--folder`. `--export` gets the packed checkpoint at every save.
"""

from __future__ import annotations

from experts.starter.chemistry.data import examples
from experts.starter.training import main

if __name__ == "__main__":
    main("chemistry", examples, __doc__.split("\n")[0])
