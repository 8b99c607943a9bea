"""Trains a small PyTorch model behind a gate, in the bubbles of a big one: ``fill(step, gate, model=model)``.

The process of the small model does nothing else. Its training step is cut between modules, and each cut asks the gate
whether what comes next would end before the bubble does::

    report = bubblebench.side.fill(step, "/dev/shm/stage-0", model=model, checkpoint="small.pt")
"""

from __future__ import annotations

import ctypes
import math
import os
import resource
import signal
import threading
import time
from collections import deque
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable, Deque, Iterator, List, NamedTuple, NoReturn, Optional, Protocol, Union

from bubblebench.gate import NeverFits, Side

from .cuts import Cuts
from .segments import Segment, Segments

__all__ = ["FillReport", "GateEnd", "Ran", "Segment", "fill"]

_PR_SET_TIMERSLACK = 29
_RUSAGE_THREAD = 1


class GateEnd(Protocol):
    """What :func:`fill` asks of ``bubblebench.gate.Side``."""

    def go(self, need_ns: int = 0, timeout: Optional[float] = None) -> bool:
        """Waits until so much may run."""

    def ready(self) -> None:
        """Says that work can begin."""

    def done(self) -> None:
        """Counts an operation."""

    def close(self) -> None:
        """Leaves the place."""


class Ran(NamedTuple):
    """A segment that ran behind the gate. Times are nanoseconds of ``time.monotonic_ns()``."""

    start_ns: int
    end_ns: int
    #: Time that the process computed for it: less than it took where something else had the core.
    busy_ns: int
    need_ns: int
    #: Something else took the core, from the moment that the gate was asked.
    preempted: bool


@dataclass
class FillReport:
    """What :func:`fill` did until it stopped."""

    #: Training steps that ended, those before the gate was asked included.
    steps: int = 0
    #: How many of them ran before, to learn the segments.
    warmup_steps: int = 0
    #: Segments that ran behind the gate.
    operations: int = 0
    #: Nanoseconds that they took, all together.
    working_ns: int = 0
    #: Nanoseconds that the gate was waited for.
    waiting_ns: int = 0
    #: ``shut_down`` by the main, ``main_gone``, as asked for ``steps`` or ``timeout``, or by ``SIGTERM`` or ``SIGINT``.
    stopped_by: str = "steps"
    segments: List[Segment] = field(default_factory=list)
    #: The last segments that ran, where ``trace`` asks for them.
    trace: List[Ran] = field(default_factory=list)


class _Over(BaseException):
    """Ends a step from within a hook; no ``except Exception`` of the step is to catch it."""


class _Filler:
    """One run: the cuts call it."""

    def __init__(
        self, segments: Segments, report: FillReport, timeout: Optional[float], trace: int, settle: Callable[[], None]
    ) -> None:
        self.gate: Optional[GateEnd] = None
        self._asking = False
        self._signal: Optional[str] = None
        self._segments = segments
        self._report = report
        self._timeout = timeout
        self._settle = settle
        self._trace: Deque[Ran] = deque(maxlen=trace)
        self._next = 0
        self._segment: Optional[int] = None
        self._start_ns = self._busy_ns = self._need_ns = self._switches = 0

    def run(self, step: Callable[[], Any]) -> None:
        """One step, from its first cut to its end."""
        self._next = 0
        self.cut("start of the step")
        step()
        self._end()
        self._report.steps += 1

    def cut(self, label: str) -> None:
        """A moment at which the step may stop: waits here until what follows may run."""
        if self._signal is not None:
            self._stop(self._signal)
        cut = self._next
        self._next += 1
        if not self._segments.begins(cut, label):
            return
        self._end()
        if self.gate is not None:
            self._ask(self.gate, cut, label)
        self._segment = cut
        self._busy_ns = time.process_time_ns()
        self._start_ns = time.monotonic_ns()

    def _ask(self, gate: GateEnd, cut: int, label: str) -> None:
        need_ns = self._need_ns = self._segments.need_ns(cut, label)
        began = time.monotonic_ns()
        if self._trace.maxlen:
            self._switches = _switches()
        self._asking = True
        try:
            if self._signal is not None:
                self._stop(self._signal)
            if not gate.go(need_ns, self._timeout):
                self._stop(str(getattr(gate, "ended", None) or "shut_down"))
        except TimeoutError:
            self._stop("timeout")
        except NeverFits as error:
            error.args = (f"`{label}` of the side cannot be cut: {error}",)
            raise
        finally:
            self._asking = False
            self._report.waiting_ns += time.monotonic_ns() - began

    def _stop(self, by: str) -> NoReturn:
        """Ends the step here."""
        self._report.stopped_by = by
        raise _Over

    def signalled(self, number: int, _: Any) -> None:
        """Ends the step where it waits, or else at its next cut: between two, an optimizer may have changed half of the weights."""
        self._signal = signal.Signals(number).name
        if self._asking:
            self._stop(self._signal)

    def _end(self) -> None:
        """The segment that ran is over."""
        if self._segment is None:
            return
        self._settle()
        now, busy = time.monotonic_ns(), time.process_time_ns() - self._busy_ns
        took = now - self._start_ns
        # Beside a main on the same cores it may be put off; what it needs of a bubble is what it computes.
        self._segments.add(self._segment, min(took, busy))
        self._segment = None
        if self.gate is not None:
            self.gate.done()
            self._report.operations += 1
            self._report.working_ns += took
            if self._trace.maxlen:
                self._trace.append(Ran(self._start_ns, now, busy, self._need_ns, _switches() != self._switches))

    def abandon(self) -> None:
        """The step ended within a segment."""
        self._segment = None
        self._report.trace = list(self._trace)


def fill(
    step: Callable[[], Any],
    gate: Union[str, "os.PathLike[str]", GateEnd],
    model: Any = None,
    *,
    quantile: float = 0.99,
    segment_ns: int = 150_000,
    warmup: int = 20,
    nice: Optional[int] = 19,
    threads: Optional[int] = 1,
    steps: Optional[int] = None,
    timeout: Optional[float] = None,
    checkpoint: Union[str, "os.PathLike[str]", None] = None,
    trace: int = 0,
) -> FillReport:
    """Runs ``step()`` again and again, in the bubbles that the gate opens for, until the main shuts the gate down.

    The first ``2 * warmup`` steps run at once, bubble or not, and measure the segments; then the gate is told that the side is
    ready. A segment that is longer than every bubble is refused by ``bubblebench.gate.NeverFits``, with its length. A step that
    is stopped half-way has changed no weight: its optimizer runs to its end or not at all. ``bubblebench.gate.LeaseLost`` ends
    a side whose place another has taken; that one saves nothing. In the main thread, SIGTERM and SIGINT (Ctrl-C) end it as well: at
    the next cut, with what was learned saved; a second one ends the program as it would have without ``fill``.

    :param step: One training step: forward, backward, ``optimizer.step()``.
    :param gate: The gate's path, which is waited for, or a ``bubblebench.gate.Side``.
    :param model: The ``torch.nn.Module`` between whose modules the step is cut; without it only before the optimizer.
    :param quantile: The gate is asked for this quantile of a segment's last times.
    :param segment_ns: Shorter segments are joined to about this length.
    :param warmup: Steps that measure every cut, and again as many for the joined segments; at least 1.
    :param nice: The process' priority, 19 the lowest; ``None`` leaves it.
    :param threads: ``torch.set_num_threads``; ``None`` leaves it.
    :param steps: Stop after so many steps in all.
    :param timeout: Stop when the gate has not opened for so many seconds.
    :param checkpoint: Where to save ``{"model", "optimizers", "steps"}`` once it has stopped, whole or not at all.
    :param trace: Remember the times of so many of the last segments.
    """
    import torch

    if not 0.0 < quantile <= 1.0 or warmup < 1:
        raise ValueError(
            f"quantile={quantile}, warmup={warmup}: give a quantile up to 1, and one step of warm-up or more"
        )
    if checkpoint is not None and model is None:
        raise ValueError("checkpoint without a model: give model= too")
    if threads is not None:
        torch.set_num_threads(threads)
    _be_nice(nice)
    side = _attach(gate, timeout)
    report = FillReport()
    segments = Segments(quantile)
    filler = _Filler(segments, report, timeout, trace, _settle(torch, model))
    cuts = Cuts(model, filler.cut)
    try:
        with _signals(filler.signalled):
            for phase in range(2):
                for _ in range(warmup):
                    filler.run(step)
                    report.warmup_steps += 1
                if phase == 0:
                    segments.join(segment_ns)
            side.ready()
            filler.gate = side
            while steps is None or report.steps < steps:
                filler.run(step)
    except _Over:
        pass
    finally:
        filler.abandon()
        cuts.remove()
        side.close()
    report.segments = segments.table()
    if checkpoint is not None:
        _save(torch, Path(checkpoint), model, cuts.optimizers, report.steps)
    return report


@contextmanager
def _signals(stop: Callable[[int, Any], None]) -> Iterator[None]:
    """Ends well what SIGTERM or Ctrl-C would end anywhere; the second of them does what it did before."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    def restore() -> None:
        for number, handler in before.items():
            if handler is not None:
                signal.signal(number, handler)

    def first(number: int, frame: Any) -> None:
        restore()
        stop(number, frame)

    try:
        for number, handler in before.items():
            # What ignores a signal, as under nohup, goes on to; a handler that no Python code set is not ours to replace.
            if handler not in (signal.SIG_IGN, None):
                signal.signal(number, first)
        yield
    finally:
        restore()


def _switches() -> int:
    """How often this thread lost its core against its will."""
    return resource.getrusage(_RUSAGE_THREAD).ru_nivcsw


def _be_nice(nice: Optional[int]) -> None:
    """The big model's threads go first, and a timer that wakes this one is not put off for 50 µs."""
    if nice is not None:
        os.setpriority(os.PRIO_PROCESS, 0, nice)
    try:
        ctypes.CDLL(None).prctl(_PR_SET_TIMERSLACK, 1000, 0, 0, 0)
    except (AttributeError, OSError):
        pass


def _attach(gate: Union[str, "os.PathLike[str]", GateEnd], timeout: Optional[float]) -> GateEnd:
    """The side's end; a path is waited for until the main has made it, or it is told as missing."""
    if not isinstance(gate, (str, os.PathLike)):
        return gate
    limit = math.inf if timeout is None else time.monotonic() + timeout
    while not os.path.exists(gate) and time.monotonic() < limit:
        time.sleep(0.02)
    return Side(os.fspath(gate))


def _settle(torch: Any, model: Any) -> Callable[[], None]:
    """What ends a segment: on a GPU its kernels, which a call only starts."""
    on_cuda = model is not None and any(parameter.is_cuda for parameter in model.parameters())
    return torch.cuda.synchronize if on_cuda else lambda: None


def _save(torch: Any, path: Path, model: Any, optimizers: List[Any], steps: int) -> None:
    """A reader sees the old file or the whole new one."""
    inner = getattr(model, "_orig_mod", model)
    state = {"model": inner.state_dict(), "optimizers": [o.state_dict() for o in optimizers], "steps": steps}
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(temporary, "wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
