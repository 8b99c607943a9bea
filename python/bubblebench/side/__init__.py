"""Trains a small PyTorch model behind a gate, in the bubbles of a big one: ``fill(step, gate, model=model)``.

The process of the small model does nothing else. Its training step is cut between modules, and each cut asks the gate
whether what comes next would end before the bubble does::

    report = bubblebench.side.fill(step, "/dev/shm/rank-0", model=model, checkpoint="small.pt")
"""

from __future__ import annotations

import ctypes
import os
import resource
import sys
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any, Callable, Deque, List, NamedTuple, Optional, Protocol, Sequence, Tuple, Union

from bubblebench.gate import GateError, LeaseLost, NeverFits, Side, status

from .checkpoint import Checkpoint
from .cuts import Cuts
from .errors import SideError
from .segments import Segment, Segments
from .signals import ended_by_signals

__all__ = ["FillReport", "GateEnd", "Ran", "Segment", "SideError", "fill"]

#: How long a gate is waited for in silence.
_TELL_S = 1.0

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

    #: Training steps that ended, those before the gate was asked and those of the checkpoint included.
    steps: int = 0
    #: Those of the checkpoint that was gone on from.
    resumed_at: int = 0
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
        self,
        segments: Segments,
        report: FillReport,
        timeout: Optional[float],
        trace: int,
        settle: Optional[Callable[[], None]],
        is_clean: Callable[[], bool],
    ) -> None:
        self.gate: Optional[GateEnd] = None
        self._segments = segments
        self._report = report
        self._timeout = timeout
        self._settle = settle
        self._is_clean = is_clean
        self._trace: Deque[Ran] = deque(maxlen=trace)
        self._next = 0
        self._segment: Optional[Tuple[int, str]] = None
        self._start_ns = self._busy_ns = self._need_ns = 0
        self._yielded = self._asked_at = 0
        self._asking = self._has_changed = self._began_clean = False
        #: What ends it, once that is known. A step that has changed weights goes on to its end.
        self._ended_by: Optional[str] = None
        self._was_stopped = False

    def run(self, step: Callable[[], Any]) -> None:
        """One step, from its first cut to its end."""
        self._next, self._has_changed = 0, False
        self._began_clean = self._is_clean()
        self.cut("start of the step")
        step()
        if self._was_stopped:
            # The step has caught what was to end it.
            raise _Over
        self._end()
        self._report.steps += 1
        if self._ended_by is not None:
            raise _Over

    def cut(self, label: str) -> None:
        """A moment at which the step may stop: waits here until what follows may run."""
        if self._ended_by is not None:
            if self._has_changed:
                return
            raise self._stopped()
        cut = self._next
        self._next += 1
        if not self._segments.begins(cut, label):
            return
        self._end()
        if self.gate is not None and not self._may_go(self.gate, cut, label):
            return
        self._segment = (cut, label)
        self._yielded = _switches()[0]
        self._busy_ns = time.process_time_ns()
        self._start_ns = time.monotonic_ns()

    def changing(self) -> None:
        """From here to the step's end weights change: to stop in between would leave some of them changed."""
        self._has_changed = True

    def _may_go(self, gate: GateEnd, cut: int, label: str) -> bool:
        """Whether it is behind the gate: where the step only goes on to its end, it is not."""
        need_ns = self._need_ns = self._segments.need_ns(cut, label)
        began = time.monotonic_ns()
        if self._trace.maxlen:
            self._asked_at = _switches()[1]
        self._asking = True
        try:
            if self._ended_by is not None:
                return self._end_with(self._ended_by)
            if not gate.go(need_ns, self._timeout):
                return self._end_with(str(getattr(gate, "ended", None) or "shut_down"))
            return True
        except TimeoutError:
            return self._end_with(self._ended_by or "timeout")
        except NeverFits as error:
            error.args = (f"the piece that begins with `{label}` is too long: {error}",)
            raise
        finally:
            self._asking = False
            self._report.waiting_ns += time.monotonic_ns() - began

    def _end_with(self, by: str) -> bool:
        """Ends the step here, or lets it go on to its end."""
        self._ended_by = self._report.stopped_by = by
        if not self._has_changed:
            raise self._stopped()
        return False

    def signalled(self, by: str) -> None:
        """Ends the step where it waits, or else at its next cut: between two, an optimizer may have changed half of the weights."""
        self._ended_by = self._report.stopped_by = by
        if self._asking:
            # Out of waiting: caught there where the step goes on to its end.
            raise TimeoutError if self._has_changed else self._stopped()

    def check(self) -> None:
        """Ends here, outside of a step, what was ended by a signal."""
        if self._ended_by is not None:
            raise _Over

    def _stopped(self) -> _Over:
        self._was_stopped = True
        return _Over()

    def leaves_gradients(self) -> bool:
        """Whether it stopped in a step that began without gradients: those there are now are a part of its own."""
        return self._was_stopped and self._began_clean

    def _end(self) -> None:
        """The segment that ran is over."""
        if self._segment is None:
            return
        if self._settle is not None:
            self._settle()
        now, busy = time.monotonic_ns(), time.process_time_ns() - self._busy_ns
        took = now - self._start_ns
        yielded, preempted = _switches()
        # Beside a main on the same cores it may be put off, and what it needs of a bubble is what it computes; unless it
        # waits by itself, for a device or for data.
        waits = self._settle is not None or yielded != self._yielded
        self._segments.add(*self._segment, took if waits else min(took, busy))
        self._segment = None
        if self.gate is not None:
            self.gate.done()
            self._report.operations += 1
            self._report.working_ns += took
            if self._trace.maxlen:
                self._trace.append(Ran(self._start_ns, now, busy, self._need_ns, preempted != self._asked_at))

    def abandon(self) -> None:
        """The step ended within a segment."""
        self._segment = None
        self._report.trace = list(self._trace)


def fill(
    step: Callable[[], Any],
    gate: Union[str, "os.PathLike[str]", GateEnd],
    model: Any = None,
    *,
    optimizers: Sequence[Any] = (),
    quantile: float = 0.99,
    segment_ns: int = 150_000,
    warmup: int = 20,
    nice: Optional[int] = 19,
    threads: Optional[int] = 1,
    steps: Optional[int] = None,
    timeout: Optional[float] = None,
    checkpoint: Union[str, "os.PathLike[str]", None] = None,
    resume: bool = False,
    trace: int = 0,
) -> FillReport:
    """Runs ``step()`` again and again, in the bubbles that the gate opens for, until the main shuts the gate down.

    The first ``2 * warmup`` steps run at once, bubble or not, and measure the segments; then the gate is told that the side is
    ready. What a segment computes is what the gate is asked for; what it waits for by itself (a device, data, another
    process) counts too. A step that takes another way than those of the warm-up asks at each of its cuts.

    A step stops at its next cut, before its first optimizer's step or at its end: weights and optimizers are those of whole
    steps. Gradients of a step that was stopped are dropped; what a forward changes (running statistics of a normalization, the
    state of random numbers) stays.

    SIGTERM and SIGINT (Ctrl-C) end it too, where it runs in the main thread; a second one does what it would have done without
    ``fill``. The checkpoint is saved whatever ends it, an error of the step included; only a side whose place another has taken
    (``bubblebench.gate.LeaseLost``) saves nothing.

    :param step: One training step: forward, backward, ``optimizer.step()``.
    :param gate: The gate's path, which is waited for, or a ``bubblebench.gate.Side``.
    :param model: The ``torch.nn.Module`` between whose modules the step is cut; without it only before the optimizers.
    :param optimizers: Those whose state is saved, in this order; without them those that made a step, in the order of their first.
    :param quantile: The gate is asked for this quantile of a segment's last times.
    :param segment_ns: Shorter segments are joined to about this length.
    :param warmup: Steps that measure every cut, and again as many for the joined segments; at least 1.
    :param nice: The priority of this thread and of what it starts, 19 the lowest; ``None`` leaves it.
    :param threads: ``torch.set_num_threads``; ``None`` leaves it.
    :param steps: Stop after so many steps in all, those of the warm-up and of the checkpoint included.
    :param timeout: Stop when the gate has not opened for so many seconds.
    :param checkpoint: Where to save ``{"model", "optimizers", "steps"}``, each as its ``state_dict``, whole or not at all. What is
        there already is not written over without ``resume``.
    :param resume: Load the checkpoint first, if there is one, into ``model`` and ``optimizers`` (all of them, in their order).
    :param trace: Remember the times of so many of the last segments.
    :raises SideError: where the path or the checkpoint cannot be.
    :raises bubblebench.gate.NeverFits: for a segment that is longer than every bubble, with its length.
    :raises ValueError: for a number that cannot be.
    """
    import torch

    if not 0.0 < quantile <= 1.0 or warmup < 1:
        raise ValueError(
            f"quantile={quantile}, warmup={warmup}: give a quantile up to 1, and one step of warm-up or more"
        )
    if steps is not None and steps < 0:
        raise ValueError(f"steps={steps}: give a number from 0")
    if not callable(step):
        raise TypeError(f"step={step!r} cannot be called: give the training step as a function, then the gate")
    if checkpoint is not None and model is None:
        raise ValueError("checkpoint without a model: give model= too")
    if resume and checkpoint is None:
        raise ValueError("resume without a checkpoint: give checkpoint= too")
    target = None if checkpoint is None else Checkpoint(checkpoint, resume)
    report = FillReport()
    if target is not None:
        report.steps = report.resumed_at = target.load(torch, model, optimizers)
    if threads is not None:
        torch.set_num_threads(threads)
    _be_nice(nice)
    segments = Segments(quantile)

    def is_clean() -> bool:
        return model is not None and all(parameter.grad is None for parameter in model.parameters())

    def is_left() -> bool:
        return steps is None or report.steps < steps

    filler = _Filler(segments, report, timeout, trace, _settle(torch, model), is_clean)
    with ended_by_signals(filler.signalled):
        side: Optional[GateEnd] = None
        cuts: Optional[Cuts] = None
        is_ours = True
        try:
            side = _attach(gate, timeout, filler.check)
            cuts = Cuts(model, filler.cut, filler.changing)
            for phase in range(2):
                for _ in range(warmup):
                    if is_left():
                        filler.run(step)
                        report.warmup_steps += 1
                if phase == 0:
                    segments.join(segment_ns)
            if is_left():
                _tell_ready(gate, segments)
                side.ready()
                filler.gate = side
            while is_left():
                filler.run(step)
        except _Over:
            pass
        except LeaseLost:
            is_ours = False
            raise
        finally:
            filler.abandon()
            if cuts is not None:
                cuts.remove()
            if side is not None:
                side.close()
            report.segments = segments.table()
            if filler.leaves_gradients():
                model.zero_grad(set_to_none=True)
            if target is not None and cuts is not None and is_ours:
                known = list(optimizers) or cuts.optimizers()
                state = {"model": model.state_dict(), "optimizers": [o.state_dict() for o in known], "steps": report.steps}
                target.save(torch, state)
    return report


def _switches() -> Tuple[int, int]:
    """How often this thread gave up its core by itself, and how often it lost it."""
    used = resource.getrusage(_RUSAGE_THREAD)
    return used.ru_nvcsw, used.ru_nivcsw


def _be_nice(nice: Optional[int]) -> None:
    """The big model's threads go first, and a timer that wakes this one is not put off for 50 µs."""
    if nice is not None:
        os.setpriority(os.PRIO_PROCESS, 0, nice)
    try:
        ctypes.CDLL(None).prctl(_PR_SET_TIMERSLACK, 1000, 0, 0, 0)
    except (AttributeError, OSError):
        pass


def _attach(
    gate: Union[str, "os.PathLike[str]", GateEnd], timeout: Optional[float], check: Callable[[], None]
) -> GateEnd:
    """The side's end. A path is waited for until a main has made a gate there, and lives; then what is wrong with it is told."""
    if not isinstance(gate, (str, os.PathLike)):
        return gate
    path = os.fspath(gate)
    if "{rank}" in path:
        raise SideError(f"{path} is what the hook is given", "give the path of one rank's gate, such as /dev/shm/rank-0")
    if not os.path.isdir(os.path.dirname(path) or "."):
        raise SideError(f"there is no folder for the gate {path}", "check the path")
    began, told = time.monotonic(), False
    while not _is_there(path):
        if timeout is not None and time.monotonic() - began >= timeout:
            raise SideError(
                f"no main made a gate at {path} within {timeout} s", "start the big model's program, or wait for longer"
            )
        if not told and time.monotonic() - began >= _TELL_S:
            told = True
            print(f"note: {path}: there is no gate of a living main yet: it is waited for", file=sys.stderr)
        check()
        time.sleep(0.02)
    return Side(path)


def _tell_ready(gate: Any, segments: Segments) -> None:
    """As ``bubblebench side`` does."""
    if isinstance(gate, (str, os.PathLike)):
        table = segments.table()
        step_ms, longest_us = sum(s.median_ns for s in table) / 1e6, max(s.need_ns for s in table) / 1e3
        print(
            f"note: {os.fspath(gate)}: ready: a step has {len(table)} pieces and takes {step_ms:.3f} ms; the longest needs "
            f"{longest_us:.1f} µs of an opening",
            file=sys.stderr,
        )


def _is_there(path: str) -> bool:
    """Whether there is anything but a page that a main has left."""
    try:
        return status(path)["main_alive"] is not False
    except GateError:
        return os.path.exists(path)


def _settle(torch: Any, model: Any) -> Optional[Callable[[], None]]:
    """What ends a segment on a GPU, whose kernels a call only starts; ``None`` on the host."""
    on_cuda = model is not None and any(parameter.is_cuda for parameter in model.parameters())
    settle: Optional[Callable[[], None]] = torch.cuda.synchronize if on_cuda else None
    return settle
