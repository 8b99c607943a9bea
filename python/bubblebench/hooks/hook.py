"""What the hooks of all frameworks share: iterations and waits come in, the table is learned, the gate opens and closes."""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
import threading
import time
import warnings
from collections import deque
from typing import (
    TYPE_CHECKING,
    Any,
    Callable,
    Deque,
    Hashable,
    Iterator,
    List,
    NamedTuple,
    Optional,
    Protocol,
    Tuple,
    TypeVar,
    Union,
)

from .cuda import Clock, CudaDriver, CurrentStream, DeviceLine, Stream, drives_streams
from .errors import HookError
from .learning import Bubble, Program, Programs, Settings
from .patch import Patches
from .record import Iteration, PathOrText, device, write

if TYPE_CHECKING:
    from bubblebench.gate import Main

T = TypeVar("T")


class GateEnd(Protocol):
    """What a hook asks of ``bubblebench.gate.Main``."""

    def open(self, expected_ns: int, bubble: Optional[int] = None) -> None:
        """Opens the gate for so long."""

    def close(self) -> None:
        """Closes it."""

    def beat(self) -> None:
        """Says that the main lives."""

    def hand_to_device(self) -> int:
        """Lets a device open and close it: the address of its line."""


#: Where the gate is: its path, with ``{rank}`` for this process's rank; a main's end; ``None`` records and opens nothing.
Gate = Union[str, "os.PathLike[str]", GateEnd, None]


class Opening(NamedTuple):
    """A wait that the gate was open in. Times are nanoseconds of ``time.monotonic_ns()``."""

    position: int
    opened_ns: int
    #: What it was opened for.
    expected_close_ns: int
    #: When the wait was over: the true end of the bubble.
    end_ns: int


class _Run:
    """An iteration that lasts. Begin and end of it and of its waits are times, or marks in a stream."""

    __slots__ = ("program", "start", "end", "thread", "waits", "expected_ns", "waiting", "may_open")

    def __init__(self, program: Program, start: Any, may_open: bool) -> None:
        self.program = program
        self.start = start
        self.end: Any = None
        self.thread = threading.get_ident()
        #: Kind, begin, end.
        self.waits: List[Tuple[str, Any, Any]] = []
        #: What the gate was opened for in each; ``None``: it was not.
        self.expected_ns: List[Optional[int]] = []
        self.waiting = False
        self.may_open = may_open

    def marks(self) -> Iterator[Any]:
        """All of them."""
        yield self.start
        for _, begin, end in self.waits:
            yield begin
            yield end
        yield self.end


_SET_EARLIER = "set the hook before the training function is fetched or wrapped (Megatron's get_forward_backward_func)"

_one = threading.Lock()
_set: "Optional[Hook]" = None


class Hook:
    """A hook in this process; :func:`bubblebench.hooks.torch_pipelining` and its sisters make it. One a process.

    ``filling`` may be set to ``False`` for a while: the hook goes on to record and to learn, and opens nothing.
    """

    def __init__(self, patches: Patches, gate: Gate, settings: Settings, keep: int) -> None:
        _check(gate, settings, keep)
        # A group that is made later, or another one for the stages, is looked at in the first iteration.
        group = _group()
        if gate is not None and group is not None and drives_streams(group):
            CudaDriver()
        self.filling = True
        self.framework = patches.framework
        self.rank = _rank()
        self._patches = patches
        self._settings = settings
        self._programs = Programs(settings)
        self._kept: Deque[Tuple[Program, Iteration, Tuple[Opening, ...]]] = deque(maxlen=keep)
        self._run: Optional[_Run] = None
        self._outside = 0
        #: Where waits only order a stream: that, its times, the gate's line that it writes to, and what it has yet to come to.
        self._kind = "cpu"
        self._is_off = False
        # A signal's handler may ask for the table in the midst of it.
        self._catching = threading.RLock()
        self._stream: Optional[Stream] = None
        self._clock: Optional[Clock] = None
        self._line: Optional[DeviceLine] = None
        self._ahead: Deque[_Run] = deque()
        self._gate: Optional[GateEnd] = None
        self._made = contextlib.ExitStack()
        _claim(self)
        try:
            if isinstance(gate, (str, os.PathLike)):
                self._gate = self._made.enter_context(_main(gate, self.rank))
            else:
                self._gate = gate
            patches.apply()
        except BaseException:
            self._release()
            raise
        atexit.register(self.remove)

    def bubbles(self) -> List[Bubble]:
        """The learned table: a row a position, the program with the most iterations first."""
        with self._caught_up():
            return self._programs.table()

    def iterations(self) -> List[Iteration]:
        """The last iterations that ended well (of every program), oldest first."""
        with self._caught_up():
            return [iteration for _, iteration, _ in self._kept]

    def openings(self) -> List[Opening]:
        """The openings of those iterations."""
        with self._caught_up():
            return [opening for _, _, openings in self._kept for opening in openings]

    def write_bubbles(self, path: PathOrText) -> None:
        """Writes the last iterations of the main program as ``bubblebench.bubbles/1``, with this rank as its one device.

        :func:`bubblebench.hooks.merge_bubbles` makes the file of all stages that ``bubblebench plan --bubbles`` wants.
        """
        with self._caught_up():
            kept = list(self._kept)
        counts: "dict[int, int]" = {}
        for program, _, _ in kept:
            counts[id(program)] = counts.get(id(program), 0) + 1
        if not counts:
            cure = "write the bubbles after some steps"
            if self._outside:
                raise HookError(f"{self._outside} waits were seen, and no iteration", f"{_SET_EARLIER}, and {cure}")
            raise HookError("no iteration has ended yet", cure)
        most = max(counts, key=lambda program: counts[program])
        iterations = [iteration for program, iteration, _ in kept if id(program) == most]
        write(path, f"{self.framework} rank {self.rank}", [device(self.rank, iterations)])

    def remove(self) -> None:
        """Takes the hook out: the framework is as it was before, and a gate that the hook made is shut down."""
        atexit.unregister(self.remove)
        self._patches.restore()
        self._release()

    def __enter__(self) -> "Hook":
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()

    def _release(self) -> None:
        global _set
        gate, self._gate = self._gate, None
        with _one:
            if _set is self:
                _set = None
        line, self._line = self._line, None
        if line is not None:
            # Before the page goes: what the stream has been given would write to it. A device that failed writes no more.
            with contextlib.suppress(Exception):
                line.release()
        if gate is not None:
            gate.close()
        # A gate that the hook made is shut down, and its file removed.
        self._made.close()

    def on_device(self, kind: str) -> None:
        """Says, before an iteration, where its waits are.

        :param kind: ``cpu``: the host waits. ``cuda``: the current stream does. On others nothing can be seen.
        """
        if kind == self._kind or self._run is not None or self._is_off:
            return
        self._kind = kind
        with self._catching:
            self._ahead.clear()
            self._stream = self._clock = None
        if kind == "cuda":
            with self._guarded("its stream cannot be seen"):
                stream = CurrentStream()
                if stream.is_recorded():
                    self._kind = "?"
                    return
                self._stream, self._clock = stream, Clock(stream, time.monotonic_ns)
            if self._gate is not None and self._line is None and self._stream is not None:
                try:
                    self._line = DeviceLine(self._gate, CudaDriver(), self._stream)
                except Exception as error:
                    self._give_up(error)
        elif kind != "cpu":
            _warn(f"{self.framework} on {kind}: there no bubble can be seen, and the gate stays closed")

    def _is_blind(self) -> bool:
        """Nothing is seen where the hook has failed, on some devices, and of what goes into a CUDA graph to be run later."""
        if self._is_off or self._kind not in ("cpu", "cuda"):
            return True
        if self._stream is not None:
            with self._guarded("its stream cannot be seen"):
                return self._stream.is_recorded()
            return True
        return False

    @contextlib.contextmanager
    def _guarded(self, what: str) -> Iterator[None]:
        """Whatever fails in the hook, the big model goes on: without it from then on."""
        try:
            yield
        except Exception as error:
            told, self._is_off = self._is_off, True
            self._drop_gate()
            if not told:
                _warn(f"the hook for {self.framework} sees and opens nothing from now on, because {what}: {error}")

    def iterate(self, key: Hashable, name: str, call: Callable[..., T], /, *args: Any, **kwargs: Any) -> T:
        """Runs an iteration of the framework. One that raises teaches nothing, and leaves the gate closed."""
        if self._run is not None or self._is_blind():
            return call(*args, **kwargs)
        self._try_to_catch_up()
        # A gate that a device was handed stays shut where the host waits.
        may_open = self._gate is not None and self.filling and (self._line is None) == (self._stream is None)
        run = _Run(self._programs.get(key, name), self._now(), may_open)
        self._run = run
        try:
            result = call(*args, **kwargs)
        finally:
            self._run = None
        run.end = self._now()
        if self._gate is not None:
            try:
                self._gate.beat()
            except Exception as error:
                self._give_up(error)
        if not self._is_off:
            self._ahead.append(run)
            self._try_to_catch_up()
        return result

    def wait(self, kind: str, call: Callable[..., T], /, *args: Any, **kwargs: Any) -> T:
        """Runs a wait of the framework, with the gate open where the wait is known."""
        run = self._run
        if run is None or run.waiting or run.thread != threading.get_ident() or self._is_off:
            if run is None and not self._is_blind():
                self._wait_outside()
            return call(*args, **kwargs)
        expected_ns = run.program.expected_ns(len(run.waits), kind) if run.may_open else None
        run.waiting = True
        began = self._now()
        try:
            if expected_ns is not None:
                self._open(expected_ns)
            return call(*args, **kwargs)
        finally:
            ended = self._now()
            # Whatever came of opening: a signal may have ended that half-way.
            if expected_ns is not None:
                self._close()
            run.waiting = False
            run.waits.append((kind, began, ended))
            run.expected_ns.append(expected_ns if self._gate is not None else None)

    def _now(self) -> Any:
        """The time, or a mark in the stream whose time is known later."""
        if self._stream is None:
            return time.monotonic_ns()
        if self._is_off:
            return None
        with self._guarded("its stream cannot be marked"):
            return self._stream.mark()
        return None

    def _try_to_catch_up(self) -> None:
        """Learns, unless another thread does: the training thread waits for none."""
        if self._catching.acquire(blocking=False):
            try:
                self._catch_up()
            finally:
                self._catching.release()

    @contextlib.contextmanager
    def _caught_up(self) -> Iterator[None]:
        """All is learned that is over, and nothing more for now."""
        with self._catching:
            self._catch_up()
            yield

    def _catch_up(self) -> None:
        """Learns from the iterations that are over: on the host all, in a stream those whose marks it has passed."""
        with self._guarded("its stream cannot be timed"):
            while self._ahead and not self._is_off and self._is_over(self._ahead[0]):
                self._learn(self._ahead.popleft())

    def _is_over(self, run: _Run) -> bool:
        return self._stream is None or all(self._stream.is_over(mark) for mark in run.marks())

    def _learn(self, run: _Run) -> None:
        at: Callable[[Any], int] = int
        if self._clock is not None:
            self._clock.move(run.start)
            at = self._clock.ns
        program = run.program
        waits = tuple((kind, at(begin), at(end)) for kind, begin, end in run.waits)
        iteration = Iteration(program.iterations, at(run.start), at(run.end), waits)
        program.finished([kind for kind, _, _ in waits], [end - start for _, start, end in waits])
        openings = []
        for index, ((_, start, end), expected_ns) in enumerate(zip(waits, run.expected_ns)):
            if expected_ns is not None:
                openings.append(Opening(index, start, start + expected_ns, end))
                program.positions[index].opened += 1
                program.positions[index].open_ns += end - start
        self._kept.append((program, iteration, tuple(openings)))
        if not waits and program.iterations == self._settings.learn and _ranks() > 1:
            _warn(
                f"{program.iterations} iterations of {program.name} had no wait that the hook for {self.framework} sees: "
                "docs/python.md has the engines and schedules that it knows"
            )

    def _open(self, expected_ns: int) -> None:
        if self._gate is not None:
            try:
                (self._line or self._gate).open(expected_ns)
            except Exception as error:
                self._give_up(error)

    def _close(self) -> None:
        if self._gate is not None:
            try:
                (self._line or self._gate).close()
            except Exception as error:
                self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        """The big model goes on, whatever the gate has."""
        self._drop_gate()
        _warn(f"the gate is left closed from now on: {error}")

    def _drop_gate(self) -> None:
        gate, self._gate = self._gate, None
        if gate is not None:
            with contextlib.suppress(Exception):
                gate.close()

    def _wait_outside(self) -> None:
        self._outside += 1
        # Some come before the first iteration: shapes are exchanged, a group is warmed up.
        if self._outside == 100 and not self._kept:
            _warn(f"100 waits of {self.framework} lay outside of every iteration: {_SET_EARLIER}")


def _warn(text: str) -> None:
    """A warning in one line, also where warnings are errors: it is told in the middle of the big model's step."""
    try:
        warnings.warn(text, RuntimeWarning, stacklevel=3)
    except RuntimeWarning:
        with contextlib.suppress(OSError, ValueError):
            print(f"bubblebench: {text}", file=sys.stderr)


def current() -> "Optional[Hook]":
    """The hook of this process: a function that a framework fetched from an earlier one works with this."""
    return _set


def hooked_iteration(
    device: str, key: Hashable, name: str, call: Callable[..., T], /, *args: Any, **kwargs: Any
) -> T:
    """An iteration of a framework whose function was replaced, on such a device, with the hook that there is now."""
    hook = current()
    if hook is None:
        return call(*args, **kwargs)
    hook.on_device(device)
    return hook.iterate(key, name, call, *args, **kwargs)


def hooked_wait(kind: str, call: Callable[..., T], /, *args: Any, **kwargs: Any) -> T:
    """A wait of such a framework."""
    hook = current()
    return call(*args, **kwargs) if hook is None else hook.wait(kind, call, *args, **kwargs)


def refuse_second() -> None:
    """An error where a hook is set: the places of a second one would be the first one's."""
    if _set is not None:
        raise HookError(
            f"a hook for {_set.framework} is already set in this process", "call its remove() first: one hook a process"
        )


def _claim(hook: Hook) -> None:
    global _set
    with _one:
        refuse_second()
        _set = hook


def _check(gate: Gate, settings: Settings, keep: int) -> None:
    if gate is not None and not isinstance(gate, (str, os.PathLike)) and not callable(getattr(gate, "open", None)):
        raise HookError(f"gate={gate!r} is no gate", "give a path as text, a bubblebench.gate.Main, or None")
    wholes = {"learn": settings.learn, "min_ns": settings.min_ns, "keep": keep}
    for name, value in wholes.items():
        if not isinstance(value, int):
            raise HookError(f"{name}={value!r} is no whole number", "give one, such as 100")
    if not isinstance(settings.quantile, (int, float)) or not 0.0 <= settings.quantile <= 1.0:
        raise HookError(f"quantile={settings.quantile!r} is none", "give a share from 0 to 1, such as 0.1")
    if not 2 <= settings.learn <= settings.window:
        raise HookError(f"learn={settings.learn} iterations cannot be", f"give 2 to {settings.window}")
    if settings.min_ns < 0 or keep < 1:
        raise HookError(f"min_ns={settings.min_ns}, keep={keep} cannot be", "give min_ns from 0, and keep from 1")


def _group() -> Any:
    """``torch.distributed`` with its default group made, or ``None``."""
    distributed: Any = sys.modules.get("torch.distributed")
    return (
        distributed if distributed is not None and distributed.is_available() and distributed.is_initialized() else None
    )


def _rank() -> int:
    """This process's rank, as the group or else the launcher says it: the group may not be there yet."""
    group = _group()
    if group is not None:
        return int(group.get_rank())
    for name in ("RANK", "SLURM_PROCID", "OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK", "MV2_COMM_WORLD_RANK"):
        text = os.environ.get(name, "")
        if text.isdigit():
            return int(text)
    return 0


def _ranks() -> int:
    """How many there are, as far as is known."""
    group = _group()
    if group is not None:
        return int(group.get_world_size())
    text = os.environ.get("WORLD_SIZE", "")
    return int(text) if text.isdigit() else 1


def _main(path: "Union[str, os.PathLike[str]]", rank: int) -> "Main":
    """The main's end of a new gate."""
    from bubblebench.gate import GateError, Main

    text = os.fspath(path)
    if not isinstance(text, str):
        raise HookError(f"gate={path!r} is no text", "give a path as text")
    own = text.replace("{rank}", str(rank))
    if "{" in own or "}" in own:
        raise HookError(f"gate={text!r} has other braces than {{rank}}", "put {rank} where this rank's number is to be")
    try:
        return Main(own)
    except GateError as error:
        if "{rank}" in text or _ranks() == 1:
            raise
        raise HookError(error.what, "give every rank a gate of its own: gate=\"…-{rank}\", in braces and as it stands") from error
