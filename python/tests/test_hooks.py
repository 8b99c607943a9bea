"""The hook with a framework and a gate of these tests: what opens when, what is put back, what is refused."""

from __future__ import annotations

import inspect
import io
import json
import pickle
import subprocess
import sys
import tempfile
import threading
import time
import types
import unittest
import warnings
from pathlib import Path
from typing import Any, Callable, List, Optional, Tuple, cast
from unittest import mock

from bubblebench.gate import GateError, Main
from bubblebench.hooks import Hook, HookError
from bubblebench.hooks.hook import Gate, hooked_iteration, hooked_wait
from bubblebench.hooks.learning import Settings
from bubblebench.hooks.patch import Patches, imported
from bubblebench.hooks.record import PathOrText, merge_bubbles

from .program import ROOT, program

MS = 1_000_000


class Recorder:
    """A main's end that writes down what it is told."""

    def __init__(self, fails: bool = False) -> None:
        self.said: List[Tuple[str, int]] = []
        self.is_open = False
        self.fails = fails

    def open(self, expected_ns: int, bubble: Optional[int] = None) -> None:
        """Opens."""
        if self.fails:
            raise OSError("the page is gone")
        self.is_open = True
        self.said.append(("open", expected_ns))

    def close(self) -> None:
        """Closes."""
        self.is_open = False
        self.said.append(("close", 0))

    def beat(self) -> None:
        """Lives."""

    def hand_to_device(self) -> int:
        """Has no line."""
        raise OSError("no line")

    def openings(self) -> int:
        """How often it was opened."""
        return sum(word == "open" for word, _ in self.said)


class Framework:
    """A framework of one function that waits, and one that is an iteration."""

    def __init__(self) -> None:
        self.module = types.SimpleNamespace(wait=self._wait, step=self._step, __name__="framework")
        self.lengths: List[float] = [0.004, 0.0002]
        self.inside: Callable[[], None] = lambda: None
        self.originals = dict(vars(self.module))

    def _wait(self, seconds: float) -> float:
        self.inside()
        time.sleep(seconds)
        return seconds

    def _step(self) -> List[float]:
        return [self.module.wait(seconds) for seconds in self.lengths]

    def hook(self, gate: Gate = None, settings: Settings = Settings(learn=3), keep: int = 100) -> Hook:
        """Its hook."""
        patches = Patches("framework 1.0")
        hook: Hook

        def wait(original: Callable[..., Any]) -> Callable[..., Any]:
            return lambda seconds: hook.wait("recv", original, seconds)

        def step(original: Callable[..., Any]) -> Callable[..., Any]:
            return lambda: hook.iterate(len(self.lengths), "step", original)

        patches.plan(self.module, "wait", ("seconds",), wait)
        patches.plan(self.module, "step", (), step)
        hook = Hook(patches, gate, settings, keep)
        return hook


class Gates(unittest.TestCase):
    def setUp(self) -> None:
        self.framework, self.gate = Framework(), Recorder()

    def test_learned_bubbles_are_opened_and_closed_and_short_ones_are_not(self) -> None:
        opens: List[bool] = []
        self.framework.inside = lambda: opens.append(self.gate.is_open)
        with self.framework.hook(self.gate) as hook:
            for _ in range(6):
                self.assertEqual(self.framework.module.step(), self.framework.lengths)
                self.assertFalse(self.gate.is_open)
            long, short = hook.bubbles()
        self.assertEqual(opens[0::2], [False] * 3 + [True] * 3)
        self.assertEqual(opens[1::2], [False] * 6)
        self.assertEqual((long.opened, long.state, long.count, short.state), (3, "learned", 6, "short"))
        self.assertTrue(4 * MS <= (long.expected_ns or 0) <= long.median_ns)
        self.assertEqual(len(hook.openings()), 3)
        for opening in hook.openings():
            self.assertTrue(opening.opened_ns < opening.end_ns and opening.position == 0)

    def test_without_a_gate_it_records_and_opens_nothing(self) -> None:
        with self.framework.hook() as hook:
            for _ in range(6):
                self.framework.module.step()
        self.assertEqual((hook.bubbles()[0].opened, hook.bubbles()[0].state), (0, "learned"))
        self.assertEqual((len(hook.iterations()), hook.openings()), (6, []))

    def test_filling_can_be_paused(self) -> None:
        with self.framework.hook(self.gate) as hook:
            for number in range(8):
                hook.filling = number % 2 == 0
                self.framework.module.step()
        self.assertEqual((hook.bubbles()[0].opened, hook.bubbles()[0].count), (2, 8))

    def test_an_exception_in_a_step_leaves_the_gate_closed_and_teaches_nothing(self) -> None:
        with self.framework.hook(self.gate) as hook:
            for _ in range(4):
                self.framework.module.step()

            def fails() -> None:
                self.assertTrue(self.gate.is_open)
                raise KeyboardInterrupt

            self.framework.inside = fails
            with self.assertRaises(KeyboardInterrupt):
                self.framework.module.step()
            self.assertFalse(self.gate.is_open)
            self.assertEqual(hook.bubbles()[0].count, 4)
            self.framework.inside = lambda: None
            self.framework.module.step()
            self.assertEqual((hook.bubbles()[0].count, hook.bubbles()[0].opened), (5, 2))

    def test_a_signal_while_it_opens_leaves_the_gate_closed(self) -> None:
        with self.framework.hook(self.gate):
            for _ in range(4):
                self.framework.module.step()
            opens = self.gate.open

            def interrupted(expected_ns: int, bubble: Optional[int] = None) -> None:
                opens(expected_ns, bubble)
                raise KeyboardInterrupt

            with mock.patch.object(self.gate, "open", interrupted), self.assertRaises(KeyboardInterrupt):
                self.framework.module.step()
            self.assertFalse(self.gate.is_open)

    def test_the_main_goes_on_when_the_gate_fails(self) -> None:
        with self.framework.hook(Recorder(fails=True)) as hook, warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            for _ in range(6):
                self.assertEqual(self.framework.module.step(), self.framework.lengths)
        self.assertEqual(len(caught), 1)
        self.assertIn("the page is gone", str(caught[0].message))
        self.assertEqual(hook.bubbles()[0].opened, 0)

    def test_nor_is_it_stopped_where_warnings_are_errors(self) -> None:
        with self.framework.hook(Recorder(fails=True)), warnings.catch_warnings():
            warnings.simplefilter("error")
            with mock.patch("sys.stderr", io.StringIO()) as told:
                for _ in range(6):
                    self.assertEqual(self.framework.module.step(), self.framework.lengths)
        self.assertEqual(told.getvalue(), "bubblebench: the gate is left closed from now on: the page is gone\n")

    def test_an_argument_may_have_any_name(self) -> None:
        def call(**given: int) -> int:
            return sum(given.values())

        names = ("self", "key", "name", "call", "kind")
        with self.framework.hook() as hook:
            given = {name: 2 for name in names}
            self.assertEqual(hook.iterate("k", "n", call, **given), 10)
            self.assertEqual(hook.wait("recv", call, **given), 10)

    def test_an_iteration_without_a_wait_is_told_where_there_are_peers(self) -> None:
        self.framework.lengths = []
        for ranks, told in (("2", 1), ("1", 0)):
            with warnings.catch_warnings(record=True) as caught, mock.patch.dict("os.environ", {"WORLD_SIZE": ranks}):
                warnings.simplefilter("always")
                with self.framework.hook(self.gate):
                    for _ in range(9):
                        self.framework.module.step()
            self.assertEqual(len(caught), told)
            for warning in caught:
                self.assertIn("3 iterations of step had no wait that the hook for framework 1.0 sees", str(warning.message))

    def test_tables_may_be_read_by_other_threads(self) -> None:
        self.framework.lengths = [0.0] * 3
        failed: List[BaseException] = []
        over = threading.Event()

        def read(hook: Hook) -> None:
            try:
                while not over.is_set():
                    hook.bubbles()
                    hook.iterations()
            except BaseException as error:
                failed.append(error)

        interval = sys.getswitchinterval()
        sys.setswitchinterval(1e-6)
        try:
            with self.framework.hook(self.gate) as hook:
                readers = [threading.Thread(target=read, args=(hook,)) for _ in range(3)]
                for reader in readers:
                    reader.start()
                for _ in range(300):
                    self.framework.module.step()
                over.set()
                for reader in readers:
                    reader.join()
                self.assertEqual(hook.bubbles()[0].count, 300)
        finally:
            sys.setswitchinterval(interval)
        self.assertEqual(failed, [])

    def test_waits_of_other_threads_and_outside_of_iterations_are_let_through(self) -> None:
        with self.framework.hook(self.gate) as hook:
            self.framework.module.wait(0.0)

            def other() -> None:
                self.framework.inside = lambda: None
                thread = threading.Thread(target=self.framework.module.wait, args=(0.0,))
                thread.start()
                thread.join()

            self.framework.inside = other
            self.framework.module.step()
            self.assertEqual([row.count for row in hook.bubbles()], [1, 1])

    def test_an_iteration_with_other_waits_is_another_program(self) -> None:
        with self.framework.hook(self.gate) as hook:
            for _ in range(5):
                self.framework.module.step()
            opened = self.gate.openings()
            self.framework.lengths = [0.004]
            self.framework.module.step()
            self.assertEqual(self.gate.openings(), opened)
            self.framework.lengths = [0.004, 0.0002]
            self.framework.module.step()
            self.assertEqual((self.gate.openings(), len(hook.bubbles())), (opened + 1, 3))


class Removal(unittest.TestCase):
    def setUp(self) -> None:
        self.framework = Framework()

    def test_everything_is_as_it_was(self) -> None:
        hook = self.framework.hook(gate := Recorder())
        self.assertNotEqual(dict(vars(self.framework.module)), self.framework.originals)
        hook.remove()
        self.assertEqual(dict(vars(self.framework.module)), self.framework.originals)
        self.assertEqual(gate.said, [("close", 0)])
        hook.remove()
        self.framework.hook().remove()

    def test_what_replaces_a_function_looks_like_it(self) -> None:
        with self.framework.hook():
            self.assertEqual(list(inspect.signature(self.framework.module.wait).parameters), ["seconds"])
            self.assertEqual(self.framework.module.step.__name__, "_step")

    def test_what_was_fetched_before_works_with_the_next_hook(self) -> None:
        module = self.framework.module
        wait, step = module.wait, module.step
        with mock.patch.object(module, "wait", lambda seconds: hooked_wait("recv", wait, seconds)):
            for lengths in ([0.0, 0.0], [0.0]):
                self.framework.lengths = lengths
                with self.framework.hook() as hook:
                    self.assertEqual(hooked_iteration("cpu", "step", "step", step), lengths)
                    self.assertEqual(len(hook.bubbles()), len(lengths))
                self.assertEqual(hooked_iteration("cpu", "step", "step", step), lengths)

    def test_what_others_put_over_it_stays_and_still_works(self) -> None:
        hook = self.framework.hook(gate := Recorder())
        ours = self.framework.module.step
        self.framework.module.step = lambda: ours()
        theirs = self.framework.module.step
        for _ in range(4):
            self.framework.module.step()
        hook.remove()
        self.assertIs(self.framework.module.step, theirs)
        opened = gate.openings()
        self.assertEqual(self.framework.module.step(), self.framework.lengths)
        self.assertEqual(gate.openings(), opened)

    def test_a_second_hook_is_refused_in_one_line(self) -> None:
        with self.framework.hook():
            with self.assertRaises(HookError) as refused:
                Framework().hook()
        text = str(refused.exception)
        self.assertTrue(
            text.startswith("a hook for framework 1.0 is already set in this process; ") and "\n" not in text
        )
        self.framework.hook().remove()


class Refusals(unittest.TestCase):
    def refused(self, module: Any, name: str, parameters: Tuple[str, ...]) -> str:
        with self.assertRaises(HookError) as refused:
            Patches("framework 1.0").plan(module, name, parameters, lambda f: f)
        self.assertNotIn("\n", str(refused.exception))
        self.assertEqual(str(pickle.loads(pickle.dumps(refused.exception))), str(refused.exception))
        return str(refused.exception)

    def test_a_version_without_the_place_is_told(self) -> None:
        module = types.SimpleNamespace(wait=lambda works: None, number=3, __name__="framework.schedules")
        self.assertIn("framework 1.0 has no framework.schedules.wait_batch,", self.refused(module, "wait_batch", ()))
        self.assertIn("has no framework.schedules.number,", self.refused(module, "number", ()))
        self.assertIn("has no parameter `work` of framework.schedules.wait,", self.refused(module, "wait", ("work",)))

    def test_nothing_is_replaced_where_one_place_is_missing(self) -> None:
        framework = Framework()
        patches = Patches("framework 1.0")
        patches.plan(framework.module, "wait", ("seconds",), lambda f: lambda seconds: None)
        with self.assertRaises(HookError):
            patches.plan(framework.module, "absent", (), lambda f: f)
        self.assertEqual(dict(vars(framework.module)), framework.originals)

    def test_a_framework_that_is_not_there_is_told(self) -> None:
        with self.assertRaises(HookError) as refused:
            imported("no_such_framework.core")
        self.assertIn("; install no_such_framework beside bubblebench", str(refused.exception))

    def test_an_nccl_group_without_the_drivers_entries_is_told_at_once(self) -> None:
        group = types.SimpleNamespace(
            is_available=lambda: True, is_initialized=lambda: True, get_backend=lambda: "nccl", get_rank=lambda: 3
        )
        torch = types.SimpleNamespace(cuda=types.SimpleNamespace(is_available=lambda: True))
        with mock.patch.dict(sys.modules, {"torch": torch, "torch.distributed": group}):
            driver = mock.patch("bubblebench.hooks.hook.CudaDriver", side_effect=HookError("no entry", "another driver"))
            with driver, self.assertRaisesRegex(HookError, "^no entry; another driver$"):
                Framework().hook(Recorder())
            with driver, Framework().hook() as hook:
                self.assertEqual(hook.rank, 3, "what opens nothing needs no driver")
            group.get_backend = lambda: "gloo"
            with driver, Framework().hook(Recorder()) as hook:
                self.assertEqual(hook.rank, 3)

    def test_one_path_for_all_ranks_is_told(self) -> None:
        with tempfile.TemporaryDirectory() as folder, mock.patch.dict("os.environ", {"WORLD_SIZE": "2"}):
            with Main(f"{folder}/gate"):
                with self.assertRaisesRegex(HookError, "already has a main.*; give every rank a gate of its own"):
                    Framework().hook(f"{folder}/gate")
            with Main(f"{folder}/gate-0"), self.assertRaisesRegex(GateError, "already has a main"):
                Framework().hook(folder + "/gate-{rank}")

    def test_braces_that_are_not_filled_in_are_told(self) -> None:
        with self.assertRaisesRegex(HookError, "has other braces than {rank}; put {rank} where"):
            Framework().hook("/dev/shm/none-{stage}")

    def test_waits_without_an_iteration_are_told(self) -> None:
        framework = Framework()
        framework.lengths = [0.0]
        with framework.hook() as hook, warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            for _ in range(300):
                framework.module.wait(0.0)
            with self.assertRaisesRegex(HookError, "^300 waits were seen, and no iteration; set the hook before .*get_forward_backward_func"):
                hook.write_bubbles("/dev/null")
        self.assertEqual(len(caught), 1)
        self.assertIn("100 waits of framework 1.0 lay outside of every iteration: set the hook before", str(caught[0].message))

    def test_settings_that_cannot_be(self) -> None:
        for settings in (Settings(quantile=1.5), Settings(learn=1), Settings(learn=65), Settings(min_ns=-1)):
            with self.assertRaises(HookError):
                Framework().hook(settings=settings)
        wrong: Any
        for wrong in (0, None, 1.5):
            with self.assertRaises(HookError):
                Framework().hook(keep=wrong)
        for wrong in (Settings(learn=cast(Any, 2.5)), Settings(quantile=cast(Any, "0.1")), Settings(min_ns=cast(Any, 1e6))):
            with self.assertRaises(HookError):
                Framework().hook(settings=wrong)
        for wrong in (b"/dev/shm/x", 3):
            with self.assertRaisesRegex(HookError, "is no gate; give a path as text"):
                Framework().hook(wrong)
        Framework().hook().remove()


class Records(unittest.TestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)

    def write(self, name: str, steps: int) -> Path:
        """The file of a rank that waits thrice in its iterations."""
        framework = Framework()
        framework.lengths = [0.003, 0.002, 0.0015]
        framework.inside = lambda: time.sleep(0)
        original = framework.module.step

        def step() -> None:
            time.sleep(0.002)
            original()
            time.sleep(0.002)

        framework.module.step = step
        with framework.hook() as hook:
            with self.assertRaises(HookError):
                hook.write_bubbles(self.folder / name)
            for _ in range(steps):
                framework.module.step()
            hook.write_bubbles(self.folder / name)
        return self.folder / name

    def test_a_plan_is_made_on_a_live_run(self) -> None:
        if not program().exists():
            self.skipTest(f"no program at {program()}")
        paths: List[PathOrText] = []
        for rank, steps in enumerate((5, 6, 5, 5)):
            with mock.patch.dict("os.environ", {"RANK": str(rank)}):
                paths.append(self.write(f"rank{rank}.json", steps))
        out = self.folder / "bubbles.json"
        merge_bubbles(paths, out)
        job = ROOT / "examples/gpt-rtx3090-4.toml"
        run = subprocess.run(
            [str(program()), "plan", str(job), "--bubbles", str(out), "--json"],
            capture_output=True,
            text=True,
            check=False,
        )
        self.assertEqual((run.returncode, run.stderr.count("error")), (0, 0), run.stderr)
        self.assertIn('"dependency_ns"', run.stdout)

    def test_what_cannot_be_merged_is_refused(self) -> None:
        out = self.folder / "out.json"
        for paths in ([], [self.folder / "absent"]):
            with self.assertRaises(HookError):
                merge_bubbles(paths, out)
        (self.folder / "other.json").write_text('{"schema": "bubblebench.plan/2"}')
        with self.assertRaises(HookError):
            merge_bubbles([self.folder / "other.json"], out)
        with self.assertRaisesRegex(HookError, "^the bubbles cannot be written to .*/none/rank0.json: No such file"):
            self.write("none/rank0.json", 3)
        self.write("rank0.json", 3)
        with self.assertRaisesRegex(HookError, "is of framework 1.0 rank 0, and so was another; give one file of each stage"):
            merge_bubbles([self.folder / "rank0.json"] * 2, out)
        whole = json.loads((self.folder / "rank0.json").read_text())

        def damaged(change: Callable[[Any], Any]) -> str:
            record = json.loads(json.dumps(whole))
            change(record)
            (self.folder / "other.json").write_text(json.dumps(record))
            with self.assertRaises(HookError) as refused:
                merge_bubbles([self.folder / "other.json"], out)
            return str(refused.exception)

        for name in ("source", "devices"):
            self.assertIn(f"is damaged: KeyError at '{name}'; ", damaged(lambda record: record.pop(name)))
        for name in ("iterations", "window_ns", "bubbles"):
            self.assertIn(f"is damaged: KeyError at '{name}'; ", damaged(lambda record: record["devices"][0].pop(name)))
        self.assertIn("is damaged: ", damaged(lambda record: record["devices"][0]["bubbles"][0].update(start_ns="x")))
        self.assertIn("is damaged: ", damaged(lambda record: record.update(devices=[3])))
        self.assertIn("lists no bubble; ", damaged(lambda record: record["devices"][0].update(bubbles=[])))
        self.assertFalse(out.exists())
        self.assertEqual(sorted(path.name for path in self.folder.iterdir()), ["other.json", "rank0.json"])


class Imports(unittest.TestCase):
    def test_the_package_imports_no_framework(self) -> None:
        code = "import sys, bubblebench.hooks, bubblebench.side; sys.exit(bool({'torch', 'deepspeed', 'megatron'} & set(sys.modules)))"
        self.assertEqual(subprocess.run([sys.executable, "-c", code], check=False).returncode, 0)


if __name__ == "__main__":
    unittest.main()
