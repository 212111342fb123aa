"""Stop strings that begin in one model's text and end in the next one's."""

from __future__ import annotations

from collections.abc import Sequence


class SeamStops:
    """Holds back the least text that could begin a stop string, and finds matches over a seam.

    Matches inside one leg are the worker's affair (it strips them itself and says so); only a
    match that begins before the latest seam and ends after it is found here.
    """

    def __init__(self, stops: Sequence[str], *, include: bool = False) -> None:
        """`include`: a matched stop string stays in the text (`include_stop_str_in_output`)."""
        self._stops = tuple(stops)
        self._include = include
        self._held = ""
        self._before_seam = 0
        """How many of the held characters an earlier leg wrote."""

    @property
    def some(self) -> bool:
        """Whether there are any; if not, text may go on as it comes."""
        return bool(self._stops)

    def push(self, text: str) -> tuple[str, str | None]:
        """Add text; returns what may be sent now, and the stop string that it completed."""
        if not self._stops:
            return text, None
        self._held += text
        if self._before_seam and (match := self._match()):
            stop, begin = match
            sent = self._held[: begin + len(stop) if self._include else begin]
            self._held, self._before_seam = "", 0
            return sent, stop
        free = len(self._held) - self._open_suffix()
        sent, self._held = self._held[:free], self._held[free:]
        self._before_seam = max(0, self._before_seam - free)
        return sent, None

    def seam(self) -> None:
        """Another model writes from here on."""
        self._before_seam = len(self._held)

    def flush(self) -> str:
        """The answer is over: what was held back is plain text after all."""
        held, self._held, self._before_seam = self._held, "", 0
        return held

    def _match(self) -> tuple[str, int] | None:
        """The match over the seam that ends first, as vLLM's check_stop_strings chooses."""
        best: tuple[int, str, int] | None = None
        for stop in self._stops:
            begin = self._held.find(stop, max(0, self._before_seam - len(stop) + 1))
            end = begin + len(stop)
            if 0 <= begin < self._before_seam and (best is None or end < best[0]):
                best = (end, stop, begin)
        return best[1:] if best else None

    def _open_suffix(self) -> int:
        """Length of the longest suffix that a stop string could begin with."""
        longest = min(len(self._held), max(map(len, self._stops)) - 1)
        for length in range(longest, 0, -1):
            suffix = self._held[-length:]
            if any(len(stop) > length and stop.startswith(suffix) for stop in self._stops):
                return length
        return 0
