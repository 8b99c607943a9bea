"""Ends in other containers, in children of fork, and under signals."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import threading
import time
import unittest.mock
from typing import Any, Callable, List

from bubblebench import gate
from bubblebench.gate import ends, lock

from .gates import LONG_NS, LONG_S, MAIN, SIDE, GateCase, died, one_bubble


class Containers(GateCase):
    """Ends in namespaces of their own, where neither can ask whether the other lives."""

    def within(self, *arguments: str) -> List[str]:
        """What starts a program there; the test is skipped where this user may not."""
        command = ["unshare", "--user", "--map-root-user", *arguments, "--fork", "--kill-child"]
        try:
            allowed = subprocess.run([*command, "true"], capture_output=True, check=False).returncode == 0
        except OSError:
            allowed = False
        if not allowed:
            self.skipTest(f"{' '.join(command)} is not allowed here")
        return command

    def test_a_side_killed_in_another_container_is_replaced(self) -> None:
        within = self.within("--pid")
        with gate.Main(self.path) as main:
            first = self.start(SIDE, within=within)
            one_bubble(self, main)
            main.open(LONG_NS)
            first.send_signal(signal.SIGKILL)
            main.close()
            with gate.Side(self.path) as second:
                main.open(LONG_NS)
                self.assertTrue(second.go(timeout=LONG_S))

    def test_the_end_of_a_main_in_another_container_is_noticed(self) -> None:
        main = self.start(MAIN, within=self.within("--pid"))
        self.assertEqual(self.first_line(main), "ready")
        with gate.Side(self.path) as side:
            with self.assertRaises(TimeoutError):
                side.go(timeout=0.1)
            self.assertIs(gate.status(self.path)["main_alive"], True, "its lock tells")
            main.send_signal(signal.SIGKILL)
            self.assertEqual((side.go(timeout=LONG_S), side.ended), (False, "main_gone"))

    def test_a_side_with_another_clock_is_refused(self) -> None:
        text = "try: gate.Side(path)\nexcept gate.GateError as e: print('time namespace' in str(e))"
        within = self.within("--time")
        with gate.Main(self.path):
            self.assertEqual(self.output(self.start(text, within=within)), ["True"])

    def test_a_main_with_another_clock_lives_for_all(self) -> None:
        """The start of a process is told by the clock of who asks."""
        within = self.within("--time", "--boottime", "100000")
        text = """
for ask in (gate.Main, gate.status):
    try:
        ask(path)
        print("let in")
    except gate.GateError as error:
        words = ("already has a main program (process ", "time namespace: its clock is not this one's; look from within")
        print(*(word in str(error) for word in words), "started" in str(error), "\\n" in str(error))
"""
        told = "True False False False False True False False".split()
        main = gate.Main(self.path)
        self.assertEqual(self.output(self.start(text, within=within)), told)
        self.assertTrue(os.path.exists(self.path))
        main._leave()
        # The other way round, and the one there sees itself.
        there = self.start(MAIN.replace("print(", "assert gate.status(path)['main_alive']; print("), within=within)
        self.assertEqual(self.first_line(there), "ready")
        self.assertEqual(self.output(self.start(text)), told)
        there.kill()
        there.wait()
        self.eventually("its end", self.takes_over)

    def takes_over(self) -> bool:
        """Whether a main may take the page over by now: what ``unshare`` started ends behind it."""
        try:
            gate.Main(self.path).shut_down()
        except gate.GateError:
            return False
        return True


class Signals(GateCase):
    """Signals that come while a side waits."""

    def setUp(self) -> None:
        super().setUp()
        self.addCleanup(signal.signal, signal.SIGALRM, signal.getsignal(signal.SIGALRM))
        self.addCleanup(signal.setitimer, signal.ITIMER_REAL, 0)

    def test_ctrl_c_leaves_the_page_sane(self) -> None:
        def interrupt(*_: Any) -> None:
            raise KeyboardInterrupt

        signal.signal(signal.SIGALRM, interrupt)
        with gate.Main(self.path) as main, gate.Side(self.path) as side:
            for number in range(30):
                signal.setitimer(signal.ITIMER_REAL, 0.001 + number * 1e-4)
                with self.assertRaises(KeyboardInterrupt):
                    side.go(timeout=LONG_S)
                self.assertEqual(main._words.asleep, 0)
            main.open(LONG_NS)
            self.assertTrue(side.go(timeout=0))
            main.close()
            with self.assertRaises(TimeoutError):
                side.go(timeout=0)
            self.assertIsNotNone(main.stopped())

    def test_another_signal_is_only_one_look_more(self) -> None:
        came: List[int] = []
        signal.signal(signal.SIGALRM, lambda number, _: came.append(number))
        with gate.Main(self.path), gate.Side(self.path) as side:
            signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
            begun = time.monotonic()
            with self.assertRaises(TimeoutError):
                side.go(timeout=0.05)
            self.assertGreaterEqual(time.monotonic() - begun, 0.05)
        self.assertGreater(len(came), 3)


def _worker(number: int) -> int:
    return number * number


_mains: List[gate.Main] = []


def _global_main(path: str) -> None:
    _mains.append(gate.Main(path))


class Forks(GateCase):
    """A child of ``fork`` has copies of its parent's ends, which do nothing."""

    def test_a_childs_ends_touch_nothing(self) -> None:
        with gate.Main(self.path) as main, gate.Side(self.path) as side:
            main.open(LONG_NS)
            self.assertTrue(side.go())
            before = bytes(main._words)[:512]
            child = os.fork()
            if child == 0:
                os._exit(self.in_child(main, side))
            self.assertEqual(died(os.waitpid(child, 0)[1]), 0)
            self.assertEqual(bytes(main._words)[:512], before)
            self.assertTrue(os.path.exists(self.path))
            self.assertTrue(side.go())
            side.done()

    def in_child(self, main: gate.Main, side: gate.Side) -> int:
        """The number of the first thing that is not as it should be."""
        main.open(5)
        main.close()
        main.shut_down()
        main.beat()
        main.set_grace(7)
        main.set_margin(7)
        main.hand_to_device()
        calls: List[Callable[[], object]] = [side.go, side.done, side.go]
        for number, call in enumerate(calls, 1):
            try:
                call()
                return number
            except gate.LeaseLost:
                pass
        side.close()
        main.__exit__(None, None, None)
        main.__del__()
        side.__del__()
        return 10 * (main._fd >= 0 or side._fd >= 0)

    def test_children_that_end_in_every_way_leave_the_gate_alone(self) -> None:
        text = """
main = gate.Main(path); side = gate.Side(path); main.open(10**12); side.go()
if os.fork() == 0:
    sys.exit(0)
os.wait()
print(gate.status(path)["state"], side.go(timeout=1), os.path.exists(path))
"""
        self.assertEqual(self.output(self.start(text)), ["running", "True", "True"])

    def test_workers_of_a_pool_do_not_shut_the_gate_down(self) -> None:
        with gate.Main(self.path) as main, gate.Side(self.path) as side:
            main.open(LONG_NS)
            with multiprocessing.get_context("fork").Pool(2) as pool:
                self.assertEqual(pool.map(_worker, range(4)), [0, 1, 4, 9])
                pool.close()
                pool.join()
            self.assertTrue(side.go())
            self.assertEqual(gate.status(self.path)["state"], "running")

    def test_a_child_that_is_made_while_another_thread_makes_an_end_holds_no_lock(self) -> None:
        for name in ("try_lock", "lock_within"):
            children: List[int] = []
            files: List[int] = []

            def forks(*asked: Any, call: Callable[..., Any] = getattr(lock, name)) -> Any:
                got = call(*asked)
                if not children:
                    files.append(asked[0])
                    # Another thread: in its child nobody goes on with what this one does.
                    forker = threading.Thread(target=self.fork_into, args=(children,))
                    forker.start()
                    forker.join(LONG_S)
                return got

            main = gate.Main(self.path) if name == "lock_within" else None
            end: ends.End
            try:
                with unittest.mock.patch.object(lock, name, forks):
                    end = gate.Main(self.path) if main is None else gate.Side(self.path)
                self.assertEqual(files, [end._fd])
                of_child = f"/proc/{children[0]}/fd/{end._fd}"
                self.eventually("the end of the child's file", lambda: not os.path.lexists(of_child))
                if main is None:
                    # As where it is killed: nobody gives the lock back but the system.
                    end._close_file()
                    fd = os.open(self.path, os.O_RDWR)
                    self.addCleanup(os.close, fd)
                    self.assertIs(lock.is_held(fd, lock.MAIN), False)
            finally:
                for child in children:
                    os.kill(child, signal.SIGKILL)
                    os.waitpid(child, 0)

    def fork_into(self, children: List[int]) -> None:
        """A child that lives until it is killed."""
        child = os.fork()
        if child == 0:
            time.sleep(60)
            os._exit(0)
        children.append(child)

    def test_no_other_thread_forks_between_a_file_and_its_being_known(self) -> None:
        with ends.unforked:
            children: List[int] = []
            forker = threading.Thread(target=self.fork_into, args=(children,))
            forker.start()
            forker.join(0.05)
            self.assertEqual(children, [])
        forker.join(LONG_S)
        self.assertEqual(len(children), 1)
        os.kill(children[0], signal.SIGKILL)
        os.waitpid(children[0], 0)
        # In a child any thread may make ends of its own.
        child = os.fork()
        if child == 0:
            made: List[gate.Main] = []
            maker = threading.Thread(target=lambda: made.append(gate.Main(self.path)))
            maker.start()
            maker.join(LONG_S)
            os._exit(1 - len(made))
        self.assertEqual(died(os.waitpid(child, 0)[1]), 0)

    def test_a_main_of_a_workers_that_ends_without_atexit_is_taken_over(self) -> None:
        for method in ("fork", "forkserver"):
            with self.subTest(method=method):
                context: Any = multiprocessing.get_context(method)
                worker = context.Process(target=_global_main, args=(self.path,))
                worker.start()
                worker.join(LONG_S)
                self.assertEqual(worker.exitcode, 0)
                self.assertTrue(os.path.exists(self.path), "nobody has left it")
                gate.Main(self.path).shut_down()

    def test_a_main_that_sigterm_ends_is_taken_over(self) -> None:
        main = self.start(MAIN)
        self.assertEqual(self.first_line(main), "ready")
        with gate.Side(self.path) as side:
            main.terminate()
            self.assertEqual((side.go(timeout=LONG_S), side.ended), (False, "main_gone"))
        self.assertTrue(os.path.exists(self.path), "nobody has left it")
        gate.Main(self.path).shut_down()

    def test_the_locks_end_with_the_parent_though_a_child_lives_on(self) -> None:
        text = """
main = gate.Main(path)
child = os.fork()
if child == 0:
    time.sleep(60)
    os._exit(0)
print(child, flush=True)
time.sleep(60)
"""
        parent = self.start(text)
        child = int(self.first_line(parent))
        try:
            fd = os.open(self.path, os.O_RDWR)
            self.addCleanup(os.close, fd)
            self.assertTrue(lock.is_held(fd, lock.MAIN))
            parent.send_signal(signal.SIGKILL)
            parent.wait()
            # The child may not have come to it yet.
            self.eventually("the end of the lock", lambda: lock.is_held(fd, lock.MAIN) is False)
            os.kill(child, 0)
        finally:
            os.kill(child, signal.SIGKILL)
