"""What callers may give: paths, lengths of time, needs."""

from __future__ import annotations

import operator
import os
from typing import Optional, Union

from .errors import GateError

#: The largest number that a word can hold.
MOST = 2**64 - 1

AnyPath = Union[str, bytes, "os.PathLike[str]", "os.PathLike[bytes]"]


def path_of(path: AnyPath) -> str:
    """The path from the root on: a program may change its folder while it has a gate."""
    text = os.path.abspath(os.fsdecode(path))
    if "\0" in text:
        raise GateError(f"{text!r} is no path: it holds a zero", "give the gate a path such as /dev/shm/gate-0")
    return text


def limit_ns_of(name: str, seconds: Optional[float]) -> int:
    """A limit in nanoseconds; :data:`MOST` where there is none. ValueError for what is no length of time."""
    if seconds is None:
        return MOST
    if not seconds >= 0:
        raise ValueError(f"{name} cannot be {seconds!r} s: give 0 or more, or None for no limit")
    return min(int(min(float(seconds), 1e12) * 1e9), MOST)


def need_of(need_ns: int) -> int:
    """What an operation needs. TypeError for what is no integer, ValueError for less than none."""
    need_ns = operator.index(need_ns)
    if need_ns < 0:
        raise ValueError(f"an operation cannot need {need_ns} ns: give 0 or more")
    return need_ns
