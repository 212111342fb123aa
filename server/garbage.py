"""Python's garbage collector in a server: seldom."""

from __future__ import annotations

import gc

COLLECT_AFTER = (10_000, 20, 50)
"""Objects, and collections of the generation before, after which each generation is collected."""


def collect_seldom() -> None:
    """To be called when all is made that stays.

    What requests make has hardly any cycles: by default a tenth of a busy server's time goes into
    looking for some, and through what stays again and again.
    """
    gc.freeze()
    gc.set_threshold(*COLLECT_AFTER)
