"""A side of real torch modules: where its step is cut, what stops it, and that cutting changes no bit of its weights."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import threading
import time
import unittest
from pathlib import Path
from typing import Any, Callable, List, Optional, Tuple

from bubblebench.gate import Main, NeverFits
from bubblebench.side import FillReport, fill

from .launch import require

MS = 1_000_000


class Always:
    """A gate that is open for so many operations, then shut down."""

    def __init__(self, operations: int = 10**9) -> None:
        self.left = operations
        self.needs: List[int] = []
        self.finished = 0
        self.is_ready = self.is_closed = False

    def go(self, need_ns: int = 0, timeout: Optional[float] = None) -> bool:
        """Whether another may start."""
        assert self.is_ready and not self.is_closed
        self.needs.append(need_ns)
        self.left -= 1
        return self.left >= 0

    def ready(self) -> None:
        """Before the first."""
        self.is_ready = True

    def done(self) -> None:
        """Counts."""
        self.finished += 1

    def close(self) -> None:
        """Behind the last."""
        self.is_closed = True


class Base(unittest.TestCase):
    """A folder, a model and its step."""

    def setUp(self) -> None:
        require("torch")
        import torch

        # As the side sets it: other threads sum in another order.
        torch.set_num_threads(1)
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)

    def net(self, in_place: bool = False) -> Any:
        """A small model, the same each time."""
        import torch
        from torch import nn

        torch.manual_seed(3)
        return nn.Sequential(
            nn.Linear(64, 128),
            nn.ReLU(in_place),
            nn.Sequential(nn.Linear(128, 128), nn.ReLU(in_place)),
            nn.Linear(128, 10),
        )

    def step_of(self, model: Any) -> Tuple[Callable[[], None], Any]:
        """Its training step, on the same data each time."""
        import torch
        from torch import nn

        generator = torch.Generator().manual_seed(4)
        x = torch.randn(16, 64, generator=generator)
        y = torch.randint(0, 10, (16,), generator=generator)
        optimizer = torch.optim.AdamW(model.parameters())

        def step() -> None:
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()

        return step, optimizer

    def fill(self, gate: Any, model: Any, step: Optional[Callable[[], Any]] = None, **settings: Any) -> FillReport:
        """Fills without becoming nice for good."""
        settings = {"nice": None, "segment_ns": 0, "warmup": 3, **settings}
        return fill(step or self.step_of(model)[0], gate, model, **settings)

    def same(self, left: Any, right: Any) -> None:
        """All bits of all weights."""
        import torch

        for (name, a), (_, b) in zip(left.state_dict().items(), right.state_dict().items()):
            self.assertTrue(torch.equal(a, b), name)


class Sides(Base):
    """Models as they are."""

    def test_a_cut_step_changes_no_bit(self) -> None:
        for in_place in (False, True):
            plain, cut = self.net(in_place), self.net(in_place)
            step, _ = self.step_of(plain)
            for _ in range(25):
                step()
            gate = Always()
            report = self.fill(gate, cut, steps=25)
            self.same(plain, cut)
            self.assertEqual((report.steps, report.warmup_steps, report.stopped_by), (25, 6, "steps"))
            self.assertEqual((report.operations, gate.finished, len(gate.needs)), (gate.finished,) * 3)
            self.assertTrue(gate.is_closed)

    def test_it_is_cut_at_each_module_forward_and_backward_and_before_the_optimizer(self) -> None:
        report = self.fill(Always(), self.net(), steps=9)
        labels = [segment.label for segment in report.segments]
        self.assertEqual(labels[0], "start of the step")
        self.assertEqual(labels[-1], "step of AdamW")
        for name in ("0", "1", "2.0", "2.1", "3"):
            self.assertIn(f"forward of {name}", labels)
            self.assertIn(f"backward of {name}", labels)
        self.assertLess(labels.index("backward of 3"), labels.index("backward of 0"))
        self.assertEqual(report.operations, 3 * len(labels))

    def test_short_segments_are_joined(self) -> None:
        joined = self.fill(Always(), self.net(), steps=9, segment_ns=10**9)
        self.assertEqual([s.label for s in joined.segments], ["start of the step"])
        self.assertGreater(joined.segments[0].joined, 10)

    def test_no_hook_is_left(self) -> None:
        from torch.optim.optimizer import _global_optimizer_pre_hooks

        model, before = self.net(), len(_global_optimizer_pre_hooks)
        self.fill(Always(20), model)
        self.assertFalse(any(module._forward_hooks or module._forward_pre_hooks for module in model.modules()))
        self.assertEqual(len(_global_optimizer_pre_hooks), before)

    def test_what_is_saved_is_the_last_whole_step(self) -> None:
        import torch

        for operations in range(30, 60):
            model, path = self.net(), self.folder / "side.pt"
            step, _ = self.step_of(model)
            report = self.fill(Always(operations), model, step, checkpoint=path)
            self.assertEqual(report.stopped_by, "shut_down")
            saved = torch.load(path, weights_only=True)
            self.assertEqual(saved["steps"], report.steps)
            plain = self.net()
            step, optimizer = self.step_of(plain)
            for _ in range(report.steps):
                step()
            self.same(model, plain)
            for name, value in plain.state_dict().items():
                self.assertTrue(torch.equal(saved["model"][name], value), f"{name} after {operations} operations")
            self.assertEqual(saved["optimizers"][0]["state"][0]["step"], optimizer.state_dict()["state"][0]["step"])
            self.assertEqual([file.name for file in self.folder.iterdir()], ["side.pt"])

    def test_a_signal_ends_it_at_a_cut_and_what_was_learned_is_saved(self) -> None:
        import torch

        for number in (signal.SIGTERM, signal.SIGINT):
            for moment in (3, 5 * 11, 5 * 11 + 1, 5 * 11 + 4):
                model, path = self.net(), self.folder / f"{number}-{moment}.pt"
                step, optimizer = self.step_of(model)
                calls = [0]

                def strike(*_: Any) -> None:
                    calls[0] += 1
                    if calls[0] == moment:
                        signal.raise_signal(number)

                # Within the forwards, and behind the weights' change.
                handles = [module.register_forward_hook(strike) for module in (model[0], model[1], model[3], model[2])]
                optimizer.register_step_post_hook(strike)
                before = signal.getsignal(number)
                report = self.fill(Always(), model, step, checkpoint=path)
                self.assertEqual((report.stopped_by, calls[0] >= moment), (number.name, True))
                self.assertIs(signal.getsignal(number), before)
                for handle in handles:
                    handle.remove()
                plain = self.net()
                again, _ = self.step_of(plain)
                for _ in range(report.steps):
                    again()
                self.same(model, plain)
                self.assertEqual(torch.load(path, weights_only=True)["steps"], report.steps)

    def test_a_signal_ends_a_side_that_waits(self) -> None:
        with Main(self.folder / "gate"):
            timer = threading.Timer(0.6, lambda: os.kill(os.getpid(), signal.SIGTERM))
            timer.start()
            report = self.fill(self.folder / "gate", self.net(), timeout=30)
            timer.join()
        self.assertEqual((report.stopped_by, report.operations), ("SIGTERM", 0))

    def test_a_signal_that_is_ignored_stays_ignored(self) -> None:
        before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            model = self.net()
            step, _ = self.step_of(model)

            def struck() -> None:
                os.kill(os.getpid(), signal.SIGTERM)
                step()

            self.assertEqual(self.fill(Always(), model, struck, steps=9).stopped_by, "steps")
            self.assertIs(signal.getsignal(signal.SIGTERM), signal.SIG_IGN)
        finally:
            signal.signal(signal.SIGTERM, before)

    def test_a_step_that_catches_everything_is_stopped_all_the_same(self) -> None:
        model = self.net()
        step, _ = self.step_of(model)

        def stubborn() -> None:
            try:
                step()
            except Exception:
                pass

        self.assertEqual(self.fill(Always(37), model, stubborn).stopped_by, "shut_down")

    def test_an_error_of_the_step_is_the_users(self) -> None:
        gate, count = Always(), [0]

        def fails() -> None:
            count[0] += 1
            if count[0] > 10:
                raise ZeroDivisionError

        with self.assertRaises(ZeroDivisionError):
            self.fill(gate, self.net(), fails)
        self.assertTrue(gate.is_closed)

    def test_behind_a_real_gate_it_works_while_that_is_open(self) -> None:
        path = self.folder / "gate"
        with Main(path) as main:
            found: List[FillReport] = []
            thread = threading.Thread(target=lambda: found.append(self.fill(path, self.net(), trace=10_000)))
            thread.start()
            while main.side_pid is None:
                time.sleep(0.001)
            openings = []
            for _ in range(20):
                began = time.monotonic_ns()
                main.open(20 * MS)
                time.sleep(0.02)
                main.close()
                openings.append((began, began + 20 * MS))
                time.sleep(0.002)
            main.shut_down()
            thread.join(30)
        (report,) = found
        self.assertEqual((report.stopped_by, len(report.trace)), ("shut_down", report.operations))
        self.assertGreater(report.operations, 0)
        for ran in report.trace:
            self.assertGreater(ran.start_ns, openings[0][0])

    def test_a_segment_longer_than_every_bubble_is_refused_with_its_length(self) -> None:
        path = self.folder / "gate"
        model = self.net()
        step, _ = self.step_of(model)

        def slow() -> None:
            until = time.process_time() + 0.004
            while time.process_time() < until:
                pass
            step()

        failed: List[NeverFits] = []

        def side() -> None:
            try:
                self.fill(path, model, slow)
            except NeverFits as error:
                failed.append(error)

        with Main(path) as main:
            thread = threading.Thread(target=side)
            thread.start()
            while main.side_pid is None:
                time.sleep(0.001)
            for _ in range(500):
                if failed:
                    break
                main.open(1 * MS)
                time.sleep(0.002)
                main.close()
                time.sleep(0.001)
            main.shut_down()
            thread.join(30)
        self.assertEqual(len(failed), 1)
        text = str(failed[0])
        self.assertIn("`start of the step` of the side cannot be cut: an operation of ", text)
        self.assertNotIn("\n", text)
        self.assertGreater(failed[0].need_ns, 3 * MS)
        self.assertLessEqual(failed[0].longest_ns, 1 * MS)

    def test_a_gate_that_stays_closed_is_waited_for_so_long(self) -> None:
        with Main(self.folder / "gate"):
            report = self.fill(self.folder / "gate", self.net(), timeout=0.1)
        self.assertEqual((report.stopped_by, report.operations), ("timeout", 0))

    def test_what_cannot_be_is_refused(self) -> None:
        for settings in ({"quantile": 0.0}, {"warmup": 0}):
            with self.assertRaises(ValueError):
                self.fill(Always(), self.net(), **settings)
        with self.assertRaisesRegex(ValueError, "give model= too"):
            fill(lambda: None, Always(), checkpoint=self.folder / "x", nice=None)

    def test_without_a_model_it_is_cut_before_the_optimizer(self) -> None:
        model = self.net()
        report = fill(self.step_of(model)[0], Always(), nice=None, warmup=3, steps=9, segment_ns=0)
        self.assertEqual([s.label for s in report.segments], ["start of the step", "step of AdamW"])


class Compiled(Base):
    """What ``torch.compile`` has compiled is cut around, and trains as before."""

    def compiled(self, how: str) -> Tuple[Any, Callable[[], None]]:
        """A model compiled as a whole, in part, in place, or not at all, and its step; the step compiled too."""
        import torch

        backend = "inductor" if shutil.which(os.environ.get("CXX", "g++")) else "aot_eager"
        model: Any = self.net()
        if how == "whole":
            model = torch.compile(model, backend=backend)
        elif how == "part":
            model[2] = torch.compile(model[2], backend=backend)
        elif how == "in place":
            model.compile(backend=backend)
        step, _ = self.step_of(model)
        return model, torch.compile(step, backend="aot_eager") if how == "step" else step

    def test_it_is_cut_around_what_is_compiled(self) -> None:
        for how, backward, optimizer in (("whole", 1, 1), ("part", 1, 1), ("in place", 0, 1), ("step", 0, 0)):
            with self.subTest(how):
                plain, step = self.compiled(how)
                for _ in range(12):
                    step()
                model, step = self.compiled(how)
                report = self.fill(Always(), model, step, steps=12)
                self.assertEqual(report.stopped_by, "steps")
                self.same(plain, model)
                labels = [segment.label for segment in report.segments]
                self.assertFalse(any("2.0" in label for label in labels), labels)
                self.assertEqual(any(label.startswith("backward of") for label in labels), bool(backward), labels)
                self.assertEqual("step of AdamW" in labels, bool(optimizer), labels)


if __name__ == "__main__":
    unittest.main()
