"""Is the process at the other end of a gate still there? (``src/corun/gate/process.rs``)

A process is named by its id, the time it started (ids are used again) and its id namespace (in another container the same
number is another process; there no answer is given). Killed processes that nobody has waited for count as gone.
"""

from __future__ import annotations

import enum
import os
from dataclasses import dataclass
from typing import Optional, Tuple

from .system import inode_of, read_text


class Life(enum.Enum):
    """Whether a process is still there, as far as this one can tell."""

    RUNNING = "running"
    GONE = "gone"
    #: It lives in another id namespace: this one's table of processes says nothing of it.
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class ProcessId:
    """A process as it stands on a page."""

    #: The process id, as the process's own id namespace numbers it.
    pid: int
    #: Clock ticks from boot to the process's start; 0 where the system does not tell.
    started: int
    #: Inode of the process-id namespace; 0 where there is no such thing.
    namespace: int

    @classmethod
    def own(cls) -> "ProcessId":
        """The id of the calling process."""
        pid = os.getpid()
        table = _start_and_state(pid)
        return cls(pid, 0 if table is None else table[0], _namespace())

    def life(self) -> Life:
        """Looks whether the process is still there."""
        if self.namespace != _namespace():
            return Life.UNKNOWN
        table = _start_and_state(self.pid)
        if table is None:
            there = self.pid == os.getpid()
        else:
            # Of this process too: its id may be that of a process before it, in a container that was started again.
            there = table[0] == self.started and table[1] not in "ZX"
        return Life.RUNNING if there else Life.GONE

    def age_s(self) -> Optional[float]:
        """Seconds since it started; None where this process's table does not know it."""
        uptime = read_text("/proc/uptime")
        if self.namespace != _namespace() or self.started == 0 or not uptime:
            return None
        return max(0.0, float(uptime.split()[0]) - self.started / os.sysconf("SC_CLK_TCK"))


def parse_stat(line: str) -> Optional[Tuple[int, str]]:
    """Field 22 (start) and field 3 (state) of a line of ``/proc/<pid>/stat``; None of anything else.

    The name before them may hold anything but ends at the last ``)``.
    """
    fields = line[line.rfind(")") + 1 :].split()
    if len(fields) < 20 or ")" not in line or not fields[19].isdigit():
        return None
    return int(fields[19]), fields[0][0]


def _start_and_state(pid: int) -> Optional[Tuple[int, str]]:
    line = read_text(f"/proc/{pid}/stat")
    return None if line is None else parse_stat(line)


def _namespace() -> int:
    return inode_of("/proc/self/ns/pid")


def time_namespace() -> int:
    """Inode of this process's time namespace, whose clock it reads; 0 where there is no such thing."""
    return inode_of("/proc/self/ns/time")
