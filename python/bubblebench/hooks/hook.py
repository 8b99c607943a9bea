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
    List,
    NamedTuple,
    Optional,
    Protocol,
    Tuple,
    TypeVar,
    Union,
)

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
    """An iteration that lasts."""

    __slots__ = ("program", "start_ns", "thread", "waits", "openings", "waiting", "may_open")

    def __init__(self, program: Program, start_ns: int, may_open: bool) -> None:
        self.program = program
        self.start_ns = start_ns
        self.thread = threading.get_ident()
        self.waits: List[Tuple[str, int, int]] = []
        self.openings: List[Opening] = []
        self.waiting = False
        self.may_open = may_open


_one = threading.Lock()
_set: "Optional[Hook]" = None


class Hook:
    """A hook in this process; :func:`bubblebench.hooks.torch_pipelining` and its sisters make it. One a process.

    ``filling`` may be set to ``False`` for a while: the hook goes on to record and to learn, and opens nothing.
    """

    def __init__(self, patches: Patches, gate: Gate, settings: Settings, keep: int) -> None:
        _check(settings, keep)
        group = _group()
        # A group that is made later, or another one for the stages, is looked at in the first iteration.
        if group is not None and group.get_backend() == "nccl":
            raise refuse_streams("the default group is an NCCL process group")
        self.filling = True
        self.framework = patches.framework
        self.rank = _rank()
        self._patches = patches
        self._settings = settings
        self._programs = Programs(settings)
        self._kept: Deque[Tuple[Program, Iteration, Tuple[Opening, ...]]] = deque(maxlen=keep)
        self._run: Optional[_Run] = None
        self._outside = 0
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
        return self._programs.table()

    def iterations(self) -> List[Iteration]:
        """The last iterations that ended well (of every program), oldest first."""
        return [iteration for _, iteration, _ in self._kept]

    def openings(self) -> List[Opening]:
        """The openings of those iterations."""
        return [opening for _, _, openings in self._kept for opening in openings]

    def write_bubbles(self, path: PathOrText) -> None:
        """Writes the last iterations of the main program as ``bubblebench.bubbles/1``, with this rank as its one device.

        :func:`bubblebench.hooks.merge_bubbles` makes the file of all stages that ``bubblebench plan --bubbles`` wants.
        """
        counts: "dict[int, int]" = {}
        for program, _, _ in self._kept:
            counts[id(program)] = counts.get(id(program), 0) + 1
        if not counts:
            raise HookError("no iteration has ended yet", "write the bubbles after some steps")
        most = max(counts, key=lambda program: counts[program])
        iterations = [iteration for program, iteration, _ in self._kept if id(program) == most]
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
        if gate is not None:
            gate.close()
        # A gate that the hook made is shut down, and its file removed.
        self._made.close()

    def iterate(self, key: Hashable, name: str, call: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """Runs an iteration of the framework. One that raises teaches nothing, and leaves the gate closed."""
        if self._run is not None:
            return call(*args, **kwargs)
        program = self._programs.get(key, name)
        run = self._run = _Run(program, time.monotonic_ns(), self._gate is not None and self.filling)
        try:
            result = call(*args, **kwargs)
        finally:
            self._run = None
        self._finish(run, time.monotonic_ns())
        return result

    def wait(self, kind: str, call: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """Runs a wait of the framework, with the gate open where the wait is known."""
        run = self._run
        if run is None or run.waiting or run.thread != threading.get_ident():
            if run is None:
                self._wait_outside()
            return call(*args, **kwargs)
        position = len(run.waits)
        expected_ns = run.program.expected_ns(position, kind) if run.may_open else None
        run.waiting = True
        began = time.monotonic_ns()
        try:
            if expected_ns is not None:
                self._open(expected_ns)
            return call(*args, **kwargs)
        finally:
            ended = time.monotonic_ns()
            # Whatever came of opening: a signal may have ended that half-way.
            if expected_ns is not None:
                self._close()
                if self._gate is not None:
                    run.openings.append(Opening(position, began, began + expected_ns, ended))
            run.waiting = False
            run.waits.append((kind, began, ended))

    def _finish(self, run: _Run, now: int) -> None:
        program = run.program
        iteration = Iteration(program.iterations, run.start_ns, now, tuple(run.waits))
        program.finished([kind for kind, _, _ in run.waits], [end - start for _, start, end in run.waits])
        for opening in run.openings:
            position = program.positions[opening.position]
            position.opened += 1
            position.open_ns += opening.end_ns - opening.opened_ns
        self._kept.append((program, iteration, tuple(run.openings)))
        if self._gate is not None:
            try:
                self._gate.beat()
            except Exception as error:
                self._give_up(error)

    def _open(self, expected_ns: int) -> None:
        if self._gate is not None:
            try:
                self._gate.open(expected_ns)
            except Exception as error:
                self._give_up(error)

    def _close(self) -> None:
        if self._gate is not None:
            try:
                self._gate.close()
            except Exception as error:
                self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        """The big model goes on, whatever the gate has."""
        self._gate = None
        warnings.warn(f"the gate is left closed from now on: {error}", RuntimeWarning, stacklevel=2)

    def _wait_outside(self) -> None:
        self._outside += 1
        # Some come before the first iteration: shapes are exchanged, a group is warmed up.
        if self._outside == 1000 and not self._kept:
            warnings.warn(
                f"1000 waits of {self.framework} lay outside of every iteration: set the hook before the training function "
                "is fetched or wrapped",
                RuntimeWarning,
                stacklevel=2,
            )


def refuse_streams(what: str) -> HookError:
    """The error for waits that only order a device's streams."""
    return HookError(
        f"{what}: there a wait only orders streams and returns at once, so no bubble can be seen from the host",
        "NCCL process groups are not gated yet: use gloo on the CPU, or profile the run for `bubblebench bubbles`",
    )


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


def _check(settings: Settings, keep: int) -> None:
    if not 0.0 <= settings.quantile <= 1.0:
        raise HookError(f"quantile {settings.quantile} is none", "give a share from 0 to 1, such as 0.1")
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
    for name in ("RANK", "SLURM_PROCID", "OMPI_COMM_WORLD_RANK"):
        text = os.environ.get(name, "")
        if text.isdigit():
            return int(text)
    return 0


def _main(path: "Union[str, os.PathLike[str]]", rank: int) -> "Main":
    """The main's end of a new gate."""
    from bubblebench.gate import Main

    return Main(os.fspath(path).replace("{rank}", str(rank)))
