"""A small model that trains behind a gate, in a process of its own; run by the tests: ``small.py GATE OUT``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, List
from unittest import mock

import torch
from torch import nn

from bubblebench.side import fill

from tests.gates import Start, WatchedSide


def main() -> None:
    """Trains until the gate is shut down."""
    torch.manual_seed(5)
    model = nn.Sequential(nn.Linear(128, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 10))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    x, y = torch.randn(32, 128), torch.randint(0, 10, (32,))

    def step() -> None:
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()

    sides: List[WatchedSide] = []

    def watched(path: Any) -> WatchedSide:
        sides.append(WatchedSide(path))
        return sides[-1]

    with mock.patch("bubblebench.side.Side", watched):
        report = fill(step, sys.argv[1], model=model)
    starts: List[Start] = [start for side in sides for start in side.starts]
    record = {**vars(report), "segments": [tuple(s) for s in report.segments], "starts": starts}
    Path(sys.argv[2]).write_text(json.dumps(record), encoding="utf-8")


if __name__ == "__main__":
    main()
