"""Whether operations start too late where a main forgets to close, by the clock that decided and by one read behind it.

``PYTHONPATH=python python python/benches/late_starts.py [PATH] [--bubbles N]``: each opening is announced for 5 ms and closed
after 12; operations need 1 ms. One that starts with less than that left is late. Two counts:

- *by the clock that decided*: the reading with which the gate let it start; the gate answers for it
- *by a clock read behind it*: as a program can see it; a core that is lost between the two readings counts here
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from typing import List

from bubblebench import gate

_SIDE = """
import json, sys, time
from tests.gates import WatchedSide
with WatchedSide(sys.argv[1]) as side:
    behind = []
    while side.go(1_000_000, timeout=60):
        behind.append(time.monotonic_ns())
        while time.monotonic_ns() < behind[-1] + 950_000:
            pass
        side.done()
    json.dump([(*start, clock) for start, clock in zip(side.starts, behind)], sys.stdout)
"""


def main() -> None:
    """Prints the counts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", nargs="?", default=f"/dev/shm/late-{os.getpid()}", help="where to make the gate")
    parser.add_argument("--bubbles", type=int, default=1000)
    arguments = parser.parse_args()
    closes: List[int] = []
    with gate.Main(arguments.path) as end:
        side = subprocess.Popen([sys.executable, "-c", _SIDE, arguments.path], stdout=subprocess.PIPE)
        while end.side_pid is None and side.poll() is None:
            time.sleep(0.01)
        for _ in range(arguments.bubbles):
            end.open(5_000_000)
            closes.append(end.opened_at + 5_000_000)
            time.sleep(0.012)
            end.close()
            time.sleep(0.002)
        end.shut_down()
        starts = json.loads(side.communicate()[0])
    decided = behind = most_ns = 0
    for at_ns, need_ns, _, generation, clock_ns in starts:
        close_ns = closes[(generation - 1) // 2]
        decided += at_ns + need_ns > close_ns
        behind += clock_ns + need_ns > close_ns
        most_ns = max(most_ns, clock_ns - at_ns)
    print(f"{len(starts)} operations in {arguments.bubbles} openings")
    print(f"late by the clock that decided    {decided}")
    print(f"late by a clock read behind it    {behind}")
    print(f"the two readings were apart by    {most_ns / 1e3:.0f} us at most")


if __name__ == "__main__":
    main()
