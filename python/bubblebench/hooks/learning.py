"""What a hook knows about the waits of an iteration: numbers in, numbers out, no clock and no framework.

A *program* is an order of waits that iterations repeat, such as the training step of one schedule with so many
micro-batches; evaluation is another. Its waits are told apart by their *position*, counted from 0 within the iteration. A
position's expected length is a low quantile of its last lengths, and of the last few of them; nothing is expected of one that has not been seen
often enough, or has just become much shorter. Lengths that jump and stay there are learned anew.
"""

from __future__ import annotations

import bisect
from collections import deque
from dataclasses import dataclass
from typing import Deque, Dict, Hashable, List, Optional, Sequence

#: A length has jumped if it is over twice the median or under half of what is expected, and by more than this.
JUMP_FLOOR_NS = 200_000
#: So many jumps up in a row, or down, and what was learned is forgotten. A bubble that has become longer is opened too
#: short meanwhile, which disturbs nobody; one that has become shorter is not opened at all.
JUMPS_UP, JUMPS_DOWN = 3, 2
#: So many of the last lengths must not be shorter, either, than what is expected.
LATELY = 8
#: Programs that are remembered at a time; the one that was not seen for longest goes first.
PROGRAMS = 8


@dataclass(frozen=True)
class Settings:
    """How a hook learns, and what it opens the gate for."""

    #: The dial: this share of a position's past bubbles was shorter than what the gate is opened for.
    quantile: float = 0.1
    #: Iterations that only learn, at the start and after a position's length has jumped.
    learn: int = 5
    #: Lengths that a position remembers.
    window: int = 64
    #: Shorter bubbles are never opened, in nanoseconds.
    min_ns: int = 500_000


@dataclass(frozen=True)
class Bubble:
    """One row of the learned table: a position of a program."""

    #: The program's name, such as ``Schedule1F1B, 8 micro-batches``.
    program: str
    #: Number of the wait within the iteration, from 0.
    position: int
    #: What is waited for: ``recv``, ``send`` (a message on its way out), or ``reduce`` (a collective; never opened).
    kind: str
    #: Iterations in which it was seen.
    count: int
    #: The median of the lengths remembered, in nanoseconds; 0 right after they were forgotten.
    median_ns: int
    #: What the gate would be opened for in the next iteration, in nanoseconds; ``None``: it stays closed there.
    expected_ns: Optional[int]
    #: The quantile that ``expected_ns`` is.
    quantile: float
    #: ``learned``, ``learning``, ``jumped`` (closed until the length is back, or learned anew), ``short`` or ``collective``.
    state: str
    #: How often the gate was opened for it.
    opened: int
    #: Nanoseconds that the gate stood open for it, all openings together.
    open_ns: int
    #: How often what was learned was forgotten.
    unlearned: int


class Position:
    """One wait of a program: its last lengths, in order of arrival and in order of length.

    :param kind: What is waited for.
    :param settings: How to learn.
    """

    def __init__(self, kind: str, settings: Settings) -> None:
        self.kind = kind
        self.count = 0
        self.opened = 0
        self.open_ns = 0
        self.unlearned = 0
        self._settings = settings
        self._recent: Deque[int] = deque()
        self._sorted: List[int] = []
        self._lately: Deque[int] = deque(maxlen=LATELY)
        self._low = 0
        self._jumps = 0

    def learn(self, length_ns: int) -> None:
        """Takes note of a length that was seen."""
        self.count += 1
        jump = self._direction(length_ns)
        if jump == 0:
            self._jumps = 0
        else:
            self._jumps = self._jumps + jump if self._jumps * jump > 0 else jump
            if not -JUMPS_DOWN < self._jumps < JUMPS_UP:
                self.forget()
        # One that jumps down alone says nothing about the next.
        if jump >= 0:
            self._lately.append(length_ns)
        self._recent.append(length_ns)
        bisect.insort(self._sorted, length_ns)
        if len(self._recent) > self._settings.window:
            oldest = self._recent.popleft()
            del self._sorted[bisect.bisect_left(self._sorted, oldest)]
        self._low = self._quantile()

    def forget(self) -> None:
        """Begins anew: the lengths so far say nothing about the next ones."""
        self.unlearned += bool(self._recent)
        self._recent.clear()
        self._sorted.clear()
        self._lately.clear()
        self._jumps = self._low = 0

    def _direction(self, length_ns: int) -> int:
        """1 where the length has jumped up, -1 down, 0 where it is like those before."""
        if len(self._sorted) < 2:
            return 0
        median, low = self.median_ns(), self._low
        if length_ns > max(2 * median, median + JUMP_FLOOR_NS):
            return 1
        return -1 if length_ns < min(low // 2, low - JUMP_FLOOR_NS) else 0

    def median_ns(self) -> int:
        """The median of the lengths remembered, the lower one of two; 0 where there is none."""
        return self._sorted[(len(self._sorted) - 1) // 2] if self._sorted else 0

    def _quantile(self) -> int:
        """Of the last few lengths too: where bubbles become shorter bit by bit, those of long ago say too much."""
        if not self._sorted:
            return 0
        share, lately = self._settings.quantile, sorted(self._lately)
        low = self._sorted[int(share * (len(self._sorted) - 1))]
        return min(low, lately[int(share * (len(lately) - 1))]) if lately else low

    def state(self) -> str:
        """What is known, as :attr:`Bubble.state` says it."""
        if self.kind == "reduce":
            return "collective"
        if len(self._sorted) < self._settings.learn:
            return "jumped" if self.unlearned else "learning"
        if self._low < self._settings.min_ns:
            return "short"
        return "jumped" if self._jumps < 0 else "learned"

    def expected_ns(self) -> Optional[int]:
        """What to open the gate for; ``None``: not at all."""
        return self._low if self.state() == "learned" else None


class Program:
    """The positions of one order of waits.

    :param name: What people call it.
    :param settings: How to learn.
    """

    def __init__(self, name: str, settings: Settings) -> None:
        self.name = name
        self.iterations = 0
        self.positions: List[Position] = []
        self._settings = settings

    def expected_ns(self, position: int, kind: str) -> Optional[int]:
        """What to open the gate for at this position; ``None`` where it stays closed."""
        if position >= len(self.positions) or self.positions[position].kind != kind:
            return None
        return self.positions[position].expected_ns()

    def finished(self, kinds: Sequence[str], lengths_ns: Sequence[int]) -> None:
        """Learns from an iteration. One with other waits than those before makes all of them begin anew."""
        if [position.kind for position in self.positions] != list(kinds):
            self.positions = [Position(kind, self._settings) for kind in kinds]
        self.iterations += 1
        for position, length_ns in zip(self.positions, lengths_ns):
            position.learn(length_ns)

    def table(self) -> List[Bubble]:
        """A row a position."""
        return [
            Bubble(
                program=self.name,
                position=index,
                kind=position.kind,
                count=position.count,
                median_ns=position.median_ns(),
                expected_ns=position.expected_ns(),
                quantile=self._settings.quantile,
                state=position.state(),
                opened=position.opened,
                open_ns=position.open_ns,
                unlearned=position.unlearned,
            )
            for index, position in enumerate(self.positions)
        ]


class Programs:
    """The programs that were seen last, each by a key that the framework's hook makes.

    :param settings: How to learn.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._known: Dict[Hashable, Program] = {}

    def get(self, key: Hashable, name: str) -> Program:
        """The program of this key; a new one where it was not seen lately."""
        program = self._known.pop(key, None) or Program(name, self._settings)
        self._known[key] = program
        if len(self._known) > PROGRAMS:
            del self._known[next(iter(self._known))]
        return program

    def table(self) -> List[Bubble]:
        """The rows of all programs, those with the most iterations first."""
        programs = sorted(list(self._known.values()), key=lambda program: -program.iterations)
        return [row for program in programs for row in program.table()]
