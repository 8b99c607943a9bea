"""The gate's page: what two programs share, byte by byte, as ``src/corun/gate/page.rs`` says it. Its table, which a test
holds against that one:

| offset | field | written by |
|---|---|---|
| 0 | magic `BBGATE01`, version (u32) = 2, page size (u32) = 4096 | creator, once, before the page has a name |
| 16 | main's process id, its start in clock ticks from boot, inode of its process-id namespace | creator |
| 40 | inode of the creator's time namespace (0: none), driver: 0 the main's calls, 1 a device (offset 1024) | creator |
| 128 | state: generation · 4 + (0 closed, 1 open, 2 shut down) | main |
| 136 | bubble id, opened at, expected close, closed at, heartbeat, grace | main |
| 184 | openings, closings | main |
| 200 | margin, time that the gate stood open in all openings that are over | main |
| 256 | futex word (u32): low half of the state | main |
| 384 | stopped: low 16 bits of the side's generation · 2⁴⁸ + generation of the gate that the side stands still in; when | side |
| 400 | generation the side last went to work in, when | side |
| 416 | heartbeat, operations finished, openings it worked in and stopped by the clock, 1 while it sleeps | side |
| 448 | time at work: from the first operation of an opening to standing still or the closing, summed up | side |
| 512 | side's process id once it is ready to work (0 before, and without a side), its start, its namespace | side |
| 536 | end of the side's lease (0: the place is free), the side's generation, process id of who holds the lease | side |
| 1024 | device line (u32 each): open 0/1, generation, expected length in µs, free memory in MiB, bubble id | device |

One page of 4096 bytes, little-endian, every field an aligned word of 8 bytes unless it says otherwise. Times are
nanoseconds of ``CLOCK_MONOTONIC``, which is ``time.monotonic_ns()``.

Words that are read together are written before, and the last behind them. State and futex word, asleep, and a side's
process id and generation are stored in one order that all programs agree on: a fence stands between such a store and the
load that follows it. The device line is written data first, ``open`` last. A place (offset 512) changes hands under a lock
of the file's byte 1, its generation first; the main holds one of byte 0 as long as it lives.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import stat
import time
from typing import Callable, Optional, Tuple

from . import system
from .arguments import MOST as MOST
from .errors import GateError, refused
from .process import ProcessId, time_namespace

#: Size of a gate's page, and of the file that holds it, in bytes.
PAGE_BYTES = 4096
#: Version of the page's layout; every other is refused.
VERSION = 2
MAGIC = int.from_bytes(b"BBGATE01", "little")
_ATTEMPTS = 100

_U64, _U32 = ctypes.c_uint64, ctypes.c_uint32


class Words(ctypes.Structure):
    """The fields of a page, shared with every other program that has it mapped: each access is one load or store."""

    magic: int
    version: int
    bytes: int
    main_pid: int
    main_started: int
    main_namespace: int
    time_namespace: int
    driver: int
    state: int
    bubble: int
    opened_at: int
    expected_close: int
    closed_at: int
    main_heartbeat: int
    grace: int
    openings: int
    closings: int
    margin: int
    open_ns: int
    futex: int
    stopped: int
    stopped_at: int
    started: int
    started_at: int
    side_heartbeat: int
    operations: int
    self_stops: int
    asleep: int
    work_ns: int
    side_pid: int
    side_started: int
    side_namespace: int
    lease_until: int
    side_generation: int
    holder: int
    device_open: int
    device_generation: int
    device_expected_us: int
    device_memory_mib: int
    device_bubble: int

    _fields_ = [
        # 0: the creator, once, before the page has a name
        ("magic", _U64),
        ("version", _U32),
        ("bytes", _U32),
        ("main_pid", _U64),
        ("main_started", _U64),
        ("main_namespace", _U64),
        ("time_namespace", _U64),
        ("driver", _U64),
        ("_at_56", ctypes.c_ubyte * 72),
        # 128: the main
        ("state", _U64),
        ("bubble", _U64),
        ("opened_at", _U64),
        ("expected_close", _U64),
        ("closed_at", _U64),
        ("main_heartbeat", _U64),
        ("grace", _U64),
        ("openings", _U64),
        ("closings", _U64),
        ("margin", _U64),
        ("open_ns", _U64),
        ("_at_216", ctypes.c_ubyte * 40),
        # 256: the main
        ("futex", _U32),
        ("_at_260", ctypes.c_ubyte * 124),
        # 384: the side
        ("stopped", _U64),
        ("stopped_at", _U64),
        ("started", _U64),
        ("started_at", _U64),
        ("side_heartbeat", _U64),
        ("operations", _U64),
        ("self_stops", _U64),
        ("asleep", _U64),
        ("work_ns", _U64),
        ("_at_456", ctypes.c_ubyte * 56),
        # 512: the side, its place
        ("side_pid", _U64),
        ("side_started", _U64),
        ("side_namespace", _U64),
        ("lease_until", _U64),
        ("side_generation", _U64),
        ("holder", _U64),
        ("_at_560", ctypes.c_ubyte * 464),
        # 1024: a device
        ("device_open", _U32),
        ("device_generation", _U32),
        ("device_expected_us", _U32),
        ("device_memory_mib", _U32),
        ("device_bubble", _U32),
        ("_at_1044", ctypes.c_ubyte * 3052),
    ]


assert ctypes.sizeof(Words) == PAGE_BYTES and Words.device_open.offset == 1024  # type: ignore[attr-defined]


class Page:
    """A mapped page, with the clock that its times are on. It stays mapped as long as this value lives."""

    __slots__ = ("words", "now", "weak", "_futex")

    def __init__(self, words: Words) -> None:
        self.words = words
        #: The time in nanoseconds, on a clock that all programs share.
        self.now: Callable[[], int] = time.monotonic_ns
        #: Fences stand between stores too.
        self.weak = system.WEAK
        self._futex = ctypes.addressof(words) + Words.futex.offset  # type: ignore[attr-defined]

    def fence(self) -> None:
        """Every store before is seen by all before the next load is made."""
        system.fence()

    def wake(self) -> None:
        """Wakes who sleeps at this page; a :meth:`fence` as well."""
        system.wake_all(self._futex)

    def sleep(self, state: int, timeout_ns: int) -> None:
        """Sleeps while the gate is in this state, at most so long; other threads run meanwhile."""
        system.wait_on(self._futex, state & 0xFFFF_FFFF, timeout_ns)

    def main(self) -> Optional[ProcessId]:
        """The process that created the page; None where it names none."""
        words = self.words
        return _named(words.main_pid, words.main_started, words.main_namespace)

    def side(self) -> Optional[ProcessId]:
        """The process that is attached and ready to work; None where there is none.

        Read again where it changed meanwhile: words of two processes are never mixed.
        """
        words = self.words
        while True:
            pid = words.side_pid
            self.order()
            started, namespace = words.side_started, words.side_namespace
            self.order()
            if words.side_pid == pid:
                return _named(pid, started, namespace)

    def holder(self) -> Optional[ProcessId]:
        """Who holds the side's lease, ready or not; to be read under the lock of places."""
        words = self.words
        return _named(words.holder, words.side_started, words.side_namespace)

    def order(self) -> None:
        """Accesses before come before those behind, on processors where that does not go by itself."""
        if self.weak:
            self.fence()


def _named(pid: int, started: int, namespace: int) -> Optional[ProcessId]:
    return ProcessId(pid, started, namespace) if 0 < pid < 2**32 else None


def fresh(path: str, fd: int) -> Page:
    """Makes the new, empty file at ``path``, open as ``fd``, a page of this process's; OSError where there is no room."""
    # Written, not only extended: on a full file system this fails, and not the first access to the mapping.
    left = bytes(PAGE_BYTES)
    while left:
        left = left[os.write(fd, left) :]
    page = _mapped(path, fd)
    words, own = page.words, ProcessId.own()
    words.version, words.bytes = VERSION, PAGE_BYTES
    words.main_pid, words.main_started, words.main_namespace = own.pid, own.started, own.namespace
    words.time_namespace = time_namespace()
    page.order()
    words.magic = MAGIC
    return page


def _mapped(path: str, fd: int) -> Page:
    # Mapped by a descriptor of its own: the mapping keeps a copy of it, by which a child of fork would hold our locks.
    own = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        if not os.path.sameopenfile(own, fd):
            raise FileNotFoundError(2, "another file has the name by now")
        return Page(Words.from_buffer(mmap.mmap(own, PAGE_BYTES)))
    finally:
        os.close(own)


def attached(path: str) -> Tuple[Page, int]:
    """Maps the page at ``path`` and gives a descriptor of its file, for locks.

    Raises :class:`GateError` where there is no such file, or it is no gate page of this version.
    """
    for last in [False] * _ATTEMPTS + [True]:
        fd = _opened(path, os.O_RDWR, "open the gate")
        try:
            page = _mapped(path, fd)
            check(path, page.words)
            return page, fd
        except FileNotFoundError as error:
            # It was replaced between the two looks.
            os.close(fd)
            if last:
                raise refused("open the gate", path, error) from None
        except OSError as error:
            os.close(fd)
            raise refused("open the gate", path, error) from None
        except BaseException:
            os.close(fd)
            raise
    raise AssertionError("the last attempt returns or raises")


def look_on(path: str) -> Tuple[Page, int]:
    """A copy of the page at ``path`` as it is now, and a descriptor of its file; needs no right to write.

    Errors as for :func:`attached`.
    """
    action = "look at the gate"
    fd = _opened(path, os.O_RDONLY, action)
    try:
        with mmap.mmap(fd, PAGE_BYTES, access=mmap.ACCESS_READ) as live:
            with memoryview(live) as raw, raw.cast("Q") as words:
                copy = Words.from_buffer(bytearray(b"".join(word.to_bytes(8, "little") for word in words.tolist())))
        check(path, copy)
        return Page(copy), fd
    except (OSError, ValueError) as error:
        os.close(fd)
        raise refused(action, path, error if isinstance(error, OSError) else OSError(5, "")) from None
    except BaseException:
        os.close(fd)
        raise


def is_a_page(mode: int, size: int) -> bool:
    """Whether a file of this kind and size can be a page at all."""
    return stat.S_ISREG(mode) and size == PAGE_BYTES


def _opened(path: str, flags: int, action: str) -> int:
    """A descriptor of a file of the right size; looked at before it is opened, because opening a pipe may wait."""
    try:
        seen = os.stat(path)
    except OSError as error:
        raise refused("open the gate", path, error) from None
    if not is_a_page(seen.st_mode, seen.st_size):
        raise _wrong(path, f"a file of {PAGE_BYTES} bytes was expected")
    try:
        fd = os.open(path, flags | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise refused(action, path, error) from None
    seen = os.fstat(fd)
    if not is_a_page(seen.st_mode, seen.st_size):
        os.close(fd)
        raise _wrong(path, f"a file of {PAGE_BYTES} bytes was expected")
    return fd


def check(path: str, words: Words) -> None:
    """Raises :class:`GateError` unless the page is one of this version."""
    if words.magic != MAGIC:
        raise _wrong(path, "its first eight bytes are not BBGATE01")
    version, size = words.version, words.bytes
    if version != VERSION or size != PAGE_BYTES:
        raise _wrong(path, f"it is version {version} with {size} bytes, not version {VERSION}")


def _wrong(path: str, why: str) -> GateError:
    return GateError(
        f"{path} is not a gate page of this version: {why}",
        "give the path that the main program created its gate at, with the same bubblebench on both sides",
    )
