"""A live gate as somebody who looks on sees it (``src/corun/gate/status.rs``)."""

from __future__ import annotations

import os
from typing import Any, Dict, Optional

from . import protocol
from .arguments import AnyPath, path_of
from .errors import other_clock
from .page import Page, look_on
from .process import Life, ProcessId, main_life, time_namespace
from .protocol import OPEN, SHUT_DOWN, standing

_SCHEMA = "bubblebench.gate/1"


def status(path: AnyPath) -> Dict[str, Any]:
    """Reads the page at ``path`` without taking part: what ``bubblebench gate status --json`` says, key by key.

    ``state``: ``idle`` (no side that is ready), ``armed`` (the side waits), ``running``, ``draining`` (closed, or the time
    is up, and the side has not said yet that it stands still) or ``stopped``. ``main_pid``, ``side_pid`` (None without a
    side that is ready), ``main_alive`` (None where nobody can tell), ``open``, ``shut_down``, ``by_device``;
    counts ``sides``, ``bubble``, ``openings``, ``closings``, ``operations``, ``self_stops``; nanoseconds
    ``stop_latency_ns`` (None while the side has not stopped), ``open_ns``, ``work_ns`` and ``left_ns`` (negative behind
    the expected close, None while the gate is closed).

    :raises GateError: where there is no gate page of this version, or its clock is another.
    """
    text = path_of(path)
    page, fd = look_on(text)
    try:
        if page.words.time_namespace != time_namespace():
            raise other_clock(text, "look from within its time namespace")
        return _record(page, fd)
    finally:
        os.close(fd)


def _record(page: Page, fd: int) -> Dict[str, Any]:
    words = page.words
    now = page.now()
    by_device, shut = words.driver != 0, words.state & 3 == SHUT_DOWN
    if by_device:
        is_open, current = not shut and words.device_open != 0, words.device_generation
    else:
        is_open, current = words.state & 3 == OPEN, words.state >> 2
    side = _attached(page, now)
    latency_ns = protocol.stopped(page)
    state = _state(page, now, side is not None, is_open, current, latency_ns)
    main = page.main()
    life = Life.GONE if main is None else main_life(fd, main, page.words.time_namespace)
    # Of a main that died with the gate open nobody knows when it would have closed it.
    open_until = min(now, words.expected_close) if life is Life.GONE else now
    open_now = max(0, open_until - words.opened_at) if is_open and not by_device else 0
    until = now if is_open or by_device else min(words.closed_at, now)
    work_now = max(0, until - words.started_at) if state in ("running", "draining") else 0
    left_ns = max(-(2**63), min(words.expected_close - now, 2**63 - 1))
    return {
        "schema": _SCHEMA,
        "state": state,
        "open": is_open,
        "shut_down": shut,
        "by_device": by_device,
        "main_pid": 0 if main is None else main.pid,
        "main_alive": None if life is Life.UNKNOWN else life is Life.RUNNING,
        "side_pid": None if side is None else side.pid,
        "sides": words.side_generation,
        "bubble": words.device_bubble if by_device else words.bubble,
        "openings": current if by_device else words.openings,
        "closings": max(0, current - is_open) if by_device else words.closings,
        "operations": words.operations,
        "self_stops": words.self_stops,
        "stop_latency_ns": latency_ns if words.closed_at > 0 and words.started > 0 else None,
        "open_ns": min(words.open_ns + open_now, 2**64 - 1),
        "work_ns": min(words.work_ns + work_now, 2**64 - 1),
        "left_ns": left_ns if is_open and not by_device else None,
    }


def _state(page: Page, now: int, attached: bool, is_open: bool, current: int, latency_ns: Optional[int]) -> str:
    words = page.words
    if not attached:
        return "idle"
    by_device, started = words.driver != 0, words.started
    if is_open and started == current:
        if words.stopped == standing(words.side_generation, current):
            return "stopped"
        past_close = not by_device and now > min(words.expected_close + words.grace, 2**64 - 1)
        return "draining" if past_close else "running"
    last_opening = current - (not by_device and not is_open and current > 0)
    if not is_open and started > 0:
        if latency_ns is not None:
            return "stopped"
        if started == last_opening:
            return "draining"
    return "armed"


def _attached(page: Page, now: int) -> Optional[ProcessId]:
    side = page.side()
    if side is None:
        return None
    life = side.life()
    there = life is Life.RUNNING or (life is Life.UNKNOWN and page.words.lease_until > now)
    return side if there else None
