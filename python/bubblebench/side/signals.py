"""SIGTERM and Ctrl-C end a side well, and its children as ever."""

from __future__ import annotations

import os
import signal
import threading
from contextlib import contextmanager
from typing import Any, Callable, Iterator, Optional, Set

_NUMBERS = (signal.SIGTERM, signal.SIGINT)

#: Puts back the handlers that were there before; ``None`` where none is replaced.
_restore: Optional[Callable[[], None]] = None
_mask: Optional[Set[Any]] = None
_is_registered = False


@contextmanager
def ended_by_signals(stop: Callable[[str], None]) -> Iterator[None]:
    """Calls ``stop`` with the signal's name where it would end the program; a second one does what it did before.

    In other threads than the main one nothing is done.
    """
    global _restore, _is_registered
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in _NUMBERS}

    def restore() -> None:
        for number, handler in before.items():
            if handler is not None:
                signal.signal(number, handler)

    def first(number: int, frame: Any) -> None:
        restore()
        stop(signal.Signals(number).name)

    if not _is_registered:
        _is_registered = True
        os.register_at_fork(before=_before_fork, after_in_parent=_unblock, after_in_child=_in_child)
    outer, _restore = _restore, restore
    try:
        for number, handler in before.items():
            # What ignores a signal, as under nohup, goes on to; a handler that no Python code set is not ours to replace.
            if handler not in (signal.SIG_IGN, None):
                signal.signal(number, first)
        yield
    finally:
        restore()
        _restore = outer


def _before_fork() -> None:
    """To a child, such as a data loader's worker, a signal means what it always did, however early it comes: Python forgets one
    that a handler of Python's was to get before the child has begun."""
    global _mask
    if _restore is not None:
        _mask = signal.pthread_sigmask(signal.SIG_BLOCK, _NUMBERS)


def _unblock() -> None:
    global _mask
    mask, _mask = _mask, None
    if mask is not None:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _in_child() -> None:
    global _restore
    restore, _restore = _restore, None
    if restore is not None:
        restore()
    _unblock()
