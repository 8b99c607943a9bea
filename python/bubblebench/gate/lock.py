"""Locks of single bytes of the page's file (``src/corun/gate/lock.rs``): they end with the process that holds them, however
it ends, and in whatever container it ran.

They belong to the open file (``F_OFD_SETLK``, fcntl(2)), not to the process: two ends in one process exclude each other
too. A child of ``fork`` holds them with its parent until it closes the file, which :mod:`~bubblebench.gate.ends` sees to.
"""

from __future__ import annotations

import enum
import errno
import struct
import time
from typing import Optional

try:
    import fcntl
except ImportError:
    # Not Linux: nobody comes so far as to lock.
    pass

#: The byte that a main holds as long as it lives.
MAIN = 0
#: The byte that is held while the side's place changes hands.
PLACE = 1

# F_OFD_GETLK and F_OFD_SETLK of Linux on every processor; not every build of Python names them.
_GETLK, _SETLK = 36, 37
# struct flock of 64-bit Linux: type, whence (the file's beginning), start, length, process id 0.
_FLOCK = struct.Struct("hhqqi0q")


class Lock(enum.Enum):
    """What came of asking for a lock."""

    HELD = "held"
    REFUSED = "refused"
    #: This file system has no such locks.
    UNKNOWN = "unknown"


def try_lock(fd: int, byte: int) -> Lock:
    """Takes the lock of a byte if nobody else holds it."""
    try:
        fcntl.fcntl(fd, _SETLK, _range(fcntl.F_WRLCK, byte))
    except OSError as error:
        return Lock.REFUSED if error.errno in (errno.EAGAIN, errno.EACCES) else Lock.UNKNOWN
    return Lock.HELD


def lock_within(fd: int, byte: int, limit_s: float) -> Lock:
    """Waits for the lock of a byte, which is held for moments only: refused once ``limit_s`` seconds have passed."""
    end = time.monotonic() + limit_s
    while True:
        lock = try_lock(fd, byte)
        if lock is not Lock.REFUSED or time.monotonic() >= end:
            return lock
        time.sleep(0.001)


def unlock(fd: int, byte: int) -> None:
    """Gives the lock of a byte back."""
    try:
        fcntl.fcntl(fd, _SETLK, _range(fcntl.F_UNLCK, byte))
    except OSError:
        pass


def is_held(fd: int, byte: int) -> Optional[bool]:
    """Whether somebody else holds the lock of a byte; None where that cannot be asked."""
    try:
        answer = fcntl.fcntl(fd, _GETLK, _range(fcntl.F_WRLCK, byte))
    except OSError:
        return None
    return bool(_FLOCK.unpack(answer)[0] != fcntl.F_UNLCK)


def _range(kind: int, byte: int) -> bytes:
    return _FLOCK.pack(kind, 0, byte, 1, 0)
