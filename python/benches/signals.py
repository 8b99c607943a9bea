"""How long a signal takes from a main in Python to a side, in microseconds.

``python python/benches/signals.py [PATH] [--side COMMAND]``: with COMMAND, a side program that attaches to PATH (``{}`` in
it) and works until the gate is shut down; else one in Python, once asleep and once spinning. Two quantiles each:

- *start*: from the call of ``Main.open`` to the side's own time of its first operation
- *stop*: from the closing to the side's standing still, its operation of 100 µs included
- *open*: what the call costs the main
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import List

from bubblebench import gate

_SIDE = """
import sys, time
from bubblebench import gate
with gate.Side(sys.argv[1], spin_ns=int(sys.argv[2])) as side:
    while side.go(timeout=60):
        time.sleep(100e-6)
        side.done()
"""


def work(ns: int) -> None:
    """What a main does between two signals: it does not sleep."""
    end = time.monotonic_ns() + ns
    while time.monotonic_ns() < end:
        pass


def quantile_us(times_ns: List[int], quantile: float) -> float:
    """The quantile in microseconds."""
    return sorted(times_ns)[int(len(times_ns) * quantile)] / 1e3


def measure(name: str, path: str, command: List[str], bubbles: int) -> None:
    """Opens and closes so often, and prints the row."""
    with gate.Main(path) as main:
        side = subprocess.Popen(command)
        try:
            while main.side_pid is None and side.poll() is None:
                time.sleep(0.01)
            starts: List[int] = []
            stops: List[int] = []
            opens: List[int] = []
            for _ in range(bubbles):
                begun = time.monotonic_ns()
                main.open(5_000_000)
                opens.append(time.monotonic_ns() - begun)
                work(1_000_000)
                started = main.started_at
                main.close()
                work(1_000_000)
                stopped = main.stopped()
                if started is not None and stopped is not None:
                    starts.append(started - begun)
                    stops.append(stopped)
            main.shut_down()
            side.wait(10)
        finally:
            side.kill()
    if not starts:
        raise SystemExit(f"{name}: the side did nothing in {bubbles} bubbles")
    columns = [f"{quantile_us(times, 0.5):8.1f} {quantile_us(times, 0.99):8.1f}" for times in (starts, stops, opens)]
    print(f"{name:24} {len(starts):7} " + "  ".join(columns))


def main() -> None:
    """Measures the sides that there are."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", nargs="?", default=f"/dev/shm/bubblebench-signals-{os.getpid()}")
    parser.add_argument("--side", help="the command of a side program, with {} for the path")
    parser.add_argument("--bubbles", type=int, default=1000)
    asked = parser.parse_args()
    os.environ["PYTHONPATH"] = os.fspath(Path(gate.__file__).parents[2])
    print(
        f"{'side':24} {'bubbles':>7} {'start p50':>8} {'p99':>7}  {'stop p50':>8} {'p99':>8}  {'open p50':>8} {'p99':>8}"
    )
    if asked.side:
        command = [word.replace("{}", asked.path) for word in asked.side.split()]
        measure(command[0].rsplit("/", 1)[-1], asked.path, command, asked.bubbles)
        return
    for name, spin_ns in (("Python, asleep", 2_000), ("Python, spinning", 10_000_000_000)):
        measure(name, asked.path, [sys.executable, "-c", _SIDE, asked.path, str(spin_ns)], asked.bubbles)


if __name__ == "__main__":
    main()
