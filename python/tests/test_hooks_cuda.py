"""Hooks where waits only order a stream: with a stream, a driver and a framework of these tests, and a real gate."""

from __future__ import annotations

import contextlib
import ctypes
import queue
import shutil
import subprocess
import tempfile
import threading
import time
import types
import unittest
import warnings
from pathlib import Path
from typing import Any, Callable, Iterator, List, Optional, Tuple
from unittest import mock

from bubblebench.gate import Main, status
from bubblebench.hooks import Hook, HookError
from bubblebench.hooks.cuda import CudaDriver, DeviceLine, drives_streams
from bubblebench.hooks.learning import Settings
from bubblebench.hooks.patch import Patches

from .gates import Start, WatchedSide, latest_close_ns

MS = 1_000_000
#: Between the host's addresses and those of the driver of these tests.
APART = 1 << 50


class Mark:
    """When a stream came to it."""

    ns: Optional[int] = None


class Stream:
    """Does one after the other what it is given, in a thread of its own: the host goes on."""

    def __init__(self) -> None:
        self._given: "queue.Queue[Optional[Callable[[], None]]]" = queue.Queue()
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()
        self.records = False

    def _work(self) -> None:
        while True:
            call = self._given.get()
            if call is None:
                return
            call()
            self._given.task_done()

    def give(self, call: Callable[[], None]) -> None:
        """Behind all that was given before."""
        self._given.put(call)

    def end(self) -> None:
        """Ends the thread."""
        self._given.put(None)
        self._thread.join()

    def mark(self) -> Mark:
        """A mark."""
        mark = Mark()
        self.give(lambda: setattr(mark, "ns", time.monotonic_ns()))
        return mark

    def is_over(self, mark: Mark) -> bool:
        """Whether it came to it."""
        return mark.ns is not None

    def between_ns(self, first: Mark, second: Mark) -> int:
        """Of marks that are over."""
        assert first.ns is not None and second.ns is not None
        return second.ns - first.ns

    def synchronize(self) -> None:
        """Waits for all."""
        self._given.join()

    def handle(self) -> int:
        """Its name."""
        return 7

    def is_recorded(self) -> bool:
        """Into a graph."""
        return self.records


class Driver:
    """Writes where the stream comes to it."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.registered: List[int] = []
        self.written: List[Tuple[int, int]] = []

    def register(self, address: int, size: int) -> int:
        """A page."""
        assert address % 4096 == 0 and size == 4096
        self.registered.append(address)
        return address + APART

    def unregister(self, address: int) -> None:
        """No write may come behind."""
        self.stream.synchronize()
        self.registered.remove(address)

    def write(self, stream: int, pointer: int, value: int) -> None:
        """A word."""
        assert stream == 7

        def store() -> None:
            assert self.registered, "written to a page that was given back"
            self.written.append(((pointer - APART) % 4096 - 1024, value))
            ctypes.c_uint32.from_address(pointer - APART).value = value

        self.stream.give(store)


class Base(unittest.TestCase):
    """A framework whose host runs ahead of its stream."""

    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.path = Path(folder.name) / "gate"
        self.stream = Stream()
        self.addCleanup(self.stream.end)
        self.driver = Driver(self.stream)
        self.lengths = [0.006, 0.0002]
        self.inside: Callable[[], None] = lambda: None
        self.module = types.SimpleNamespace(wait=self._wait, step=self._step, __name__="framework")

    def _wait(self, seconds: float) -> None:
        self.inside()
        self.stream.give(lambda: time.sleep(seconds))

    def _step(self) -> None:
        for seconds in self.lengths:
            self.module.wait(seconds)
            self.stream.give(lambda: time.sleep(0.002))

    @contextlib.contextmanager
    def hook(self, gate: Any, kind: str = "cuda") -> Iterator[Hook]:
        """The framework's hook, on the stream of these tests."""
        patches = Patches("framework 1.0")

        def wait(original: Callable[..., Any]) -> Callable[..., Any]:
            return lambda seconds: hook.wait("recv", original, seconds)

        def step(original: Callable[..., Any]) -> Callable[..., Any]:
            def run() -> None:
                hook.on_device(kind)
                hook.iterate("step", "step", original)

            return run

        patches.plan(self.module, "wait", ("seconds",), wait)
        patches.plan(self.module, "step", (), step)
        with mock.patch("bubblebench.hooks.hook.CurrentStream", lambda: self.stream):
            with mock.patch("bubblebench.hooks.hook.CudaDriver", lambda: self.driver):
                hook = Hook(patches, gate, Settings(learn=3), 100)
                with hook:
                    yield hook

    def steps(self, count: int) -> None:
        """Steps that the stream has done."""
        for _ in range(count):
            self.module.step()
            self.stream.synchronize()


class Streams(Base):
    """What opens when, and what is learned."""

    def test_the_host_never_waits_and_lengths_are_the_streams(self) -> None:
        with self.hook(None) as hook:
            self.steps(1)
            # The stream stands still meanwhile.
            goes_on = threading.Event()

            def stand_still() -> None:
                goes_on.wait(30)

            self.stream.give(stand_still)
            for _ in range(20):
                self.module.step()
            self.assertEqual(len(hook.iterations()), 1, "what the stream has not come to is not known")
            goes_on.set()
            self.stream.synchronize()
            rows, iterations = hook.bubbles(), hook.iterations()
        self.assertEqual(([row.count for row in rows], len(iterations)), ([21, 21], 21))
        self.assertGreaterEqual(rows[0].median_ns, 6 * MS)
        for before, after in zip(iterations, iterations[1:]):
            self.assertLessEqual(before.end_ns, after.start_ns)
            self.assertTrue(after.start_ns <= after.waits[0][1] < after.waits[0][2] < after.waits[1][1] <= after.end_ns)
        self.assertLessEqual(abs(iterations[-1].end_ns - time.monotonic_ns()), 10_000 * MS)

    def test_the_stream_opens_data_first_and_closes(self) -> None:
        with self.hook(self.path) as hook:
            self.steps(5)
            expected = [opening.expected_close_ns - opening.opened_ns for opening in hook.openings()]
            seen = status(self.path)
            self.assertEqual((seen["by_device"], seen["open"], seen["openings"]), (True, False, 2))
            self.assertEqual(hook.bubbles()[0].opened, 2)
        self.assertEqual(len(expected), 2)
        wanted: List[Tuple[int, int]] = []
        for number, length in enumerate(expected):
            wanted += [(4, number + 1), (8, length // 1000), (16, number + 1), (0, 1), (0, 0)]
        # The last is the hook's own, as it is removed.
        self.assertEqual(self.driver.written, wanted + [(0, 0)])
        self.assertEqual(self.driver.registered, [])
        self.assertFalse(self.path.exists())

    def test_a_side_works_in_the_streams_openings_and_nowhere_else(self) -> None:
        starts: List[Start] = []

        def work() -> None:
            with WatchedSide(self.path) as side:
                side.ready()
                while side.go(200_000, timeout=30):
                    time.sleep(0.0001)
                    side.done()
                starts.extend(side.starts)

        with self.hook(self.path) as hook:
            # It is there before anybody knows that a device will open.
            thread = threading.Thread(target=work)
            thread.start()
            while status(self.path)["side_pid"] is None:
                time.sleep(0.001)
            for _ in range(40):
                self.module.step()
                if len(hook.iterations()) < 3:
                    self.stream.synchronize()
            self.stream.synchronize()
            openings = hook.openings()
        thread.join(30)
        self.assertFalse(thread.is_alive())
        self.assertGreater(len(openings), 30)
        self.assertGreater(len(starts), 0)
        for start in starts:
            # A device's openings are numbered one by one.
            self.assertIn(start.generation, range(1, len(openings) + 1))
            self.assertLessEqual(start.at_ns + start.need_ns, start.deadline_ns, start)
            self.assertLessEqual(start.deadline_ns, latest_close_ns(openings[start.generation - 1]), start)

    def test_an_exception_in_a_wait_closes_and_teaches_nothing(self) -> None:
        with self.hook(self.path) as hook:
            self.steps(4)

            def fails() -> None:
                raise KeyboardInterrupt

            self.inside = fails
            with self.assertRaises(KeyboardInterrupt):
                self.module.step()
            self.stream.synchronize()
            self.assertEqual(self.driver.written[-2:], [(0, 1), (0, 0)])
            self.assertEqual(hook.bubbles()[0].count, 4)

    def test_what_goes_into_a_graph_is_let_through(self) -> None:
        with self.hook(self.path) as hook:
            self.steps(4)
            written, self.stream.records = len(self.driver.written), True
            self.module.step()
            self.stream.records = False
            self.stream.synchronize()
            self.assertEqual((hook.bubbles()[0].count, len(self.driver.written)), (4, written))

    def test_a_stream_that_never_ends_keeps_its_page(self) -> None:
        stuck = threading.Event()
        with Main(self.path) as main:
            line = DeviceLine(main, self.driver, self.stream)
            line.open(5 * MS)
            self.stream.give(lambda: [stuck.wait()].clear())
            line.release(limit_s=0.05)
            self.assertEqual(len(self.driver.registered), 1)
            stuck.set()
            self.stream.synchronize()

    def test_a_driver_that_cannot_leaves_the_gate_closed_and_says_so_once(self) -> None:
        with mock.patch.object(self.driver, "register", side_effect=HookError("cuMemHostRegister_v2 said NO (801)", "x")):
            with warnings.catch_warnings(record=True) as caught, self.hook(self.path) as hook:
                warnings.simplefilter("always")
                self.steps(6)
                self.assertEqual((hook.bubbles()[0].count, hook.bubbles()[0].opened), (6, 0))
        self.assertEqual([str(w.message) for w in caught], ["the gate is left closed from now on: cuMemHostRegister_v2 said NO (801); x"])

    def test_whatever_the_stream_says_the_main_goes_on(self) -> None:
        names = ("synchronize", "is_over", "between_ns", "mark", "is_recorded", "handle")
        for name in names:
            for call in (1, 2, 5, 30):
                count = [0]
                original = getattr(self.stream, name)

                def fails(*given: Any) -> Any:
                    count[0] += 1
                    if count[0] >= call:
                        raise RuntimeError("CUDA error")
                    return original(*given)

                with self.subTest(name, call=call), warnings.catch_warnings(record=True) as caught:
                    warnings.simplefilter("always")
                    ran: List[None] = []
                    self.inside = lambda: ran.append(None)
                    with self.hook(self.path) as hook, mock.patch.object(self.stream, name, fails):
                        for _ in range(8):
                            self.module.step()
                            time.sleep(0.012)
                        hook.bubbles()
                    self.assertEqual(len(ran), 16)
                    # The gate first, then the hook: each at most once.
                    texts = [str(w.message) for w in caught]
                    self.assertEqual(len(set(texts)), len(texts), texts)
                    self.stream.synchronize()
                    self.driver.registered.clear()

    def test_other_devices_are_told_once_and_let_through(self) -> None:
        with warnings.catch_warnings(record=True) as caught, self.hook(self.path, kind="xpu") as hook:
            warnings.simplefilter("always")
            self.steps(6)
            self.assertEqual((hook.bubbles(), self.driver.written), ([], []))
        self.assertEqual(len(caught), 1)
        self.assertIn("framework 1.0 on xpu: there no bubble can be seen", str(caught[0].message))


STUB = r"""
#include <stdint.h>
#include <stdio.h>
static int fails;
int cuStubFails(int what) { fails = what; return 0; }
int cuMemHostRegister_v2(void *p, size_t bytes, unsigned flags) {
    return fails == 1 ? 801 : (((uintptr_t)p & 4095) || bytes != 4096 || flags != 3) ? 1 : 0;
}
int cuMemHostGetDevicePointer_v2(uint64_t *out, void *p, unsigned flags) { *out = (uint64_t)p; return fails == 2 ? 700 : flags; }
int cuMemHostUnregister(void *p) { return ((uintptr_t)p & 4095) ? 1 : 0; }
int WRITE(void *stream, uint64_t where, uint32_t value, unsigned flags) {
    if ((uintptr_t)stream != 0x7fff12345678 || flags) return 1;
    *(volatile uint32_t *)where = value;
    return 0;
}
int cuGetErrorName(int code, const char **out) { *out = code == 801 ? "CUDA_ERROR_NOT_SUPPORTED" : 0; return 0; }
"""


class Library(Base):
    """The driver's library by its own calling convention: one that was compiled for this."""

    def setUp(self) -> None:
        super().setUp()
        if shutil.which("cc") is None:
            self.skipTest("there is no C compiler")

    def compiled(self, write: str) -> str:
        """A library with this name for the write."""
        source = self.path.with_name(f"{write}.c")
        source.write_text(STUB.replace("WRITE", write))
        library = source.with_suffix(".so")
        subprocess.run(["cc", "-shared", "-fPIC", "-o", str(library), str(source)], check=True)
        return str(library)

    def test_its_entries_are_called_as_they_are_declared(self) -> None:
        stream = types.SimpleNamespace(handle=lambda: 0x7FFF12345678, mark=Mark, is_over=lambda _: True)
        for write in ("cuStreamWriteValue32_v2", "cuStreamWriteValue32"):
            with Main(self.path) as main:
                line = DeviceLine(main, CudaDriver(self.compiled(write)), stream)
                line.open(5_000_999)
                with open(self.path, "rb") as file:
                    words = memoryview(file.read())[1024:1044].cast("I")
                self.assertEqual(list(words), [1, 1, 5000, 0, 1])
                line.open(2**63)
                line.close()
                self.assertFalse(status(self.path)["open"])
                with open(self.path, "rb") as file:
                    self.assertEqual(list(memoryview(file.read())[1024:1044].cast("I")), [0, 2, 2**32 - 1, 0, 2])
                line.release()

    def test_what_it_refuses_is_told_in_one_line(self) -> None:
        library = self.compiled("cuStreamWriteValue32_v2")
        driver = CudaDriver(library)
        fails = ctypes.CDLL(library).cuStubFails
        for what, text in ((1, r"cuMemHostRegister_v2 said CUDA_ERROR_NOT_SUPPORTED \(801\); "), (2, r"said \? \(700\); ")):
            fails(what)
            with Main(self.path) as main, self.assertRaisesRegex(HookError, text):
                DeviceLine(main, driver, self.stream)
        fails(0)
        with self.assertRaisesRegex(HookError, "the CUDA driver cannot be loaded: .*libnone.so"):
            CudaDriver("libnone.so.1")
        with self.assertRaisesRegex(HookError, "has no cuStreamWriteValue32_v2; use a driver with stream memory operations"):
            CudaDriver(self.compiled("cuStreamWriteValue64"))


class Groups(unittest.TestCase):
    """Which groups order streams."""

    def test_those_of_nccl_on_a_gpu_do(self) -> None:
        def group(backend: str, initialized: bool = True) -> Any:
            return types.SimpleNamespace(
                is_available=lambda: True, is_initialized=lambda: initialized, get_backend=lambda: backend
            )

        for gpu, found in ((True, [True, True, False, False]), (False, [False] * 4)):
            torch = types.SimpleNamespace(cuda=types.SimpleNamespace(is_available=lambda gpu=gpu: gpu))
            with mock.patch.dict("sys.modules", {"torch": torch}):
                groups = [group("nccl"), group("cpu:gloo,cuda:nccl"), group("gloo"), group("nccl", False)]
                self.assertEqual([drives_streams(each) for each in groups], found)


if __name__ == "__main__":
    unittest.main()
