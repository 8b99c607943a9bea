"""What can go wrong at a gate, each in one line: what is wrong and where, then what to do."""

from __future__ import annotations

import errno
import os
from typing import Any, Tuple

from bubblebench.errors import OneLine


class GateError(OneLine, RuntimeError):
    """A gate that cannot be made, attached to or used. Its text is one line: what is wrong, then what to do.

    :param what: What was asked, and why it cannot be done.
    :param cure: What can be done instead.
    """


class LeaseLost(GateError):
    """Another side has taken this one's place, because it was suspended for longer than its lease; or this is a child
    of ``fork``, and the place is the parent's."""


class NeverFits(GateError):
    """The last 64 openings were all too short for the operation from their first moment on, or in the last 1024 too little
    was left whenever the side came to them. It is no end: ask with less.

    :param need_ns: What the operation needs, in nanoseconds.
    :param longest_ns: The longest of the openings, or the most that was left, in nanoseconds, less the margin.
    """

    def __init__(self, need_ns: int, longest_ns: int) -> None:
        self.need_ns = need_ns
        self.longest_ns = longest_ns
        super().__init__(
            f"an operation of {need_ns} ns fits none of the last openings: the longest had {longest_ns} ns left",
            "cut it into shorter ones, or ask with less",
        )

    def __reduce__(self) -> Tuple[Any, ...]:
        return (NeverFits, (self.need_ns, self.longest_ns))


def stands_still(path: str) -> GateError:
    """Somebody holds the lock of places for longer than a place takes to change hands."""
    return GateError(
        f"a program has stood still for long while it took or left the side's place of {path}",
        "find a suspended side program, and end it",
    )


def other_clock(path: str, cure: str) -> GateError:
    """The times on the page at ``path`` are on a clock that this process does not read."""
    return GateError(f"the main program of {path} lives in another time namespace: its clock is not this one's", cure)


_CURES = {
    errno.ENOENT: "check the path",
    errno.EACCES: "choose a folder you may write to, or fix its permissions",
    errno.EPERM: "choose a folder you may write to, or fix its permissions",
    errno.EROFS: "choose a folder you may write to, or fix its permissions",
    errno.ENOSPC: "free some space and run the same command again",
    errno.EDQUOT: "free some space and run the same command again",
    errno.ENOTDIR: "a file stands where a folder is needed: remove it or choose another path",
    errno.EISDIR: "a folder stands where a file is needed: choose another path",
    errno.EEXIST: "remove it or choose another path",
}


def refused(action: str, path: str, error: OSError) -> GateError:
    """The operating system's refusal, as the program words it; ``action`` stands between "cannot" and the path."""
    number = error.errno or 0
    cure = _CURES.get(number, "the cause is named before this")
    return GateError(f"cannot {action} {path}: {os.strerror(number)} (os error {number})", cure)
