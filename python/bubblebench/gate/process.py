"""Is the process at the other end of a gate still there? (``src/corun/gate/process.rs``)

A process is named by its id, the time it started (ids are used again) and its id namespace (in another container the same
number is another process; there no answer is given). Killed processes that nobody has waited for count as gone. Of a
page's main its lock tells first (:func:`main_life`).
"""

from __future__ import annotations

import enum
import errno
import os
from dataclasses import dataclass
from typing import NamedTuple, Optional

from . import lock
from .system import inode_of, read_text


class Life(enum.Enum):
    """Whether a process is still there, as far as this one can tell."""

    RUNNING = "running"
    GONE = "gone"
    #: This process's table of processes says nothing of it: it lives in another id namespace, or the table is another
    #: namespace's, or hides it.
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
        entry = _table_entry(pid)
        return cls(pid, 0 if entry is None else entry.started, _namespace())

    def life(self) -> Life:
        """Looks whether the process is still there."""
        if self.started == 0 or self.namespace == 0 or self.namespace != _namespace() or not _is_own_table():
            return Life.UNKNOWN
        entry = _table_entry(self.pid)
        if entry is None:
            # Gone, or hidden from this user (hidepid).
            return Life.UNKNOWN if _is_signalled(self.pid) else Life.GONE
        # Of this process too: its id may be that of a process before it, in a container that was started again.
        return Life.RUNNING if entry.started == self.started and entry.runs else Life.GONE

    def age_s(self) -> Optional[float]:
        """Seconds since it started; None where this process's table does not know it."""
        uptime = read_text("/proc/uptime")
        if self.namespace != _namespace() or self.started == 0 or not uptime:
            return None
        return max(0.0, float(uptime.split()[0]) - self.started / os.sysconf("SC_CLK_TCK"))


def main_life(fd: int, main: ProcessId, page_time_namespace: int) -> Life:
    """Whether the main of the page that is open as ``fd`` lives.

    Its lock tells, wherever it runs; the table of processes where there are no locks, and where a child that was made past
    :mod:`~bubblebench.gate.ends` holds the lock for it. That table tells starts by the clock of the reader: it says
    nothing of a main whose time namespace, ``page_time_namespace``, is another.
    """
    held = lock.is_held(fd, lock.MAIN)
    if held is False:
        return Life.GONE
    life = main.life() if page_time_namespace == time_namespace() else Life.UNKNOWN
    return Life.RUNNING if held and life is Life.UNKNOWN else life


class TableEntry(NamedTuple):
    """What the table of processes says of one."""

    #: Clock ticks from boot to its start.
    started: int
    #: One of its threads at least does.
    runs: bool


def parse_stat(line: str) -> Optional[TableEntry]:
    """Fields 3 (state), 20 (threads) and 22 (start) of a line of ``/proc/<pid>/stat``; None of anything else.

    The name before them may hold anything but ends at the last ``)``.
    """
    fields = line[line.rfind(")") + 1 :].split()
    if len(fields) < 20 or ")" not in line or not (fields[17].isdigit() and fields[19].isdigit()):
        return None
    # A first thread that has ended before others shows the state of a process that was killed.
    return TableEntry(int(fields[19]), fields[0][0] not in "ZX" or int(fields[17]) > 1)


def _table_entry(pid: int) -> Optional[TableEntry]:
    line = read_text(f"/proc/{pid}/stat")
    return None if line is None else parse_stat(line)


def _is_own_table() -> bool:
    """A container may be given another namespace's /proc."""
    try:
        return os.readlink("/proc/self") == str(os.getpid())
    except OSError:
        return False


def _is_signalled(pid: int) -> bool:
    """Whether a process of that id could be sent a signal, by somebody who may."""
    try:
        os.kill(pid, 0)
    except OSError as error:
        return error.errno != errno.ESRCH
    except OverflowError:
        return False
    return True


def _namespace() -> int:
    return inode_of("/proc/self/ns/pid")


def time_namespace() -> int:
    """Inode of this process's time namespace, whose clock it reads; 0 where there is no such thing."""
    return inode_of("/proc/self/ns/time")
