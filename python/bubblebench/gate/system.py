"""The two calls of Linux that a gate needs and Python does not offer: sleeping on a word of memory, and a full fence.

A page is read and written through ``ctypes`` fields: each access of a word is one load or store of its size (a ``memcpy``
of a fixed size, which compilers turn into one instruction). x86-64 keeps stores in their order and loads in theirs; only a
store may be seen later than a load behind it. Where that matters stands :func:`fence`. Other processors reorder more:
there :data:`WEAK` is true, and a fence stands wherever words are published.

Python has no fence of its own. ``futex(FUTEX_WAKE)`` is one: the kernel makes a full barrier before it looks for
sleepers (``futex_hb_waiters_pending`` in kernel/futex). It is called on a word that nobody sleeps on.
"""

from __future__ import annotations

import ctypes
import os
import sys
from typing import Any, Callable, Optional

from .errors import GateError

_FUTEX_WAIT, _FUTEX_WAKE, _FUTEX_PRIVATE = 0, 1, 128
_EVERYONE = 0x7FFF_FFFF
_MACHINE = os.uname().machine if hasattr(os, "uname") else "unknown"
_NUMBER = {"x86_64": 202, "aarch64": 98}.get(_MACHINE)
#: Stores may be seen in another order than they were made.
WEAK = _MACHINE != "x86_64"


class _Timespec(ctypes.Structure):
    _fields_ = [("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long)]


_ARGUMENTS = (
    ctypes.c_long,
    ctypes.c_void_p,
    ctypes.c_int,
    ctypes.c_uint32,
    ctypes.c_void_p,
    ctypes.c_void_p,
    ctypes.c_uint32,
)


def _library(kind: Callable[[None], Any]) -> Any:
    """The C library; None where there is no gate anyway."""
    if sys.platform != "linux":
        return None
    library = kind(None)
    library.syscall.argtypes = _ARGUMENTS
    library.syscall.restype = ctypes.c_long
    return library


# Sleeping lets other threads of Python run. Waking keeps them waiting: who gave the interpreter up might get it back only
# after the 5 ms that another thread may keep it, and a training job would stand still for them.
_lets_others_run = _library(ctypes.CDLL)
_at_once = _library(ctypes.PyDLL)
_sleep: Any = getattr(_lets_others_run, "syscall", None)
_call: Any = getattr(_at_once, "syscall", None)

_nobodys_word = ctypes.c_uint32(0)
_nobodys_address = ctypes.addressof(_nobodys_word)


def check() -> None:
    """Raises :class:`GateError` where a gate cannot work."""
    fits = sys.platform == "linux" and sys.byteorder == "little" and ctypes.sizeof(ctypes.c_void_p) == 8
    if not fits or _NUMBER is None:
        raise GateError(
            f"a gate of Python's needs 64-bit Linux on x86-64 or aarch64, and this is {sys.platform} on {_MACHINE}",
            "run both programs there",
        )
    if _call(_NUMBER, _nobodys_address, _FUTEX_WAKE | _FUTEX_PRIVATE, 1, None, None, 0) < 0:
        raise GateError("this system refuses the futex call", "allow it: a filter of system calls forbids it")


def fence() -> None:
    """Every store of this thread is seen by all before its next load is made."""
    _call(_NUMBER, _nobodys_address, _FUTEX_WAKE | _FUTEX_PRIVATE, 1, None, None, 0)


def wake_all(address: int) -> None:
    """Wakes every program that sleeps on the word; a :func:`fence` as well."""
    _call(_NUMBER, address, _FUTEX_WAKE, _EVERYONE, None, None, 0)


def wait_on(address: int, expected: int, timeout_ns: int) -> None:
    """Sleeps while the 32-bit word holds ``expected``, at most so long; a signal ends it early. Other threads run."""
    limit = _Timespec(timeout_ns // 1_000_000_000, timeout_ns % 1_000_000_000)
    _sleep(_NUMBER, address, _FUTEX_WAIT, expected, ctypes.addressof(limit), None, 0)


def give_way() -> None:
    """Lets another thread have this core, and the interpreter."""
    _lets_others_run.sched_yield()


def inode_of(path: str) -> int:
    """Inode of a file, 0 where there is none."""
    try:
        return os.stat(path).st_ino
    except OSError:
        return 0


def read_text(path: str) -> Optional[str]:
    """What stands in a small file of the system's; None where it cannot be read."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return None
