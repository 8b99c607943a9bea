"""The segments of a training step and how long each takes: numbers in, numbers out, no torch and no clock.

A *cut* is a moment within the step at which it may stop, numbered from 0, its beginning. A segment is what lies between
the cuts that ask the gate. At first every cut does; segments that are short are then joined to the next.
"""

from __future__ import annotations

import bisect
from collections import deque
from typing import Deque, Dict, List, NamedTuple

#: Lengths that a segment remembers.
WINDOW = 128


class Segment(NamedTuple):
    """One row of the report: a part of the training step that runs without asking."""

    #: Where it begins, such as ``forward of layers.0``.
    label: str
    #: Cuts within it that do not ask.
    joined: int
    #: What the gate is asked for, in nanoseconds.
    need_ns: int
    median_ns: int


class Times:
    """The last lengths of one segment."""

    def __init__(self) -> None:
        self._recent: Deque[int] = deque()
        self._sorted: List[int] = []

    def add(self, length_ns: int) -> None:
        """Takes note of a length."""
        self._recent.append(length_ns)
        bisect.insort(self._sorted, length_ns)
        if len(self._recent) > WINDOW:
            del self._sorted[bisect.bisect_left(self._sorted, self._recent.popleft())]

    def __len__(self) -> int:
        return len(self._recent)

    def quantile(self, share: float) -> int:
        """That quantile of the lengths; 0 where there is none."""
        last = len(self._sorted) - 1
        return self._sorted[min(last, int(share * last + 0.999999))] if self._sorted else 0


class Segments:
    """The segments of one training step.

    A step may go another way than those before: an evaluation now and then, a layer that is left out. From the first cut on
    that is labelled otherwise than it was, each cut asks, and its lengths are kept apart.

    :param quantile: The quantile of a segment's lengths that the gate is asked for.
    """

    def __init__(self, quantile: float) -> None:
        self._quantile = quantile
        self._labels: List[str] = []
        self._times: Dict[int, Times] = {}
        #: Of steps that went another way, by label.
        self._elsewhere: Dict[str, Times] = {}
        self._joined: Dict[int, int] = {}
        self._asks: List[bool] = []
        self._is_elsewhere = False

    def begins(self, cut: int, label: str) -> bool:
        """Whether a segment begins at this cut. While joining has not been all cuts ask, and the usual way is learned."""
        if not self._asks:
            if cut >= len(self._labels):
                self._labels.append(label)
            return True
        if cut == 0:
            self._is_elsewhere = False
        self._is_elsewhere |= cut >= len(self._labels) or self._labels[cut] != label
        return self._is_elsewhere or self._asks[cut]

    def add(self, cut: int, label: str, length_ns: int) -> None:
        """Takes note of how long the segment that begins at this cut took."""
        if self._is_usual(cut, label):
            self._times.setdefault(cut, Times()).add(length_ns)
        else:
            self._elsewhere.setdefault(label, Times()).add(length_ns)

    def need_ns(self, cut: int, label: str) -> int:
        """What to ask for. A segment that was never seen may be as long as the longest."""
        times = self._times.get(cut) if self._is_usual(cut, label) else self._elsewhere.get(label)
        if times is not None:
            return times.quantile(self._quantile)
        known = [*self._times.values(), *self._elsewhere.values()]
        return max((t.quantile(self._quantile) for t in known), default=0)

    def _is_usual(self, cut: int, label: str) -> bool:
        return not self._is_elsewhere and cut < len(self._labels) and self._labels[cut] == label

    def join(self, least_ns: int) -> None:
        """Joins neighbours until each takes about ``least_ns``; what it takes is then learned anew."""
        self._asks = [False] * len(self._labels)
        begin, spent = 0, 0
        for cut in range(len(self._labels)):
            length = self._times[cut].quantile(0.5) if cut in self._times else 0
            if cut == 0 or spent + length > least_ns:
                self._asks[cut] = True
                begin, spent = cut, 0
            else:
                self._joined[begin] = self._joined.get(begin, 0) + 1
            spent += length
        self._times.clear()
        self._elsewhere.clear()

    def table(self) -> List[Segment]:
        """A row a segment, in the order of the usual step."""
        return [
            Segment(self._labels[cut], self._joined.get(cut, 0), times.quantile(self._quantile), times.quantile(0.5))
            for cut, times in sorted(self._times.items())
        ]
