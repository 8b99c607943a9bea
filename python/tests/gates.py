"""Gates for tests: a folder in memory, and other programs that are mains and sides there."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import unittest
from pathlib import Path
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Sequence, Tuple

import bubblebench
from bubblebench import gate, hooks

#: Longer than anything takes, also on a busy machine.
LONG_S = 20.0
LONG_NS = 20_000_000_000

_BEGIN = "import os, signal, sys, time\nfrom bubblebench import gate\npath = sys.argv[1]\n"

#: Works until the gate ends; exit code 42 where its place was taken.
SIDE = """
try:
    with gate.Side(path) as side:
        while side.go(need_ns=20_000, timeout=20):
            time.sleep(20e-6)
            side.done()
    print(side.ended)
except gate.LeaseLost:
    sys.exit(42)
"""

#: Lives until it is killed.
MAIN = """
main = gate.Main(path)
print("ready", flush=True)
time.sleep(60)
"""


class GateCase(unittest.TestCase):
    """A test with a folder of its own for gates, and programs that end with it."""

    def setUp(self) -> None:
        memory = Path("/dev/shm")
        self.folder = Path(tempfile.mkdtemp(prefix="bubblebench-", dir=memory if os.access(memory, os.W_OK) else None))
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)
        self.path = str(self.folder / "gate")

    def start(self, text: str, within: Sequence[str] = ()) -> "subprocess.Popen[str]":
        """Another program of Python's that has ``gate`` and ``path``; killed when the test is over.

        :param within: A command that starts another, such as ``unshare``.
        """
        found = str(Path(bubblebench.__file__).parents[1])
        environment: Dict[str, str] = {**os.environ, "PYTHONPATH": found}
        program = subprocess.Popen(
            [*within, sys.executable, "-c", _BEGIN + text, self.path],
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        self.addCleanup(_end, program)
        return program

    def output(self, program: "subprocess.Popen[str]", code: int = 0) -> List[str]:
        """What the program printed until its end, which is waited for."""
        printed, _ = program.communicate(timeout=LONG_S)
        self.assertEqual(program.returncode, code, printed)
        return printed.split()

    def first_line(self, program: "subprocess.Popen[str]") -> str:
        """The next line that the program prints."""
        assert program.stdout is not None
        return program.stdout.readline().strip()

    def eventually(self, what: str, holds: Callable[[], Any]) -> None:
        """Waits until it holds."""
        end = time.monotonic() + LONG_S
        while not holds():
            self.assertLess(time.monotonic(), end, f"{what} did not come about")
            time.sleep(0.001)


class Start(NamedTuple):
    """A start as the gate allowed it: by the clock that decided it. What takes the core behind that is not the gate's."""

    at_ns: int
    need_ns: int
    #: When it had to have ended.
    deadline_ns: int
    #: Of the opening; those of a main's are the odd ones.
    generation: int


class WatchedSide(gate.Side):
    """Remembers its starts."""

    def __init__(self, path: Any, **settings: Any) -> None:
        super().__init__(path, **settings)
        self.starts: List[Start] = []
        self._read_ns, self._asks = 0, 0
        self._page.now = self._clock

    def _clock(self) -> int:
        now = time.monotonic_ns()
        # The thread that renews the lease reads it too.
        if threading.get_ident() == self._asks:
            self._read_ns = now
        return now

    def go(self, need_ns: int = 0, timeout: Optional[float] = None) -> bool:
        """As ever."""
        self._asks = threading.get_ident()
        may = super().go(need_ns, timeout)
        if may:
            side = self._protocol
            self.starts.append(Start(self._read_ns, need_ns, side.deadline, side.working_in))
        return may


def check_starts(
    case: unittest.TestCase, starts: Sequence[Sequence[int]], openings: Sequence[Tuple[int, int]]
) -> None:
    """Each lies in one of a main's openings, and would end within it.

    :param openings: When each began at the earliest, and when it was to close at the latest.
    """
    for start in (Start(*row) for row in starts):
        opening, closed = divmod(start.generation - 1, 2)
        case.assertEqual((closed, opening in range(len(openings))), (0, True), start)
        began_ns, close_ns = openings[opening]
        case.assertLessEqual(began_ns, start.at_ns, start)
        case.assertLessEqual(start.at_ns + start.need_ns, start.deadline_ns, start)
        case.assertLessEqual(start.deadline_ns, close_ns, start)


def latest_close_ns(opening: hooks.Opening) -> int:
    """The hook opens the gate behind ``opened_ns``, and before the wait is over."""
    return opening.end_ns + opening.expected_close_ns - opening.opened_ns


def one_bubble(case: GateCase, main: gate.Main) -> None:
    """Opens until the side has done something, closes, and sees it stand still."""
    before = main.operations
    main.open(LONG_NS)
    case.eventually("work", lambda: main.operations > before + 2)
    main.close()
    case.assertIsNotNone(main.wait_stopped(LONG_S))
    at = main.operations
    time.sleep(0.001)
    case.assertEqual(main.operations, at, "an acknowledged side stands still")


def _end(program: "subprocess.Popen[str]") -> None:
    program.kill()
    program.wait()
    if program.stdout is not None:
        program.stdout.close()


def told(program: Path, path: str) -> "subprocess.CompletedProcess[str]":
    """What ``bubblebench gate status --json`` says."""
    command = [str(program), "gate", "status", "--json", path]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=LONG_S)


def died(wait_status: int) -> Optional[int]:
    """The exit code that ``os.waitpid`` tells; None of one that a signal ended."""
    return os.WEXITSTATUS(wait_status) if os.WIFEXITED(wait_status) else None
