"""The gate's protocol: what main and side read and write, in which order. It follows ``src/corun/gate/protocol.rs`` step
for step, whose every order of steps a model has gone through; the ends wait between these steps.

A side is *idle* (nobody is there), *armed* (attached, the gate shut), *running* (open, and the time check passed),
*draining* (closed, or its time is up, with an operation in flight) or *stopped* (it has acknowledged). The main moves the
gate, the clock ends an opening for the side, and the side alone says that it stands still.

``page.order()`` stands where Rust's stores release or its loads acquire, ``page.fence()`` where an access of Rust's total
order is a store that a load follows (state and futex word, asleep, the side's process id and generation). Rust takes a
place by an exchange, and renews its lease by one; Python has none, and does both under the lock of the file's byte 1.

A signal's handler may raise between any two lines here: what the side remembers is set so that it then says a word twice
rather than start something behind it.
"""

from __future__ import annotations

import enum
from typing import Optional, Tuple

from .page import MOST, Page

#: A side's lease lasts so long from each renewal: the longest that a side killed in another container keeps its place. A
#: place changes hands within moments; who stands still in the middle of that is waited for as long.
LEASE_NS = 1_500_000_000
#: Phases of a gate, in the low two bits of the state.
CLOSED, OPEN, SHUT_DOWN = 0, 1, 2
#: The generation in which a side stands still once a device's gate is shut down; the device's own have 32 bits.
DEVICE_SHUT_DOWN = 1 << 40
#: Acknowledges nothing: no generation is as high, and no side's word.
NOTHING = MOST


def standing(side_generation: int, generation: int) -> int:
    """A side's word that it stands still in a generation of the gate; whose word it is stands in the upper 16 bits."""
    return (side_generation & 0xFFFF) << 48 | generation & 0xFFFF_FFFF_FFFF


def open_gate(page: Page, expected_ns: int, bubble: Optional[int] = None) -> bool:
    """Opens the gate for about ``expected_ns``; an open one gets a new expected close. Wakes who sleeps.

    False where it is shut down for good, and nothing is touched.
    """
    words = page.words
    now = page.now()
    state = words.state
    if state & 3:
        if state & 3 == SHUT_DOWN:
            return False
        _account(page, now)
    close = now + expected_ns
    # Behind the state before: a side that reads these sees, when it reads the state again, that the opening it began to
    # read is over.
    if page.weak:
        page.fence()
    words.opened_at = now
    words.expected_close = close if close < MOST else MOST
    words.bubble = words.bubble + 1 if bubble is None else bubble
    words.openings += 1
    _advance(page, state, OPEN, now)
    return True


def close_gate(page: Page) -> None:
    """Closes the gate; a closed one stays as it is. Wakes who sleeps."""
    words = page.words
    state = words.state
    if state & 3 != OPEN:
        return
    now = page.now()
    _account(page, now)
    words.closed_at = now
    words.closings += 1
    _advance(page, state, CLOSED, now)


def shut_down(page: Page) -> None:
    """Shuts the gate down for good. Wakes who sleeps."""
    words = page.words
    state = words.state
    if state & 3 == SHUT_DOWN:
        return
    now = page.now()
    if state & 3 == OPEN:
        _account(page, now)
        words.closed_at = now
    _advance(page, state, SHUT_DOWN, now)


def is_shut_down(page: Page) -> bool:
    """Whether the gate is shut down for good."""
    return page.words.state & 3 == SHUT_DOWN


def _account(page: Page, now: int) -> None:
    words = page.words
    words.open_ns += max(0, now - words.opened_at)


def _advance(page: Page, before: int, to: int, now: int) -> None:
    words = page.words
    state = ((before >> 2) + 1 << 2 | to) & MOST
    words.main_heartbeat = now
    if page.weak:
        page.fence()
    words.state = state
    words.futex = state & 0xFFFF_FFFF
    # Always, whether anybody says that it sleeps or not: the call is the fence that would have to stand before that look,
    # and behind the state. A side that takes its place, or becomes ready, either sees this state or is seen by `stopped`.
    page.wake()


def stopped(page: Page) -> Optional[int]:
    """Nanoseconds from the last closing until the side stood still, 0 where it had stopped by the clock before; None while
    the gate is open, or as long as the side has not acknowledged.

    Where a device opens and closes nobody knows when it did: the latency is 0.
    """
    words = page.words
    state = words.state
    # What stands there before any side has come would be the word of generation 0.
    if words.side_generation == 0:
        return None
    if words.driver:
        shut = state & 3 == SHUT_DOWN
        is_open = words.device_open
        page.order()
        now = DEVICE_SHUT_DOWN if shut else words.device_generation
        page.order()
        word = words.stopped
        page.order()
        stands = (shut or not is_open) and word == standing(words.side_generation, now)
        return 0 if stands else None
    if state & 3 == OPEN:
        return None
    word = words.stopped
    page.order()
    side = words.side_generation
    # Standing still in the opening that was closed holds behind the closing too: a side works in no opening twice.
    now = state >> 2
    if word != standing(side, now) and (now == 0 or word != standing(side, now - 1)):
        return None
    return max(0, words.stopped_at - words.closed_at)


class Look(enum.Enum):
    """What a side found when it looked at the gate."""

    #: An operation may start now.
    GO = "go"
    #: Nothing may start: the gate is closed, or the side has stopped in this opening before. With the state that was seen.
    WAIT = "wait"
    #: What is left of the opening is too short; all of it would have been enough. With the state that was seen, and what was
    #: left in ns, less the margin.
    LATE = "late"
    #: The opening is shorter than the operation from its first moment on. With its length in ns, less the margin.
    TOO_SHORT = "too short"
    #: The gate changed while it was looked at.
    AGAIN = "again"
    SHUT_DOWN = "shut down"
    LEASE_LOST = "lease lost"


#: What was found, the state that was seen where a side may sleep on it, and nanoseconds where they belong to it.
Found = Tuple[Look, int, int]
_GO: Found = (Look.GO, 0, 0)
_AGAIN: Found = (Look.AGAIN, 0, 0)


class SideProtocol:
    """A side as the protocol knows it.

    :param page: The page.
    :param generation: Of the lease that :func:`claim` has given.
    """

    __slots__ = (
        "page",
        "generation",
        "working_in",
        "working_state",
        "deadline",
        "began",
        "until",
        "acknowledged",
        "finished",
        "seen_before",
    )

    def __init__(self, page: Page, generation: int) -> None:
        self.page = page
        self.generation = generation
        #: Generation of the opening it works in, or has worked in; 0: none.
        self.working_in = 0
        #: The main's state while that opening lasts; NOTHING where a device opened.
        self.working_state = NOTHING
        #: When the last operation of that opening must have ended; 0 once it has stopped there by the clock.
        self.deadline = 0
        #: When it went to work there; 0 where it did not.
        self.began = 0
        #: What the deadline was then: from there on its work is no use of the opening.
        self.until = 0
        #: What it last said to stand still in.
        self.acknowledged = NOTHING
        #: Operations finished, those of sides before included.
        self.finished = page.words.operations
        #: When a device's line was last seen closed, or with the generation before; 0: not yet.
        self.seen_before = 0

    def look(self, need_ns: int) -> Found:
        """Looks whether an operation that takes ``need_ns`` may start."""
        page = self.page
        words = page.words
        if words.side_generation != self.generation:
            return (Look.LEASE_LOST, 0, 0)
        state = words.state
        # The usual answer: the opening it works in lasts, and long enough.
        if state == self.working_state and page.now() + need_ns <= self.deadline:
            return _GO
        phase = state & 3
        if phase != SHUT_DOWN and words.driver:
            return self._look_at_device(need_ns)
        opening = state >> 2
        if phase == OPEN:
            if opening == self.working_in:
                self._stop_by_clock(opening)
                return (Look.WAIT, state, 0)
            page.order()
            close, grace, margin, opened = words.expected_close, words.grace, words.margin, words.opened_at
            page.order()
            if words.state != state:
                return _AGAIN
            deadline = max(0, min(close + grace, MOST) - margin)
            return self._enter(opening, opened, deadline, need_ns, state, state)
        if phase == SHUT_DOWN:
            self._stand_still(DEVICE_SHUT_DOWN if words.driver else opening)
            return (Look.SHUT_DOWN, 0, 0)
        self._stand_still(opening)
        return (Look.WAIT, state, 0)

    def _enter(self, opening: int, opened: int, deadline: int, need_ns: int, state: int, working_state: int) -> Found:
        """The first look at an opening; ``working_state`` is what the main's state says as long as it lasts."""
        page = self.page
        words = page.words
        now = page.now()
        # Where the main opened an open gate, the opening before ends here.
        self._account(now)
        if now + need_ns <= deadline:
            self.began, self.until = now, deadline
            words.started_at = now
            words.side_heartbeat = now
            if page.weak:
                page.fence()
            words.started = opening
            # Remembered last: where Ctrl-C comes before, it is entered once more.
            self.working_in, self.working_state, self.deadline = opening, working_state, deadline
            return _GO
        self.working_in, self.working_state, self.deadline = opening, working_state, 0
        self._stop_by_clock(opening)
        whole = max(0, deadline - opened)
        return (Look.TOO_SHORT, state, whole) if need_ns > whole else (Look.LATE, state, max(0, deadline - now))

    def _look_at_device(self, need_ns: int) -> Found:
        """A device's opening began, at the earliest, when its line was last seen without it."""
        page = self.page
        words = page.words
        before = self.seen_before
        now = page.now()
        is_open = words.device_open
        page.order()
        opening = words.device_generation
        page.order()
        expected_ns = words.device_expected_us * 1000
        margin = words.margin
        page.order()
        if words.device_generation != opening or words.device_open != is_open:
            return _AGAIN
        seen = opening << 2 | is_open
        if not is_open:
            self.seen_before = now
            self._stand_still(opening)
            return (Look.WAIT, seen, 0)
        if opening == self.working_in:
            self.seen_before = now
            if now + need_ns <= self.deadline:
                return _GO
            self._stop_by_clock(opening)
            return (Look.WAIT, seen, 0)
        if self.acknowledged == opening:
            # The generation was there before it was open: standing still then is no word about the closing that follows.
            # Taken back before anything starts, and looked at once more: that word may have been believed already.
            words.stopped = NOTHING
            self.acknowledged = NOTHING
            page.fence()
            return _AGAIN
        self.seen_before = now
        if not before:
            # It was there at the first look, and may be of any age.
            self.working_in = opening
            self._stop_by_clock(opening)
            return (Look.WAIT, seen, 0)
        # A main's state is no word about a device's opening, whatever its value.
        return self._enter(opening, before, max(0, before + expected_ns - margin), need_ns, seen, NOTHING)

    def _stop_by_clock(self, opening: int) -> None:
        """No operation starts in this opening any more, whatever it needs: the main may take the word for it."""
        self.deadline = 0
        if self.began:
            self.page.words.self_stops += 1
        self._stand_still(opening)

    def _stand_still(self, generation: int) -> None:
        page = self.page
        words = page.words
        word = standing(self.generation, generation)
        # Said once, and again where the last store of a side that lost this place came over it.
        if self.acknowledged == generation and words.stopped == word:
            return
        now = page.now()
        # One that has stood still since says nothing new about when.
        if self.began:
            words.stopped_at = now
            self._account(now)
        words.side_heartbeat = now
        if page.weak:
            page.fence()
        words.stopped = word
        # Remembered last: where Ctrl-C comes between, it is said once more.
        self.acknowledged = generation

    def _account(self, now: int) -> None:
        began = self.began
        if not began:
            return
        page = self.page
        words = page.words
        # What drains behind the closing is no use of the opening; a later closing is not this one. An earlier one's time
        # lies before the beginning.
        page.order()
        closed = words.closed_at
        end = min(now, closed, max(self.until, began)) if closed >= began else now
        self.began = 0
        words.work_ns = min(words.work_ns + max(0, end - began), MOST)

    def done(self) -> bool:
        """Counts a finished operation; False where another side has taken the place, and nothing is touched.

        Here and elsewhere a side looks at the generation first and stores then: one that is suspended in between makes that
        one store behind the other's back. Totals may go back by it for as long as the other's next operation takes, and a
        word that it stands still is said again.
        """
        page = self.page
        words = page.words
        if words.side_generation != self.generation:
            return False
        self.finished += 1
        if page.weak:
            page.fence()
        words.operations = self.finished
        return True

    def ready(self, pid: int) -> bool:
        """Says that this side, a thread of process ``pid``, is ready to work; False where its place is another's.

        The caller holds the lock of places.
        """
        words = self.page.words
        if words.side_generation != self.generation:
            return False
        self.page.order()
        words.side_pid = pid
        # The next look at the state comes behind it.
        self.page.fence()
        return True

    def fall_asleep(self) -> None:
        """Says that this side is about to sleep; the caller sleeps only while the page holds the state it saw."""
        self.page.words.asleep = 1
        self.page.fence()

    def wake(self) -> None:
        """Says that it is awake, unless another side sleeps there by now."""
        words = self.page.words
        if words.side_generation == self.generation:
            words.asleep = 0

    def leave(self) -> None:
        """Gives the place back; the caller holds the lock of places."""
        words = self.page.words
        if words.side_generation == self.generation:
            words.side_pid = 0
            self.page.fence()
            words.holder = 0
            self.page.order()
            words.lease_until = 0


def renew(page: Page, generation: int, before: int, until: int) -> bool:
    """Lengthens the lease that ends at ``before`` to ``until``; False where it is another's.

    The caller holds the lock of places.
    """
    words = page.words
    if words.side_generation != generation or words.lease_until != before:
        return False
    words.lease_until = until
    return True


def claim(page: Page, holder: int, until: int) -> SideProtocol:
    """Takes the side's place for the process ``holder`` up to ``until``.

    The caller holds the lock of places and has seen that nobody's lease lasts.
    """
    words = page.words
    generation = words.side_generation + 1 & MOST
    # First: from here on the side before starts nothing any more, and the main takes no word of its. Should this one die now,
    # nobody's word counts until the next one comes.
    words.side_generation = generation
    page.fence()
    words.side_pid = 0
    page.fence()
    words.holder = holder
    page.order()
    words.lease_until = until
    words.asleep = 0
    return SideProtocol(page, generation)
