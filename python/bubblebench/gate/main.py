"""The big model's end of a gate (``src/corun/gate/main_end.rs``)."""

from __future__ import annotations

import contextlib
import ctypes
import enum
import operator
import os
import tempfile
import threading
import time
from typing import Iterator, Optional

from . import lock, protocol, system
from .arguments import MOST, AnyPath, limit_ns_of, path_of
from .ends import End, unforked
from .errors import GateError, refused, stands_still
from .lock import Lock
from .page import MAGIC, PAGE_BYTES, VERSION, Page, Words, fresh, is_a_page
from .process import Life, ProcessId, main_life, time_namespace

#: The last operation ends so long before the expected close, in nanoseconds, unless the main sets another margin.
MARGIN_NS = 10_000
# A waiting main looks this often whether the side is still there.
_LOOK_NS = 5_000_000


class Main(End):
    """Makes a gate at ``path`` (a folder in memory such as /dev/shm is best) and is its main.

    Leaving it, by ``with``, by the end of the program or by nobody's having it any more, shuts the gate down and removes
    its file. In a child of ``fork`` its calls do nothing: the gate is the parent's. Several threads may call it.

    SIGTERM, and :mod:`multiprocessing` in its children of ``fork`` and ``forkserver``, end a program without what it does
    at its end: use ``with`` there, or call :meth:`shut_down`. A gate that was not left is taken over by the next main.

    :raises GateError: where the file cannot be made, another main lives there, or what stands there is no gate.
    """

    def __init__(self, path: AnyPath) -> None:
        system.check()
        self._path = _linked(path_of(path))
        # A hook of autograd's may come from another thread, and a signal's handler from this one.
        self._lock = threading.RLock()
        self._down = False
        self._page = self._create()
        self._own = True
        self._words = self._page.words

    def _create(self) -> Page:
        """Makes a fresh page, complete before it has its name; the descriptor holds the main's lock."""
        path, unnamed = self._path, None
        try:
            with unforked:
                fd, unnamed = tempfile.mkstemp(prefix=".gate-", dir=os.path.dirname(path))
                self._holds(fd)
            page = fresh(unnamed, fd)
            page.words.margin, page.words.main_heartbeat = MARGIN_NS, page.now()
            # Before it has a name: nobody sees the page without its main.
            lock.try_lock(fd, lock.MAIN)
            end = time.monotonic() + protocol.LEASE_NS / 1e9
            while True:
                standing = _take(path, unnamed)
                if standing is _Standing.OURS:
                    return page
                if time.monotonic() >= end:
                    break
                time.sleep(0.001)
            if standing is _Standing.LOCKED:
                raise stands_still(path)
            raise GateError(
                f"cannot create the gate {path}: others make and remove it all the time",
                "give every main program a gate of its own",
            )
        except BaseException as error:
            self._close_file()
            if isinstance(error, OSError):
                raise refused("create the gate", path, error) from None
            raise
        finally:
            if unnamed is not None:
                with contextlib.suppress(OSError):
                    os.unlink(unnamed)

    def open(self, expected_ns: int, bubble: Optional[int] = None) -> None:
        """Opens the gate for about ``expected_ns`` nanoseconds. Opening an open gate names a new expected close.

        Once the gate is shut down it does nothing: a training job goes on without a side. Nor does it where a device opens.

        :param bubble: A number for the bubble; without it, one more than the last.
        :raises GateError: for a negative length, and a bubble's number that a word of 64 bits cannot hold.
        """
        expected_ns = operator.index(expected_ns)
        if expected_ns < 0:
            raise GateError(f"a bubble of {expected_ns} ns cannot be", "give a length of 0 or more")
        if bubble is not None:
            bubble = operator.index(bubble)
            if not 0 <= bubble <= MOST:
                raise GateError(f"a bubble cannot have the number {bubble}", f"give one from 0 to {MOST}")
        if self._own:
            with self._lock:
                if self._words.driver == 0:
                    protocol.open_gate(self._page, expected_ns, bubble)
                if self._down:
                    # Shut down by a signal's handler while this opened.
                    protocol.shut_down(self._page)

    def close(self) -> None:
        """Closes the gate; does not wait. Closing a closed gate changes nothing, nor does it where a device closes."""
        if self._own:
            with self._lock:
                if self._words.driver == 0:
                    protocol.close_gate(self._page)
                if self._down:
                    protocol.shut_down(self._page)

    def shut_down(self) -> None:
        """Shuts the gate down: the side's waiting ends for good, and :meth:`Side.go` says False."""
        if self._own:
            self._down = True
            with self._lock:
                protocol.shut_down(self._page)

    def beat(self) -> None:
        """Tells that the main lives, where it neither opens nor closes for long and sides have a ``main_timeout``."""
        if self._own:
            self._words.main_heartbeat = self._page.now()

    def set_grace(self, grace_ns: int) -> None:
        """Sets how many nanoseconds behind the expected close operations may end all the same (0 at first).

        For openings whose length is a guess: a side that trusts it would stop too early. It holds for openings that the side
        has not looked at yet.
        """
        if self._own:
            self._words.grace = _word(grace_ns)

    def set_margin(self, margin_ns: int) -> None:
        """Sets how many nanoseconds before the expected close operations must have ended (:data:`MARGIN_NS` at first).

        It holds for openings that the side has not looked at yet.
        """
        if self._own:
            self._words.margin = _word(margin_ns)

    def hand_to_device(self) -> int:
        """Closes the gate; from now on a device opens and closes it, by writes to its line in the order of its stream.

        To be called before a side attaches. :meth:`open` and :meth:`close` have no effect then.

        :returns: The address of that line, at offset 1024 of the page; the page is mapped as long as this object lives.
        """
        if self._own:
            with self._lock:
                self.close()
                self._words.driver = 1
                self._page.fence()
        return ctypes.addressof(self._words) + int(Words.device_open.offset)  # type: ignore[attr-defined]

    def stopped(self) -> Optional[int]:
        """Nanoseconds from the last closing until the side stood still, 0 where it had stopped by the clock before.

        None while the gate is open or the side has not acknowledged that closing.
        """
        return protocol.stopped(self._page)

    def wait_stopped(self, limit_s: Optional[float]) -> Optional[int]:
        """Waits until the side stands still, at most ``limit_s`` seconds (None: no limit); other threads run meanwhile.

        :returns: As :meth:`stopped`; None where nobody is there that is ready to work, or that has died: nothing runs.
        :raises TimeoutError: where the side was still at work when the time was over.
        """
        begun, limit_ns, looked = time.monotonic_ns(), limit_ns_of("limit_s", limit_s), 0
        while True:
            latency_ns = self.stopped()
            if latency_ns is not None:
                return latency_ns
            waited = time.monotonic_ns() - begun
            over = waited >= limit_ns
            look = over or waited >= looked + _LOOK_NS
            if self._side_is_absent(look):
                return None
            if over:
                raise TimeoutError(f"the side of {self._path} did not stand still within {limit_s} s")
            if look:
                looked = waited
            # Spinning, or looking too often, would take from the side the core it needs to finish.
            nap = min(max(waited // 2, 20_000), 1_000_000)
            time.sleep(max(0, min(nap, limit_ns - waited)) / 1e9)

    def _side_is_absent(self, look: bool) -> bool:
        """Nobody is there that is ready to work. ``look``: ask for its life too, which takes longer."""
        side = self._page.side()
        if side is None or not look:
            return side is None
        life = side.life()
        expired = self._words.lease_until <= time.monotonic_ns()
        return life is Life.GONE or (life is Life.UNKNOWN and expired)

    @property
    def path(self) -> str:
        """Where the gate is."""
        return self._path

    @property
    def side_pid(self) -> Optional[int]:
        """Process id of the side that is ready to work, in its own id namespace; None where there is none."""
        side = self._page.side()
        return None if side is None else side.pid

    @property
    def operations(self) -> int:
        """Operations finished so far, by all sides that have been attached to this gate."""
        return self._words.operations

    @property
    def self_stops(self) -> int:
        """Openings in which a side stopped by the clock, before the closing."""
        return self._words.self_stops

    @property
    def openings(self) -> int:
        """Number of openings so far."""
        return self._words.openings

    @property
    def closings(self) -> int:
        """Number of closings so far."""
        return self._words.closings

    @property
    def opened_at(self) -> int:
        """Time of the last opening, on ``time.monotonic_ns()``; 0 before the first."""
        return self._words.opened_at

    @property
    def started_at(self) -> Optional[int]:
        """Time at which the side went to work in the present opening, on ``time.monotonic_ns()``.

        None while it has not, once the gate is closed, and where a device opens it.
        """
        state = self._words.state
        return self._started_in(state >> 2) if state & 3 == protocol.OPEN else None

    @property
    def start_latency_ns(self) -> Optional[int]:
        """Time from the last opening to the side's first operation in it, told after the closing too.

        None where there was none, and where a device opens the gate.
        """
        state = self._words.state
        started_at = self._started_in((state >> 2) - (state & 3 != protocol.OPEN))
        return None if started_at is None else max(0, started_at - self._words.opened_at)

    def _started_in(self, opening: int) -> Optional[int]:
        """When the side went to work in that opening of the main's, if it did."""
        words = self._words
        started = words.started
        self._page.order()
        return words.started_at if words.driver == 0 and started == opening > 0 else None

    @property
    def work_ns(self) -> Optional[int]:
        """Time from the side's first operation in the last opening to its standing still.

        None until the side has acknowledged the closing, and where it did no operation.
        """
        latency_ns = self.start_latency_ns
        if self.stopped() is None or latency_ns is None:
            return None
        work_ns = self._words.stopped_at - self._words.opened_at - latency_ns
        return work_ns if work_ns >= 0 else None

    def _leave(self) -> None:
        if not self._own:
            return
        self.shut_down()
        self._own = False
        if _is_at(self._fd, self._path):
            with contextlib.suppress(OSError):
                os.unlink(self._path)
        self._close_file()

    def __repr__(self) -> str:
        return f"<bubblebench.gate.Main of {self._path}>"


def _word(number: int) -> int:
    return max(0, min(operator.index(number), MOST))


def _is_at(fd: int, path: str) -> bool:
    """Whether the open file is the one that has this name."""
    try:
        return os.path.samestat(os.fstat(fd), os.stat(path))
    except OSError:
        return False


def _linked(path: str) -> str:
    """What a link leads to is replaced, and not the link."""
    return os.path.realpath(path) if os.path.exists(path) else path


def _take(path: str, unnamed: str) -> _Standing:
    """Gives the page at ``unnamed`` its name: OURS; all else where another program was faster, and it is to be looked at
    again."""
    with _standing(path) as standing:
        if standing is _Standing.NOTHING:
            try:
                # A second name rather than a new one: it never takes another page's.
                os.link(unnamed, path)
                return _Standing.OURS
            except FileExistsError:
                return _Standing.CHANGING
        if standing is _Standing.ABANDONED:
            # While the lock of its places is ours, so that of two that come at once one wins and the other sees its page.
            os.rename(unnamed, path)
            return _Standing.OURS
        return standing


class _Standing(enum.Enum):
    """What stands at the path of a gate that is to be made."""

    NOTHING = "nothing"
    #: A page whose main is gone; nobody else holds the lock of its places.
    ABANDONED = "abandoned"
    #: It changed while it was looked at.
    CHANGING = "changing"
    #: An abandoned page; so far somebody else holds the lock of its places.
    LOCKED = "locked"
    #: The page that was to be given this name.
    OURS = "ours"


@contextlib.contextmanager
def _standing(path: str) -> Iterator[_Standing]:
    """An error where a main lives there, or what stands there is no gate. The lock of an abandoned one is held inside."""
    if not os.path.lexists(path):
        yield _Standing.NOTHING
        return
    no_gate = GateError(
        f"{path} is there and is no gate: it is not written over",
        "give the gate a path of its own, such as /dev/shm/gate-0",
    )
    fd = -1
    try:
        try:
            seen = os.stat(path)
        except FileNotFoundError:
            if os.path.islink(path):
                raise no_gate from None
            yield _Standing.CHANGING
            return
        except OSError:
            raise no_gate from None
        if not is_a_page(seen.st_mode, seen.st_size):
            raise no_gate
        try:
            fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
        except FileNotFoundError:
            yield _Standing.CHANGING
            return
        head = os.pread(fd, PAGE_BYTES, 0)
        if len(head) != PAGE_BYTES:
            raise no_gate
        words = Words.from_buffer_copy(head)
        # The header's places are the same in every version.
        main = ProcessId(words.main_pid, words.main_started, words.main_namespace)
        if words.magic != MAGIC or not 0 < main.pid < 2**32:
            raise no_gate
        # Mains of version 1 held no lock.
        if words.version == VERSION:
            lives = main_life(fd, main, words.time_namespace) is not Life.GONE
        else:
            lives = main.life() is Life.RUNNING
        if lives:
            # Its start is on the clock of its own time namespace.
            elsewhere = words.version == VERSION and words.time_namespace != time_namespace()
            age_s = None if elsewhere else main.age_s()
            since = "" if age_s is None else f", started {int(age_s)} s ago"
            raise GateError(
                f"{path} already has a main program (process {main.pid}{since})",
                "end it first, or give every main program a gate of its own",
            )
        # Of two that come at once one gets it, and the other sees another page next time: it looks behind the lock.
        if lock.try_lock(fd, lock.PLACE) is Lock.REFUSED:
            yield _Standing.LOCKED
            return
        try:
            yield _Standing.ABANDONED if _is_at(fd, path) else _Standing.CHANGING
        finally:
            # A child of fork may have the file too, and with it the lock.
            lock.unlock(fd, lock.PLACE)
    finally:
        if fd >= 0:
            os.close(fd)
