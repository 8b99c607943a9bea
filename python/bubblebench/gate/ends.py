"""All ends of gates that this process has, for the two moments that none of them sees: a fork, and the interpreter's end.

A child of ``fork``, a worker of a data loader for one, inherits copies of its parent's ends. They are dropped there: they
touch the page no more, and the descriptors are closed, so that the locks end with the parent. A descriptor is known here
before anything is locked by it: any other thread may fork at any moment.
"""

from __future__ import annotations

import atexit
import os
import threading
import weakref
from types import TracebackType
from typing import NoReturn, Optional, SupportsIndex, Type, TypeVar

AnyEnd = TypeVar("AnyEnd", bound="End")


class End:
    """One end of a gate, of this process until it is left."""

    #: This process holds it: neither left, nor a copy in a child of ``fork``.
    _own = False
    #: It is a copy in a child of ``fork``: its calls do nothing.
    _copy = False
    #: A descriptor of the page's file, whose locks are ours.
    _fd = -1

    def _holds(self, fd: int) -> None:
        """From here on the descriptor is closed in a child of ``fork``; to be called within :data:`unforked`."""
        self._fd = fd
        _ends.add(self)

    def _leave(self) -> None:
        """Leaves the gate in good order; does nothing the second time, or in a child of ``fork``."""
        raise NotImplementedError

    def _forked(self) -> None:
        """In the child: this is the copy of an end that the parent has."""
        self._own, self._copy = False, True
        self._close_file()

    def _close_file(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def __enter__(self: AnyEnd) -> AnyEnd:
        return self

    def __exit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        self._leave()

    def __reduce_ex__(self, protocol: SupportsIndex) -> NoReturn:
        raise TypeError("a gate's end cannot be copied")

    def __del__(self) -> None:
        self._leave()


_ends: "weakref.WeakSet[End]" = weakref.WeakSet()
#: While it is held no other thread of this process forks.
unforked = threading.RLock()


def _drop_in_child() -> None:
    unforked.release()
    for end in list(_ends):
        end._forked()
    _ends.clear()


def _leave_at_exit() -> None:
    for end in list(_ends):
        end._leave()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=unforked.acquire, after_in_parent=unforked.release, after_in_child=_drop_in_child)
atexit.register(_leave_at_exit)
