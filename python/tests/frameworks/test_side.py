"""A side of real torch modules: where its step is cut, what stops it, and that cutting changes no bit of its weights."""

from __future__ import annotations

import copy
import io
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import unittest
from pathlib import Path
from typing import Any, Callable, List, Optional, Tuple, cast
from unittest import mock

from bubblebench.gate import Main, NeverFits
from bubblebench.side import FillReport, SideError, fill

from ..gates import WatchedSide, check_starts
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
            path.unlink(missing_ok=True)
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
            side = WatchedSide(path)
            thread = threading.Thread(target=lambda: found.append(self.fill(side, self.net(), trace=10_000)))
            thread.start()
            while main.side_pid is None:
                time.sleep(0.001)
            openings = []
            for _ in range(20):
                began = time.monotonic_ns()
                main.open(20 * MS)
                openings.append((began, main.opened_at + 20 * MS))
                time.sleep(0.02)
                main.close()
                time.sleep(0.002)
            main.shut_down()
            thread.join(30)
        (report,) = found
        self.assertEqual(report.stopped_by, "shut_down")
        self.assertEqual((len(report.trace), len(side.starts)), (report.operations, report.operations))
        self.assertGreater(report.operations, 0)
        check_starts(self, side.starts, openings)
        for start, ran in zip(side.starts, report.trace):
            self.assertLessEqual(start.at_ns, ran.start_ns)

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
        self.assertIn("the piece that begins with `start of the step` is too long: an operation of ", text)
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


class Awkward(Base):
    """Steps that are not one forward, one backward and one optimizer; each stopped at every cut of a step."""

    def check_whole(self, make: Callable[[], Tuple[Any, Callable[[], Any]]]) -> None:
        """What is stopped anywhere has the weights of its whole steps, and goes on as if it had never been stopped."""
        for operations in range(12, 40):
            model, step = make()
            first = self.fill(Always(operations), model, step, warmup=1)
            plain, again = make()
            for _ in range(first.steps):
                again()
            self.same(model, plain)
            second = self.fill(Always(7), model, step, warmup=1)
            for _ in range(second.steps):
                again()
            self.same(model, plain)

    def test_two_optimizers(self) -> None:
        def make() -> Tuple[Any, Callable[[], Any]]:
            import torch

            model = self.net()
            halves = [torch.optim.SGD(part.parameters(), 0.1) for part in (model[:2], model[2:])]
            x = torch.randn(8, 64, generator=torch.Generator().manual_seed(1))

            def step() -> None:
                for half in halves:
                    model.zero_grad()
                    model(x).square().mean().backward()
                    half.step()

            return model, step

        self.check_whole(make)

    def test_an_optimizer_that_calls_the_model(self) -> None:
        def make() -> Tuple[Any, Callable[[], Any]]:
            import torch

            model = self.net()
            optimizer = torch.optim.LBFGS(model.parameters(), lr=0.1, max_iter=3)
            x = torch.randn(8, 64, generator=torch.Generator().manual_seed(1))

            def closure() -> Any:
                optimizer.zero_grad()
                loss = model(x).square().mean()
                loss.backward()
                return loss

            return model, lambda: optimizer.step(closure)

        self.check_whole(make)

    def test_optimizers_in_the_backward(self) -> None:
        def make() -> Tuple[Any, Callable[[], Any]]:
            import torch

            model = self.net()
            x = torch.randn(8, 64, generator=torch.Generator().manual_seed(1))
            for parameter in model.parameters():
                optimizer = torch.optim.SGD([parameter], 0.1)

                def update(p: Any, optimizer: Any = optimizer) -> None:
                    optimizer.step()
                    optimizer.zero_grad()

                parameter.register_post_accumulate_grad_hook(update)
            return model, lambda: model(x).square().mean().backward()

        self.check_whole(make)

    def test_gradients_that_are_dropped_at_the_end(self) -> None:
        def make() -> Tuple[Any, Callable[[], Any]]:
            import torch

            model = self.net()
            optimizer = torch.optim.AdamW(model.parameters())
            x = torch.randn(8, 64, generator=torch.Generator().manual_seed(1))

            def step() -> None:
                model(x).square().mean().backward()
                optimizer.step()
                optimizer.zero_grad()

            return model, step

        self.check_whole(make)

    def test_a_step_that_swallows_everything_counts_no_step_too_many(self) -> None:
        for operations in range(12, 30):
            model = self.net()
            step, _ = self.step_of(model)

            def swallows() -> None:
                try:
                    step()
                except BaseException:
                    pass

            report = self.fill(Always(operations), model, swallows, warmup=1)
            plain = self.net()
            again, _ = self.step_of(plain)
            for _ in range(report.steps):
                again()
            self.same(model, plain)

    def test_what_is_kept_of_a_model_works_when_the_filling_is_over(self) -> None:
        import torch
        from torch import nn

        class Learned(nn.Module):
            """Returns a parameter as it is."""

            def __init__(self) -> None:
                super().__init__()
                self.weight = nn.Parameter(torch.ones(8, 128))

            def forward(self) -> Any:
                """The weight."""
                return self.weight

        torch.manual_seed(3)
        learned, model = Learned(), nn.ModuleDict({"a": nn.Linear(64, 128), "b": Learned()})
        model["b"] = learned
        kept: List[Any] = []
        asked: List[int] = []
        gate = Always()

        def step() -> None:
            before = len(gate.needs)
            model.zero_grad()
            x = torch.randn(8, 64)
            loss = (model["a"](x) * model["b"]()).mean()
            loss.backward(retain_graph=True)
            kept[:] = [loss, copy.deepcopy(model)]
            asked.append(len(gate.needs) - before)
            torch.save(model["a"], self.folder / "inside.pt")

        self.fill(gate, model, step, steps=60)
        self.assertEqual(len(set(asked[10:])), 1, asked)
        kept[0].backward()
        kept[1]["a"](torch.randn(8, 64)).mean().backward()
        torch.save(kept[1]["a"], self.folder / "kept.pt")
        inside = torch.load(self.folder / "inside.pt", weights_only=False)
        self.assertEqual(inside(torch.randn(8, 64)).shape, (8, 128))
        self.assertFalse(learned.weight._backward_hooks)

    def test_children_of_the_step(self) -> None:
        model = self.net()
        step, _ = self.step_of(model)
        ended: List[Optional[int]] = []

        def with_child() -> None:
            child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,))
            child.start()
            child.terminate()
            child.join(20)
            ended.append(child.exitcode)
            step()

        self.fill(Always(), model, with_child, warmup=1, steps=3)
        self.assertEqual(ended, [-signal.SIGTERM] * 3)

    def test_a_loaders_worker_may_call_the_model(self) -> None:
        import torch

        model = self.net()
        step, _ = self.step_of(model)

        class Data(torch.utils.data.Dataset[Any]):
            """Features by the model itself."""

            def __len__(self) -> int:
                return 4

            def __getitem__(self, index: int) -> Any:
                torch.set_num_threads(1)
                with torch.no_grad():
                    return model(torch.full((64,), float(index)))

        def loads() -> None:
            loader = torch.utils.data.DataLoader(Data(), num_workers=1, multiprocessing_context="fork")
            self.assertEqual(len(list(loader)), 4)
            step()

        self.assertEqual(self.fill(Always(), model, loads, warmup=1, steps=4).steps, 4)

    def test_what_it_waits_for_is_asked_for(self) -> None:
        model = self.net()
        step, _ = self.step_of(model)
        gate = Always()

        def waits() -> None:
            time.sleep(0.004)
            step()

        self.fill(gate, model, waits, warmup=3, steps=9)
        self.assertGreater(max(gate.needs), 3 * MS)

    def test_script_modules_are_cut_around(self) -> None:
        import torch

        model = self.net()
        model[2] = torch.jit.script(model[2])
        report = self.fill(Always(), model, steps=8)
        labels = [segment.label for segment in report.segments]
        self.assertIn("forward of 3", labels)
        self.assertFalse(any("of 2" in label for label in labels), labels)


class Saved(Base):
    """What was learned is saved whatever ends it, and what is in the way is told."""

    def test_an_error_and_a_bubble_too_short_save_too(self) -> None:
        import torch

        class Short(Always):
            """Its bubbles become too short."""

            def go(self, need_ns: int = 0, timeout: Optional[float] = None) -> bool:
                """Until then as ever."""
                if not super().go(need_ns, timeout):
                    raise NeverFits(need_ns, 10)
                return True

        for kind in (NeverFits, StopIteration):
            path, calls = self.folder / f"{kind.__name__}.pt", [0]
            model = self.net()
            step, _ = self.step_of(model)

            def ends() -> None:
                calls[0] += 1
                if calls[0] == 12 and kind is StopIteration:
                    raise StopIteration
                step()

            with self.assertRaises(kind):
                self.fill(Short(100) if kind is NeverFits else Always(), model, ends, checkpoint=path)
            saved = torch.load(path, weights_only=True)
            plain = self.net()
            again, _ = self.step_of(plain)
            for _ in range(saved["steps"]):
                again()
            self.same(model, plain)
            self.assertGreater(saved["steps"], 9)

    def test_what_is_in_the_way_is_told_before_the_training(self) -> None:
        def never() -> None:
            raise AssertionError("it trained")

        for path, text in (
            (self.folder / "none" / "x.pt", "no checkpoint can be written to .*none/x.pt: No such file or directory; "),
            (self.folder, "the checkpoint .* is a folder or a device; give the path of a file"),
            (Path("/dev/full"), "the checkpoint /dev/full is a folder or a device; "),
        ):
            with self.assertRaisesRegex(SideError, text):
                self.fill(Always(), self.net(), never, checkpoint=path)
        self.assertEqual(list(self.folder.iterdir()), [])

    def test_a_disk_that_fills_up_is_told_in_one_line(self) -> None:
        import torch

        full = RuntimeError("[enforce fail at inline_container.cc:671] .\nunexpected pos 1536 vs 1430")
        path = self.folder / "x.pt"
        with mock.patch.object(torch, "save", side_effect=full), self.assertRaises(SideError) as told:
            self.fill(Always(20), self.net(), checkpoint=path)
        self.assertRegex(str(told.exception), "^the checkpoint .*x.pt could not be saved: .*; look whether its disk is full$")
        self.assertEqual(list(self.folder.iterdir()), [])

    def test_a_link_stays_one_and_a_signal_while_saving_waits(self) -> None:
        import torch

        target, link = self.folder / "real.pt", self.folder / "link.pt"
        link.symlink_to(target)
        save = torch.save

        def struck(*given: Any) -> None:
            os.kill(os.getpid(), signal.SIGTERM)
            save(*given)

        with mock.patch.object(torch, "save", struck):
            self.fill(Always(20), self.net(), checkpoint=link)
        self.assertTrue(link.is_symlink() and target.is_file())
        self.assertEqual(torch.load(target, weights_only=True)["optimizers"][0]["param_groups"][0]["lr"], 1e-3)

    def test_the_optimizers_that_are_named_are_saved_in_that_order(self) -> None:
        import torch

        model = self.net()
        rare = torch.optim.SGD(model.parameters(), lr=0.25)
        step, often = self.step_of(model)
        path = self.folder / "x.pt"
        self.fill(Always(), model, step, steps=8, optimizers=[rare, often], checkpoint=path)
        saved = torch.load(path, weights_only=True)["optimizers"]
        self.assertEqual([o["param_groups"][0]["lr"] for o in saved], [0.25, 1e-3])

    def test_optimizers_made_in_the_step_are_not_kept(self) -> None:
        import torch

        model, path = self.net(), self.folder / "x.pt"

        def step() -> None:
            optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
            model(torch.zeros(1, 64)).mean().backward()
            optimizer.step()

        self.fill(Always(), model, step, steps=50, checkpoint=path)
        self.assertLessEqual(len(torch.load(path, weights_only=True)["optimizers"]), 1)

    def test_a_training_is_not_written_over_and_gone_on_from(self) -> None:
        import torch

        path = self.folder / "x.pt"
        model = self.net()
        step, optimizer = self.step_of(model)
        # Nothing is there yet.
        first = self.fill(Always(80), model, step, optimizers=[optimizer], checkpoint=path, resume=True)
        with self.assertRaisesRegex(SideError, "is there, and a new training does not write over it; give resume=True"):
            self.fill(Always(), self.net(), checkpoint=path)
        again = self.net()
        step, optimizer = self.step_of(again)
        with self.assertRaisesRegex(SideError, "has the states of 1 optimizers, and 0 were given; give all of them"):
            self.fill(Always(), again, step, checkpoint=path, resume=True)
        report = self.fill(Always(), again, step, optimizers=[optimizer], checkpoint=path, resume=True, steps=40)
        self.assertEqual((report.resumed_at, report.steps), (first.steps, 40))
        plain = self.net()
        step, _ = self.step_of(plain)
        for _ in range(40):
            step()
        self.same(again, plain)
        self.assertEqual(torch.load(path, weights_only=True)["steps"], 40)
        with self.assertRaisesRegex(SideError, "is of another model: .*; give the model that it was saved of"):
            other = torch.nn.Linear(2, 2)
            step, optimizer = self.step_of(other)
            self.fill(Always(), other, step, optimizers=[optimizer], checkpoint=path, resume=True)
        path.write_bytes(b"nothing")
        with self.assertRaisesRegex(SideError, "is no checkpoint of a side: .*; give the file that fill saved"):
            self.fill(Always(), again, step, optimizers=[optimizer], checkpoint=path, resume=True)

    def test_a_compiled_model_is_saved_as_it_is_loaded(self) -> None:
        import torch

        model, path = torch.compile(self.net(), backend="eager"), self.folder / "x.pt"
        step, _ = self.step_of(model)
        self.fill(Always(), model, step, steps=8, checkpoint=path)
        torch.compile(self.net(), backend="eager").load_state_dict(torch.load(path, weights_only=True)["model"])


class Starting(Base):
    """What a side waits for before it begins."""

    def test_no_step_too_many(self) -> None:
        for steps in (0, 2, 5, 8):
            self.assertEqual(self.fill(Always(), self.net(), steps=steps).steps, steps)
        with self.assertRaisesRegex(ValueError, "steps=-3: give a number from 0"):
            self.fill(Always(), self.net(), steps=-3)

    def test_the_hooks_own_path_is_refused(self) -> None:
        with self.assertRaisesRegex(SideError, "is what the hook is given; give the path of one rank's gate"):
            self.fill("/dev/shm/stage-{rank}", self.net())

    def test_a_gate_that_nobody_makes_is_told(self) -> None:
        with self.assertRaisesRegex(SideError, "^no main made a gate at .*/gate within 0.1 s; start the big model"):
            self.fill(self.folder / "gate", self.net(), timeout=0.1)
        with self.assertRaisesRegex(SideError, "^there is no folder for the gate .*/none/gate; check the path$"):
            self.fill(self.folder / "none" / "gate", self.net())
        with self.assertRaisesRegex(TypeError, "cannot be called: give the training step as a function, then the gate"):
            fill(cast(Any, "/dev/shm/x"), cast(Any, self.net()), nice=None)

    def test_a_page_that_a_killed_main_has_left_is_waited_at(self) -> None:
        path = self.folder / "gate"
        code = "import sys, os; from bubblebench.gate import Main; main = Main(sys.argv[1]); os._exit(0)"
        subprocess.run([sys.executable, "-c", code, str(path)], check=True)
        self.assertTrue(path.exists())
        found: List[FillReport] = []
        with mock.patch("sys.stderr", io.StringIO()) as told:
            thread = threading.Thread(target=lambda: found.append(self.fill(path, self.net())))
            thread.start()
            time.sleep(1.5)
            self.assertTrue(thread.is_alive())
            with Main(path) as main:
                while main.side_pid is None:
                    time.sleep(0.001)
            thread.join(30)
        self.assertEqual([report.stopped_by for report in found], ["shut_down"])
        self.assertIn("there is no gate of a living main yet: it is waited for", told.getvalue())

    def test_a_signal_ends_the_waiting_for_a_gate(self) -> None:
        timer = threading.Timer(0.3, lambda: os.kill(os.getpid(), signal.SIGTERM))
        timer.start()
        report = self.fill(self.folder / "none", self.net())
        timer.join()
        self.assertEqual((report.stopped_by, report.steps), ("SIGTERM", 0))


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
