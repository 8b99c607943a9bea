"""Starts the ranks of a small pipeline, and a side beside each where it is to be filled."""

from __future__ import annotations

import importlib.util
import json
import os
import socket
import subprocess
import sys
import unittest
from pathlib import Path
from typing import Any, Dict, List

HERE = Path(__file__).resolve().parent
RANKS = 2
#: The names by which ``rank.py`` knows each framework's schedules, and the module that each needs.
NEEDS = {"torch": "torch", "deepspeed": "deepspeed", "megatron": "megatron"}


def require(module: str) -> None:
    """Skips the test without this module; an error where all are promised to be there."""
    if importlib.util.find_spec(module) is None:
        if os.environ.get("BUBBLEBENCH_FRAMEWORKS"):
            raise AssertionError(f"{module} is not installed, and BUBBLEBENCH_FRAMEWORKS says that it is")
        raise unittest.SkipTest(f"{module} is not installed: .ci/frameworks installs it")


def environment() -> Dict[str, str]:
    """One of the machine's cores each, and what this process imports from."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
        "WORLD_SIZE": str(RANKS),
        "OMP_NUM_THREADS": "1",
        "GLOO_SOCKET_IFNAME": "lo",
        "CUDA_VISIBLE_DEVICES": "",
    }


def start(script: str, log: Path, arguments: List[str], variables: Dict[str, str]) -> "subprocess.Popen[bytes]":
    """A script of this folder in the background."""
    with open(log, "wb") as file:
        command = [sys.executable, str(HERE / script), *arguments]
        return subprocess.Popen(command, env=variables, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT)


def train(framework: str, mode: str, steps: int, folder: Path) -> List[Dict[str, Any]]:
    """Trains so many steps, and returns what each rank wrote. Sides write ``side-RANK.json`` into the folder."""
    variables = environment()
    running = []
    for rank in range(RANKS):
        own = {**variables, "RANK": str(rank), "LOCAL_RANK": str(rank)}
        running.append(start("rank.py", folder / f"{mode}-{rank}.log", [framework, mode, str(steps), str(folder)], own))
        if mode == "filled":
            where = [str(folder / f"gate-{rank}"), str(folder / f"side-{rank}.json")]
            running.append(start("small.py", folder / f"side-{rank}.log", where, variables))
    try:
        codes = [process.wait(timeout=300) for process in running]
    finally:
        for process in running:
            if process.poll() is None:
                process.kill()
                process.wait()
    if any(codes):
        logs = "\n".join(
            f"{path.name}: {path.read_text(errors='replace')[-2000:]}" for path in sorted(folder.glob("*.log"))
        )
        raise AssertionError(f"{framework}, {mode}: exit codes {codes}\n{logs}")
    paths = [folder / f"{mode}-{rank}.json" for rank in range(RANKS)]
    return [json.loads(path.read_text(encoding="utf-8")) for path in paths if path.exists()]
