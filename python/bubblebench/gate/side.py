"""The small model's end of a gate (``src/corun/gate/side_end.rs``)."""

from __future__ import annotations

import operator
import os
import threading
import time
from typing import Optional, Tuple

from . import lock, protocol, system
from .arguments import AnyPath, limit_ns_of, need_of, path_of
from .ends import End, unforked
from .errors import GateError, LeaseLost, NeverFits, other_clock, stands_still
from .lock import Lock
from .page import Page, attached
from .process import Life, ProcessId, main_life, time_namespace
from .protocol import LEASE_NS, Found, Look, SideProtocol

# A thread of the side's renews it so often.
_RENEW_S = 0.25
# A waiting side spins this long, gives way a few times, then sleeps.
_SPIN_NS = 2_000
_YIELDS = 3
# A sleeping side looks this often whether the main is still there.
_LOOK_NS = 5_000_000
# Nobody wakes a side when a device opens the gate: it looks this often.
_DEVICE_LOOK_NS = 20_000
# After so many openings in a row, each too short for the operation from its first moment on, the side is told.
_TOO_SHORT = 64
# After so many openings in a row in which nothing started, too: what wakes a side takes more of them than is over.
_NOT_STARTED = 1024
_HAND_OVER_S = LEASE_NS / 1e9


class Side(End):
    """Becomes the side of the gate at ``path``; one thread at a time may use it.

    Leaving it, by ``with``, :meth:`close` or nobody's having it any more, gives the place to another side. Its lease is
    renewed by a thread: an operation that keeps Python's interpreter to itself for more than 1.5 s may lose the place, and
    from Python 3.12 on a ``fork`` in this process warns of that thread.

    :param main_timeout: Ends this side where the main has given no sign for so many seconds. Without it (None) a silent main
        is waited for as long as it lives: it may be writing a checkpoint.
    :param spin_ns: A waiting side looks without pause for so long before it sleeps. While it looks it is told of an opening
        some microseconds sooner, and keeps a core busy.
    :raises GateError: where there is no gate page of this version, its clock is another, its file system has no locks, or a
        side that lives is already attached. The lease of one in another container is waited for, 1.5 s at most.
    """

    def __init__(
        self,
        path: AnyPath,
        main_timeout: Optional[float] = None,
        spin_ns: int = _SPIN_NS,
    ) -> None:
        system.check()
        self._path = path_of(path)
        self._main_timeout_ns = limit_ns_of("main_timeout", main_timeout)
        self._spin_ns = operator.index(spin_ns)
        with unforked:
            self._page, fd = attached(self._path)
            self._holds(fd)
        try:
            self._main, self._protocol, until = _enter(self._path, self._page, fd)
        except BaseException:
            self._close_file()
            raise
        #: Own, ready and not ended: the usual answer may be asked for at once.
        self._live = False
        self._ready = False
        self._ended: Optional[str] = None
        self._looked = self._page.now()
        # The last need that was found to be a number.
        self._need_ns = 0
        # Openings in a row in which nothing started, and the most that was left; those of the last ones that were too short,
        # and the longest.
        self._not_started, self._most_left_ns = 0, 0
        self._too_short, self._longest_ns = 0, 0
        self._left = threading.Event()
        # The file's lock is this process's, and would not keep its own threads apart.
        self._places = threading.RLock()
        self._own = True
        # It knows the page and not this end, which would never go otherwise.
        self._renewal = threading.Thread(
            target=_renew,
            args=(self._page, fd, self._protocol.generation, until, self._places, self._left),
            name="gate-lease",
            daemon=True,
        )
        try:
            self._renewal.start()
        except RuntimeError as error:
            self._leave()
            raise GateError(f"cannot start a thread: {error}", "end other programs") from None

    def ready(self) -> None:
        """Says that the side is ready to work; :meth:`go` says it as well. Until then the main takes it for absent."""
        if self._own and not self._ready:
            with self._places:
                # Where nobody gives the lock back, the generation alone tells whose the place is.
                lock.lock_within(self._fd, lock.PLACE, _HAND_OVER_S)
                try:
                    self._protocol.ready(os.getpid())
                finally:
                    lock.unlock(self._fd, lock.PLACE)
            self._ready = True
            self._live = self._ended is None

    def go(self, need_ns: int = 0, timeout: Optional[float] = None) -> bool:
        """Asks whether an operation that takes ``need_ns`` nanoseconds may start.

        Returns at once while the gate is open and what is left of the opening is long enough; else it says that the side
        stands still, and waits. Other threads run while it sleeps.

        :param timeout: Seconds to wait at most; 0 only looks, None waits on.
        :returns: True: an operation may start. False: the gate was shut down, or its main is gone (:attr:`ended`), and
            every later call says the same.
        :raises TimeoutError: once ``timeout`` seconds have passed.
        :raises NeverFits: where the last 64 openings were all too short, or in the last 1024 too little was left whenever
            this side came to them.
        :raises LeaseLost: where another side has taken the place, and in a child of ``fork``; in every later call too.
        """
        # Of most callers it is the same number each time.
        if need_ns is not self._need_ns:
            need_ns = self._need_ns = need_of(need_ns)
        if timeout is not None and not timeout >= 0:
            limit_ns_of("timeout", timeout)
        if self._live:
            found = self._protocol.look(need_ns)
            if found[0] is Look.GO:
                self._not_started = 0
                return True
            return self._wait(found, need_ns, timeout)
        if self._ended is not None:
            return self._end(self._ended)
        if not self._own:
            raise self._not_own()
        self.ready()
        return self._wait(self._protocol.look(need_ns), need_ns, timeout)

    def done(self) -> None:
        """Counts one finished operation.

        :raises LeaseLost: where another side has taken the place meanwhile.
        """
        if not self._own:
            raise self._not_own()
        if not self._protocol.done():
            self._end("lease_lost")

    @property
    def ended(self) -> Optional[str]:
        """Why :meth:`go` says False: ``shut_down``, ``main_gone`` or ``lease_lost``; None while it goes on."""
        return self._ended

    @property
    def operations(self) -> int:
        """Operations finished behind this gate, those of sides that were attached before included."""
        return self._protocol.finished

    @property
    def expected_close(self) -> int:
        """Time at which the main means to close the gate, on ``time.monotonic_ns()``; 0 while the gate is closed."""
        words = self._page.words
        return words.expected_close if words.state & 3 == protocol.OPEN else 0

    @property
    def path(self) -> str:
        """Where the gate is."""
        return self._path

    def close(self) -> None:
        """Leaves the place to another side."""
        self._leave()

    def _wait(self, found: Found, need_ns: int, timeout: Optional[float]) -> bool:
        page, side = self._page, self._protocol
        words, clock = page.words, page.now
        limit_ns = limit_ns_of("timeout", timeout)
        begun, yields = clock(), 0
        while True:
            look, state, ns = found
            if look is Look.LATE or look is Look.TOO_SHORT:
                self._starves(look is Look.TOO_SHORT, ns, need_ns)
            if look is Look.WAIT or look is Look.LATE:
                now = clock()
                if now - self._looked >= _LOOK_NS:
                    self._looked = now
                    words.side_heartbeat = now
                    if self._main_is_gone(now):
                        # It may have shut the gate down between that look and its end.
                        return self._end("shut_down" if protocol.is_shut_down(page) else "main_gone")
                waited = now - begun
                left = limit_ns - waited
                if left <= 0:
                    raise TimeoutError(f"no operation of {need_ns} ns may start at {self._path} within {timeout} s")
                if waited < self._spin_ns:
                    pass
                elif yields < _YIELDS:
                    yields += 1
                    system.give_way()
                elif words.driver:
                    # Asked each time: a main may learn only in its first iteration that its waits are a device's.
                    time.sleep(min(_DEVICE_LOOK_NS, left) / 1e9)
                else:
                    try:
                        side.fall_asleep()
                        page.sleep(state, min(_LOOK_NS, left))
                    finally:
                        side.wake()
            elif look is Look.GO:
                self._not_started = 0
                return True
            elif look is not Look.AGAIN and look is not Look.TOO_SHORT:
                return self._end("shut_down" if look is Look.SHUT_DOWN else "lease_lost")
            found = side.look(need_ns)

    def _starves(self, too_short: bool, ns: int, need_ns: int) -> None:
        """Counts an opening in which nothing started: with ``ns`` as a whole where that is too short, else so much left."""
        if not self._not_started:
            # What started set that one count back alone.
            self._most_left_ns = self._too_short = 0
        self._not_started += 1
        self._most_left_ns = max(self._most_left_ns, ns)
        if not too_short:
            self._too_short = 0
        else:
            self._longest_ns = max(ns, self._longest_ns if self._too_short else 0)
            self._too_short += 1
        if self._too_short >= _TOO_SHORT:
            self._not_started = 0
            raise NeverFits(need_ns, self._longest_ns)
        if self._not_started >= _NOT_STARTED:
            self._not_started = 0
            raise NeverFits(need_ns, self._most_left_ns)

    def _main_is_gone(self, now: int) -> bool:
        if now - self._page.words.main_heartbeat > self._main_timeout_ns:
            return True
        life = main_life(self._fd, self._main, self._page.words.time_namespace)
        if life is not Life.UNKNOWN:
            return life is Life.GONE
        # Nobody can tell but by this: a main that ends in good order takes the page's name away.
        try:
            return not os.path.samestat(os.fstat(self._fd), os.stat(self._path))
        except OSError:
            return True

    def _end(self, how: str) -> bool:
        self._ended, self._live = how, False
        if how == "lease_lost":
            raise LeaseLost(
                f"another side program has taken this one's place at the gate {self._path} while it stood still",
                "end this one: it was suspended for longer than its lease",
            )
        return False

    def _not_own(self) -> GateError:
        if not self._copy:
            return GateError(f"this side of the gate {self._path} is closed", "attach again")
        self._ended = "lease_lost"
        return LeaseLost(
            f"this is a child of the side program of {self._path}: the place is its parent's",
            "attach in the child instead",
        )

    def _forked(self) -> None:
        self._live = False
        super()._forked()

    def _leave(self) -> None:
        if not self._own:
            return
        self._own = self._live = False
        self._left.set()
        if self._renewal.ident is not None and self._renewal is not threading.current_thread():
            self._renewal.join(1.0)
        with self._places:
            # Where nobody gives the lock back, the lease ends by itself.
            if lock.lock_within(self._fd, lock.PLACE, _HAND_OVER_S) is not Lock.REFUSED:
                self._protocol.leave()
                lock.unlock(self._fd, lock.PLACE)
        # A thread that has not come to its end has the file yet: its number must not become another's.
        if not self._renewal.is_alive():
            self._close_file()

    def __repr__(self) -> str:
        return f"<bubblebench.gate.Side of {self._path}>"


def _renew(page: Page, fd: int, generation: int, until: int, places: "threading.RLock", left: threading.Event) -> None:
    """Renews the lease while the side is in an operation, however long; ``until``: its end so far.

    Only this side's own lease is lengthened, however long this thread was suspended: another's ends at another time.
    """
    while not left.wait(_RENEW_S):
        if not places.acquire(blocking=False):
            continue
        try:
            if lock.try_lock(fd, lock.PLACE) is not Lock.HELD:
                # The place may be changing hands: the next turn tells.
                continue
            try:
                following = page.now() + LEASE_NS
                if not protocol.renew(page, generation, until, following):
                    return
                until = following
            finally:
                lock.unlock(fd, lock.PLACE)
        finally:
            places.release()


def _enter(path: str, page: Page, fd: int) -> Tuple[ProcessId, SideProtocol, int]:
    """The page's main, the place at it, and the end of its lease."""
    main = page.main()
    if main is None:
        raise GateError(f"{path} names no main program", "create the gate again")
    if page.words.time_namespace != time_namespace():
        raise other_clock(path, "run both programs in one time namespace (unshare without --time)")
    return (main, *_take_place(path, page, fd))


def _take_place(path: str, page: Page, fd: int) -> Tuple[SideProtocol, int]:
    """Takes the side's place once nobody's lease lasts; with it comes the end of its lease.

    The lease of a process whose life cannot be asked about is waited for, and where it is renewed meanwhile that process
    lives.
    """
    words = page.words
    first_seen: Optional[int] = None
    while True:
        locked = lock.lock_within(fd, lock.PLACE, _HAND_OVER_S)
        if locked is Lock.REFUSED:
            raise stands_still(path)
        if locked is Lock.UNKNOWN:
            # Rust's sides exchange a word there; Python has no such access.
            raise GateError(
                f"the file system of {path} has no locks, which a side of Python's needs",
                "create the gate in a folder in memory, such as /dev/shm",
            )
        try:
            now, until = page.now(), words.lease_until
            if until > now + LEASE_NS:
                # A lease that lasts longer than any is of another boot of the machine, whose clock began anew.
                until = 0
            holder = page.holder()
            life = Life.GONE if holder is None else holder.life()
            if until <= now or life is Life.GONE:
                own, until = ProcessId.own(), now + LEASE_NS
                side = protocol.claim(page, own.pid, until)
                # Behind the claim, which takes the number of the one before away: nobody reads that with this start.
                words.side_started, words.side_namespace = own.started, own.namespace
                return side, until
        finally:
            lock.unlock(fd, lock.PLACE)
        if life is Life.RUNNING or first_seen not in (None, until):
            who = "" if holder is None else f" (process {holder.pid})"
            raise GateError(
                f"{path} already has a side program{who}", "end it first, or give every side a gate of its own"
            )
        first_seen = until
        time.sleep((min(until - now, int(_RENEW_S * 1e9) // 2) + 1_000_000) / 1e9)
