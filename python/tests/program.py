"""The program that answers are held against, and the files of the repository that both read."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any, Dict, List

#: The repository's root; BUBBLEBENCH_ROOT names it where the tests were copied out of it.
ROOT = Path(os.environ.get("BUBBLEBENCH_ROOT") or Path(__file__).resolve().parents[2])


def program() -> Path:
    """The program: what BUBBLEBENCH names, else the one that ``cargo build`` leaves."""
    return Path(os.environ.get("BUBBLEBENCH") or ROOT / "target/debug/bubblebench")


def cost_models() -> List[Path]:
    """Every cost model that is published."""
    return sorted((ROOT / "results/published").glob("*/cost_model.json"))


def ask(cost_model: Path, questions: List[Dict[str, Any]]) -> List[Dict[str, Any]]:
    """The program's answers, one a question."""
    lines = "".join(json.dumps(question) + "\n" for question in questions)
    command = [str(program()), "predict", "--cost-model", str(cost_model), "--batch"]
    run = subprocess.run(command, input=lines, capture_output=True, text=True, check=False, timeout=300)
    if run.returncode:
        raise AssertionError(f"predict --batch: exit {run.returncode}: {run.stderr}")
    return [json.loads(line) for line in run.stdout.splitlines()]
