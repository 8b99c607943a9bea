"""The hooks in real pipelines of two ranks, on the CPU with gloo: weights, learned tables, when the sides start.

Times are not judged here: ``examples/fill_demo.py`` measures.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import tempfile
import types
import unittest
from pathlib import Path
from typing import Any, Callable, Dict, List, Tuple
from unittest import mock

from bubblebench import hooks

from ..gates import check_starts, latest_close_ns
from ..program import program
from .launch import RANKS, require, train

STEPS = 20
JOB = """
[model]
layers = 4
hidden = 128
heads = 4
sequence = 64
vocabulary = 96
[parallel]
pipeline = 2
micro_batch = 2
global_batch = 8
schedule = "1f1b"
[hardware]
gpu = "a100-sxm-80"
[[side]]
name = "small"
step_ns = 1000000
kernel_ns = 150000
memory_gib = 0.1
"""


class Pipelines(unittest.TestCase):
    """One method a framework and schedule; each trains thrice."""

    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)

    def check(self, framework: str) -> None:
        require(framework.partition("-")[0])
        worked = 0
        plain, passive, filled = (train(framework, mode, STEPS, self.folder) for mode in ("plain", "passive", "filled"))
        for rank in range(RANKS):
            weights = {run[rank]["weights"] for run in (plain, passive, filled)}
            self.assertEqual(len(weights), 1, f"rank {rank}: weights differ between plain, hooked and filled")
            self.check_tables(passive[rank]["bubbles"], filled[rank]["bubbles"])
            self.assertFalse(filled[rank]["gate"]["open"])
            side = json.loads((self.folder / f"side-{rank}.json").read_text(encoding="utf-8"))
            self.assertEqual((side["stopped_by"], side["warmup_steps"]), ("shut_down", 40))
            openings = [hooks.Opening(*opening) for opening in filled[rank]["openings"]]
            check_starts(self, side["starts"], [(o.opened_ns, latest_close_ns(o)) for o in openings])
            self.assertEqual(len(side["starts"]), side["operations"])
            worked += side["operations"]
        self.assertGreater(sum(row["opened"] for run in filled for row in run["bubbles"]), 0)
        self.assertGreater(worked, 0, "no side did anything in any bubble")
        self.check_plan()

    def check_tables(self, passive: List[Dict[str, Any]], filled: List[Dict[str, Any]]) -> None:
        """Both runs saw the same waits, each in every step, and only one has opened."""
        waits = [
            [(row["program"], row["position"], row["kind"], row["count"]) for row in rows] for rows in (passive, filled)
        ]
        self.assertEqual(waits[0], waits[1])
        self.assertTrue(any(kind == "recv" for _, _, kind, _ in waits[0]))
        self.assertEqual({count for _, _, _, count in waits[0]}, {STEPS})
        self.assertEqual({row["opened"] for row in passive}, {0})
        for row in passive + filled:
            if row["expected_ns"] is not None:
                self.assertEqual(row["state"], "learned")
                self.assertTrue(500_000 <= row["expected_ns"] <= row["median_ns"])

    def check_plan(self) -> None:
        """The live run's bubbles are what ``plan --bubbles`` reads."""
        if not program().exists():
            return
        paths = [self.folder / f"bubbles-passive-{rank}.json" for rank in range(RANKS)]
        hooks.merge_bubbles([str(path) for path in paths], self.folder / "bubbles.json")
        (self.folder / "job.toml").write_text(JOB, encoding="utf-8")
        command = [
            str(program()),
            "plan",
            str(self.folder / "job.toml"),
            "--bubbles",
            str(self.folder / "bubbles.json"),
            "--json",
        ]
        run = subprocess.run(command, capture_output=True, text=True, check=False)
        self.assertEqual(run.returncode, 0, run.stderr)
        measured = json.loads(run.stdout)["measured"]
        # An iteration in which some rank waited for less than 10 µs has nothing to merge, as with no bubbles by design.
        self.assertTrue(1 <= measured["iterations"] <= STEPS, measured["iterations"])
        self.assertGreater(measured["dependency_ns"], 0)

    def test_torch_1f1b(self) -> None:
        self.check("torch-1f1b")

    def test_torch_gpipe(self) -> None:
        self.check("torch-gpipe")

    def test_torch_interleaved(self) -> None:
        self.check("torch-interleaved")

    def test_torch_zero_bubble(self) -> None:
        self.check("torch-zbv")

    def test_deepspeed(self) -> None:
        self.check("deepspeed")

    def test_megatron(self) -> None:
        self.check("megatron")

    def test_megatron_with_overlap(self) -> None:
        self.check("megatron-overlap")

    def test_a_wait_that_fails_leaves_the_gate_closed(self) -> None:
        require("torch")
        (first,) = train("torch-1f1b", "broken", 40, self.folder)
        self.assertIn("error", first)
        self.assertFalse(first["open"])
        self.assertGreater(first["opened"], 0, "the wait that failed was not one that is opened")


class Places(unittest.TestCase):
    """Where the hooks are set in the versions that are installed."""

    def setUp(self) -> None:
        variables = mock.patch.dict(os.environ, {"DS_ACCELERATOR": "cpu"})
        variables.start()
        self.addCleanup(variables.stop)

    def places(self, framework: str) -> Tuple[Callable[[], hooks.Hook], List[Any], Any]:
        """The hook, what holds the places, and one place that a version might not have."""
        require({"torch_pipelining": "torch"}.get(framework, framework))
        if framework == "torch_pipelining":
            module = importlib.import_module("torch.distributed.pipelining.schedules")
            return (
                hooks.torch_pipelining,
                [module, module.PipelineScheduleSingle, module.PipelineScheduleMulti],
                (module, "_wait_batch_p2p"),
            )
        if framework == "deepspeed":
            engine = importlib.import_module("deepspeed.runtime.pipe.engine").PipelineEngine
            return hooks.deepspeed, [engine], (engine, "_INSTRUCTION_MAP")
        schedules = importlib.import_module("megatron.core.pipeline_parallel.schedules")
        communicator = importlib.import_module("megatron.core.pipeline_parallel.p2p_communication").P2PCommunicator
        return hooks.megatron, [schedules, communicator], (communicator, "_communicate")

    def test_removing_puts_everything_back(self) -> None:
        for framework in ("torch_pipelining", "deepspeed", "megatron"):
            with self.subTest(framework):
                install, owners, _ = self.places(framework)
                before = [_contents(owner) for owner in owners]
                hook = install()
                self.assertNotEqual([_contents(owner) for owner in owners], before)
                with self.assertRaisesRegex(hooks.HookError, "already set in this process"):
                    hooks.torch_pipelining()
                hook.remove()
                self.assertEqual([_contents(owner) for owner in owners], before)

    def test_a_version_without_the_place_is_told_in_one_line(self) -> None:
        for framework in ("torch_pipelining", "deepspeed", "megatron"):
            with self.subTest(framework):
                install, owners, (owner, name) = self.places(framework)
                before = [_contents(each) for each in owners]
                with mock.patch.object(owner, name):
                    delattr(owner, name)
                    with self.assertRaises(hooks.HookError) as refused:
                        install()
                    setattr(owner, name, None)
                self.assertRegex(str(refused.exception), rf"^\S+ \d\S* has no .*{name}, .*; take a version .*$")
                self.assertEqual([_contents(each) for each in owners], before)

    def test_where_the_waits_are_is_asked_of_each_framework(self) -> None:
        seen: List[str] = []

        def on_device(_: hooks.Hook, kind: str) -> None:
            seen.append(kind)
            raise ZeroDivisionError

        require("torch")
        device = importlib.import_module("torch").device("cuda", 0)
        with mock.patch.object(hooks.Hook, "on_device", on_device):
            install, (module, single, _), _ = self.places("torch_pipelining")
            with install(), self.assertRaises(ZeroDivisionError):
                single.step(types.SimpleNamespace(_stage=types.SimpleNamespace(device=device)))
            install, (engine,), _ = self.places("deepspeed")
            for where in (device, "cuda:1", "cpu"):
                with install(), self.assertRaises(ZeroDivisionError):
                    engine.train_batch(types.SimpleNamespace(device=where))
            install, (schedules, _), _ = self.places("megatron")
            for backend in ("nccl", "cpu:gloo,cuda:nccl", "gloo"):
                with install(), mock.patch("torch.distributed.is_initialized", return_value=True):
                    with mock.patch("torch.distributed.get_backend_config", return_value=backend):
                        with mock.patch("torch.cuda.is_available", return_value=True):
                            with self.assertRaises(ZeroDivisionError):
                                schedules.forward_backward_no_pipelining()
        self.assertEqual(seen, ["cuda", "cuda", "cuda", "cpu", "cuda", "cuda", "cpu"])

    def test_torch_has_what_the_hook_asks_of_its_streams(self) -> None:
        require("torch")
        cuda: Any = importlib.import_module("torch").cuda
        for name in ("record", "query", "elapsed_time"):
            self.assertTrue(callable(getattr(cuda.Event, name)), name)
        self.assertTrue(hasattr(cuda.Stream, "cuda_stream"))
        for name in ("current_stream", "is_current_stream_capturing", "is_available"):
            self.assertTrue(callable(getattr(cuda, name)), name)


def _contents(owner: Any) -> Dict[str, Any]:
    """What stands at each name; the instructions of DeepSpeed's map too."""
    found = {name: value for name, value in vars(owner).items() if callable(value)}
    found.update({str(key): value for key, value in vars(owner).get("_INSTRUCTION_MAP", {}).items()})
    return found


if __name__ == "__main__":
    unittest.main()
