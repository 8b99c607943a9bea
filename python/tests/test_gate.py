"""Mains and sides at a gate: who may start when, who is refused, and what becomes of those that die."""

from __future__ import annotations

import gc
import json
import multiprocessing
import os
import resource
import signal
import struct
import subprocess
import threading
import time
import unittest
import unittest.mock
from pathlib import Path
from typing import Any, Callable, List

from bubblebench import gate
from bubblebench.gate import lock, page, system
from bubblebench.gate.process import Life, ProcessId, parse_stat

from . import program
from .gates import LONG_NS, LONG_S, MAIN, SIDE, GateCase, died, told

#: Descriptors of this process, to see that none is left behind.
OPEN_FILES = Path("/proc/self/fd")


def one_bubble(case: GateCase, main: gate.Main) -> None:
    """Opens until the side has done something, closes, and sees it stand still."""
    before = main.operations
    main.open(LONG_NS)
    case.eventually("work", lambda: main.operations > before + 2)
    main.close()
    case.assertIsNotNone(main.wait_stopped(LONG_S))
    at = main.operations
    time.sleep(0.001)
    case.assertEqual(main.operations, at, "an acknowledged side stands still")


class Bubbles(GateCase):
    """What the gate is for."""

    def test_a_bubble_that_is_never_closed_is_not_overrun(self) -> None:
        need_ns, starts = 1_000_000, 0
        with gate.Main(self.path) as main, gate.Side(self.path) as side:
            clock: List[int] = [0]

            def now() -> int:
                clock[0] = time.monotonic_ns()
                return clock[0]

            side._page.now = now
            for _ in range(10):
                main.open(5_000_000)
                close = side.expected_close
                self.assertEqual(close, main.opened_at + 5_000_000)
                while True:
                    try:
                        self.assertTrue(side.go(need_ns, timeout=0.006))
                    except TimeoutError:
                        break
                    # By the clock that decided it: what others take of this core behind that is not the gate's.
                    self.assertLessEqual(clock[0] + need_ns + gate.MARGIN_NS, close)
                    starts += 1
                    time.sleep(0.0005)
                    side.done()
                self.assertEqual(side.expected_close, close, "it is still open")
                main.close()
                self.assertEqual(main.stopped(), 0, "it stood still before the closing")
            self.assertGreater(starts, 0)
            self.assertEqual((main.operations, side.operations, main.self_stops), (starts, starts, 10))

    def test_the_grace_of_a_guessed_opening_is_used(self) -> None:
        with gate.Main(self.path) as main, gate.Side(self.path) as side:
            main.set_grace(LONG_NS)
            main.set_margin(0)
            main.open(0)
            self.assertTrue(side.go(1_000_000))
            main.close()
            main.set_grace(0)
            main.open(0)
            with self.assertRaises(TimeoutError):
                side.go(1_000_000, timeout=0)

    def test_many_bubbles_without_a_missed_closing(self) -> None:
        main = gate.Main(self.path)
        side = self.start(SIDE)
        for _ in range(30):
            one_bubble(self, main)
        for _ in range(100):
            main.open(LONG_NS)
            main.close()
        self.assertIsNotNone(main.wait_stopped(LONG_S))
        self.assertEqual((main.openings, main.closings), (130, 130))
        self.assertEqual(main.side_pid, side.pid)
        main.shut_down()
        self.assertEqual(self.output(side), ["shut_down"])

    def test_what_the_main_is_told_of_an_opening(self) -> None:
        with gate.Main(self.path) as main, gate.Side(self.path) as side:
            self.assertEqual((main.stopped(), main.wait_stopped(0), main.side_pid), (None, None, None))
            main.open(LONG_NS, bubble=7)
            self.assertEqual((main._words.bubble, main.started_at, main.start_latency_ns), (7, None, None))
            self.assertTrue(side.go())
            self.assertEqual(main.side_pid, os.getpid())
            started = main.started_at
            assert started is not None
            self.assertGreaterEqual(started, main.opened_at)
            self.assertIsNone(main.stopped())
            side.done()
            main.close()
            self.assertIsNone(main.started_at)
            self.assertEqual(main.start_latency_ns, started - main.opened_at)
            with self.assertRaises(TimeoutError):
                main.wait_stopped(0.001)
            with self.assertRaises(TimeoutError):
                side.go(timeout=0)
            latency_ns = main.stopped()
            assert latency_ns is not None and main.work_ns is not None
            self.assertGreater(latency_ns, 0)
            self.assertGreaterEqual(main.work_ns, latency_ns)
            main.open(1_000)
            self.assertEqual(main._words.bubble, 8, "counted on from the number that was given")

    def test_an_operation_that_fits_no_opening_is_refused_with_both_numbers(self) -> None:
        with gate.Main(self.path) as main, gate.Side(self.path) as side:
            for number in range(64):
                main.open(1_000_000 + number)
                if number < 63:
                    with self.assertRaises(TimeoutError):
                        side.go(2_000_000, timeout=0)
                    main.close()
            with self.assertRaises(gate.NeverFits) as refused:
                side.go(2_000_000, timeout=0)
            longest_ns = 1_000_063 - gate.MARGIN_NS
            self.assertEqual((refused.exception.longest_ns, refused.exception.need_ns), (longest_ns, 2_000_000))
            self.assertIn("2000000 ns", str(refused.exception))
            self.assertIn(f"{longest_ns} ns", str(refused.exception))
            # It is no end: one that fits may start.
            main.open(LONG_NS)
            self.assertTrue(side.go(2_000_000))

    def test_openings_that_fit_in_between_begin_the_count_again(self) -> None:
        with gate.Main(self.path) as main, gate.Side(self.path) as side:
            for _ in range(3):
                for _ in range(63):
                    main.open(1_000_000)
                    with self.assertRaises(TimeoutError):
                        side.go(2_000_000, timeout=0)
                main.open(LONG_NS)
                self.assertTrue(side.go(2_000_000))
                side.done()

    def test_time_limits_are_kept(self) -> None:
        with gate.Main(self.path) as main, gate.Side(self.path) as side:
            for timeout in (0, 0.001, 0.02):
                begun = time.monotonic()
                with self.assertRaisesRegex(TimeoutError, "no operation of 5 ns may start"):
                    side.go(5, timeout=timeout)
                self.assertGreaterEqual(time.monotonic() - begun, timeout)
            self.assertEqual(main._words.asleep, 0)
            main.open(LONG_NS)
            self.assertTrue(side.go(timeout=0), "an open gate needs no time")

    def test_a_waiting_side_lets_other_threads_work_and_is_woken(self) -> None:
        main = gate.Main(self.path)
        answers: List[bool] = []

        def work() -> None:
            with gate.Side(self.path) as side:
                while side.go(timeout=LONG_S):
                    answers.append(True)
                    side.done()
                    time.sleep(0.001)
                answers.append(False)

        thread = threading.Thread(target=work)
        thread.start()
        self.eventually("sleep", lambda: main._words.asleep)
        main.open(LONG_NS)
        self.eventually("work", lambda: len(answers) > 2)
        main.shut_down()
        thread.join(LONG_S)
        self.assertEqual((thread.is_alive(), answers[-1]), (False, False))

    def test_a_device_opens_and_closes_on_its_line(self) -> None:
        with gate.Main(self.path) as main, gate.Side(self.path) as side:
            address = main.hand_to_device()
            self.assertEqual(address % 4096, 1024)
            words = main._words

            def opens(generation: int, expected_us: int) -> None:
                words.device_generation, words.device_expected_us, words.device_open = generation, expected_us, 1

            opens(1, 10**9)
            with self.assertRaises(TimeoutError):
                side.go(timeout=0)  # It was there at the first look: nobody knows since when.
            words.device_open = 0
            with self.assertRaises(TimeoutError):
                side.go(timeout=0.001)
            opens(2, 10**9)
            self.assertTrue(side.go(1_000_000, timeout=LONG_S))
            side.done()
            self.assertIsNone(main.stopped())
            words.device_open = 0
            self.assertIsNone(main.stopped(), "it has not looked")
            with self.assertRaises(TimeoutError):
                side.go(timeout=0)
            self.assertEqual(main.stopped(), 0)
            opens(3, 0)
            with self.assertRaises(TimeoutError):
                side.go(1_000_000, timeout=0)
            self.assertEqual(main.self_stops, 2)
            main.open(LONG_NS)
            with self.assertRaises(TimeoutError):
                side.go(1_000_000, timeout=0)
            main.shut_down()
            self.assertFalse(side.go())
            self.assertEqual(main.stopped(), 0)

    def test_a_machine_that_reorders_stores_gets_more_fences(self) -> None:
        self.addCleanup(setattr, system, "WEAK", system.WEAK)
        system.WEAK = True
        fences: List[int] = []
        with gate.Main(self.path) as main, gate.Side(self.path) as side:
            for end in (main, side):
                self.assertTrue(end._page.weak)
            before, main_page = main.operations, main._page
            self.addCleanup(setattr, system, "fence", system.fence)
            system.fence = lambda: fences.append(1)
            main.open(LONG_NS)
            self.assertEqual(len(fences), 2, "before the opening's words, and before the state")
            self.assertTrue(side.go())
            side.done()
            main.close()
            with self.assertRaises(TimeoutError):
                side.go(timeout=0)
            self.assertIsNotNone(main.stopped())
            self.assertEqual((main.operations, main_page.words.asleep), (before + 1, 0))
        self.assertGreater(len(fences), 8)

    def test_main_and_side_may_be_asked_from_several_threads(self) -> None:
        main = gate.Main(self.path)

        def work() -> None:
            for _ in range(300):
                main.open(1_000)

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual((main.openings, main._words.state), (1200, 1200 << 2 | 1))


class Ends(GateCase):
    """How mains and sides come and go."""

    def test_a_main_that_ends_tells_the_side_and_takes_its_file_along(self) -> None:
        for way in ("with", "del", "error", "shut_down"):
            with self.subTest(way=way):
                main = gate.Main(self.path)
                side = gate.Side(self.path)
                if way == "with":
                    with main:
                        main.open(LONG_NS)
                elif way == "del":
                    del main
                    gc.collect()
                elif way == "error":
                    with self.assertRaisesRegex(ValueError, "in the bubble"), main:
                        main.open(LONG_NS)
                        raise ValueError("in the bubble")
                else:
                    main.shut_down()
                self.assertEqual((side.go(), side.go(timeout=0), side.ended), (False, False, "shut_down"))
                self.assertEqual(os.path.exists(self.path), way == "shut_down")
                side.close()
                if way != "del":
                    self.assertEqual(main.stopped(), main.stopped())
                    before = bytes(main._words)
                    main.open(1)
                    main.close()
                    main.shut_down()
                    main.beat()
                    self.assertEqual(bytes(main._words)[:168], before[:168])
                    del main

    def test_a_program_that_ends_leaves_nothing_behind(self) -> None:
        self.output(self.start("main = gate.Main(path); main.open(10**9); side = gate.Side(path); side.go()"))
        self.assertEqual(os.listdir(self.folder), [])

    def test_no_descriptor_stays_open(self) -> None:
        before = len(list(OPEN_FILES.iterdir()))
        for _ in range(5):
            with gate.Main(self.path), gate.Side(self.path):
                with self.assertRaises(gate.GateError):
                    gate.Main(self.path)
                with self.assertRaises(gate.GateError):
                    gate.Side(self.path)
                gate.status(self.path)
        gc.collect()
        self.assertEqual(len(list(OPEN_FILES.iterdir())), before)

    def test_a_second_main_is_refused_in_this_process_and_in_another(self) -> None:
        with gate.Main(self.path):
            with self.assertRaises(gate.GateError) as refused:
                gate.Main(self.path)
            text = str(refused.exception)
            self.assertIn("already has a main program (process %d, started " % os.getpid(), text)
            self.assertEqual(len(text.splitlines()), 1)
            self.assertEqual(os.listdir(self.folder), ["gate"], "no temporary file stays")
            other = self.start(
                "try: gate.Main(path); print('let in')\nexcept gate.GateError as e: print(str(os.getppid()) in str(e))"
            )
            self.assertEqual(self.output(other), ["True"])
        gate.Main(self.path).shut_down()

    def test_of_many_that_create_at_once_one_is_the_main(self) -> None:
        for round_ in range(100):
            if round_ % 2:
                self.write_page(version=2, started=1)
            mains: List[Any] = []
            barrier = threading.Barrier(4)

            def make() -> None:
                barrier.wait()
                try:
                    mains.append(gate.Main(self.path))
                except gate.GateError:
                    pass

            threads = [threading.Thread(target=make) for _ in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            self.assertEqual(len(mains), 1)
            mains.pop()._leave()
            self.assertEqual(os.listdir(self.folder), [])

    def test_a_killed_main_ends_the_side_and_the_next_takes_the_path_over(self) -> None:
        for opens in (False, True):
            main = self.start(MAIN.replace("print(", f"main.open({10**9 * opens}); print("))
            self.assertEqual(self.first_line(main), "ready")
            with gate.Side(self.path) as side:
                main.send_signal(signal.SIGKILL)
                end = time.monotonic() + LONG_S
                while side.go(timeout=LONG_S):
                    side.done()
                    self.assertLess(time.monotonic(), end)
                self.assertEqual(side.ended, "main_gone")
            main.wait()
            self.assertTrue(os.path.exists(self.path), "a killed main cannot tidy up")
            with gate.Side(self.path) as late:
                self.assertEqual((late.go(), late.ended), (False, "main_gone"))
            with gate.Main(self.path):
                pass
            self.assertFalse(os.path.exists(self.path))

    def test_a_file_that_is_anothers_by_now_is_left_alone(self) -> None:
        with gate.Main(self.path):
            os.unlink(self.path)
            other = gate.Main(self.path)
        with gate.Side(self.path), other:
            self.assertTrue(os.path.exists(self.path))
        self.assertFalse(os.path.exists(self.path))

    def test_a_relative_path_holds_when_the_folder_changes(self) -> None:
        before = os.getcwd()
        self.addCleanup(os.chdir, before)
        os.chdir(self.folder)
        with gate.Main("gate"):
            os.chdir(before)
            self.assertTrue(os.path.exists(self.path))
        self.assertFalse(os.path.exists(self.path))

    def test_a_page_of_version_1_is_replaced_once_its_main_is_dead(self) -> None:
        own = ProcessId.own()
        self.write_page(version=1, started=own.started)
        with self.assertRaisesRegex(gate.GateError, "already has a main program"):
            gate.Main(self.path)
        self.write_page(version=1, started=own.started + 1)
        gate.Main(self.path).shut_down()

    def write_page(self, version: int, started: int) -> None:
        own = ProcessId.own()
        head = b"BBGATE01" + struct.pack("<IIQQQ", version, 4096, own.pid, started, own.namespace)
        Path(self.path).write_bytes(head.ljust(4096, b"\0"))

    def test_what_is_no_gate_is_not_written_over(self) -> None:
        path = Path(self.path)
        for content in (b"mine", b"\7" * 4096, b"BBGATE01".ljust(4096, b"\0")):
            path.write_bytes(content)
            with self.assertRaisesRegex(gate.GateError, "is no gate: it is not written over"):
                gate.Main(path)
            self.assertEqual(path.read_bytes(), content)
        path.unlink()
        path.mkdir()
        with self.assertRaisesRegex(gate.GateError, "is no gate"):
            gate.Main(path)
        with self.assertRaisesRegex(gate.GateError, "cannot create the gate .*no/such/folder.*; check the path"):
            gate.Main(path / "no/such/folder")

    def test_what_is_no_gate_is_refused_in_one_line_and_at_once(self) -> None:
        contents = {
            "short": (b"hello", "a file of 4096 bytes was expected"),
            "long": (bytes(4097), "a file of 4096 bytes was expected"),
            "torn": (bytes(4096), "not BBGATE01"),
            "version-1": (b"BBGATE01\1\0\0\0\0\x10".ljust(4096, b"\0"), "it is version 1 with 4096 bytes"),
            "version-3": (b"BBGATE01\3\0\0\0\0\x10".ljust(4096, b"\0"), "it is version 3 with 4096 bytes"),
        }
        for name, (content, words) in contents.items():
            (self.folder / name).write_bytes(content)
            self.refused(self.folder / name, words)
        os.mkfifo(self.folder / "pipe")
        self.refused(self.folder / "pipe", "is not a gate page")
        self.refused(self.folder, "is not a gate page")
        self.refused(Path("/dev/null"), "is not a gate page")
        self.refused(self.folder / "none", "check the path")
        self.refused(self.folder / "short" / "none", "a file stands where a folder is needed")
        self.refused(Path("with\0zero"), "is no path")
        with self.assertRaisesRegex(gate.GateError, "is no path"):
            gate.Main("with\0zero")
        with gate.Main(self.path) as main:
            main._words.main_pid = 0
            with self.assertRaisesRegex(gate.GateError, "names no main program"):
                gate.Side(self.path)

    def refused(self, path: Path, words: str) -> None:
        for ask in (gate.status, gate.Side):
            with self.assertRaises(gate.GateError) as refused:
                ask(path)
            self.assertIn(words, str(refused.exception))
            self.assertEqual(len(str(refused.exception).splitlines()), 1)

    def test_another_users_page_is_refused(self) -> None:
        if os.getuid() != 0 or not hasattr(os, "seteuid"):
            self.skipTest("only root can play another user")
        os.chmod(self.folder, 0o755)
        with gate.Main(self.path):
            child = os.fork()
            if child == 0:
                os.setuid(65534)
                code = 0
                for ask in (gate.Side, gate.Main, gate.status):
                    try:
                        ask(self.path)
                        code |= 1
                    except gate.GateError as error:
                        code |= 2 * ("Permission denied" not in str(error) or "\n" in str(error))
                os._exit(code)
            self.assertEqual(died(os.waitpid(child, 0)[1]), 0)

    def test_a_full_file_system_is_met_when_the_gate_is_made(self) -> None:
        with self.assertRaisesRegex(gate.GateError, "cannot create the gate .*; "):
            before = resource.getrlimit(resource.RLIMIT_FSIZE)
            resource.setrlimit(resource.RLIMIT_FSIZE, (1024, before[1]))
            try:
                gate.Main(self.path)
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, before)
        self.assertEqual(os.listdir(self.folder), [], "no temporary file stays")

    def test_the_clock_of_another_time_namespace_is_refused(self) -> None:
        with gate.Main(self.path) as main:
            main._words.time_namespace += 1
            with self.assertRaisesRegex(gate.GateError, "another time namespace"):
                gate.Side(self.path)

    def test_a_main_that_gives_no_sign_ends_only_who_says_so(self) -> None:
        with gate.Main(self.path) as main:
            main._words.main_heartbeat -= LONG_NS
            with gate.Side(self.path) as side, self.assertRaises(TimeoutError):
                side.go(timeout=0.03)
            with gate.Side(self.path, main_timeout=10) as side:
                self.assertEqual((side.go(timeout=LONG_S), side.ended), (False, "main_gone"))
            main.beat()
            with gate.Side(self.path, main_timeout=10) as side, self.assertRaises(TimeoutError):
                side.go(timeout=0.03)

    def test_a_main_of_another_container_lives_as_long_as_it_holds_its_lock(self) -> None:
        main = gate.Main(self.path)
        # As if it were in another id namespace, where nobody can ask for it.
        main._words.main_namespace += 1
        with gate.Side(self.path) as side:
            with self.assertRaises(TimeoutError):
                side.go(timeout=0.03)
            with self.assertRaisesRegex(gate.GateError, "already has a main program"):
                gate.Main(self.path)
            os.close(main._fd)
            main._fd = -1
            self.assertEqual((side.go(timeout=LONG_S), side.ended), (False, "main_gone"))
        gate.Main(self.path).shut_down()


    def test_a_handler_may_shut_down_a_gate_that_is_being_opened_or_closed(self) -> None:
        for opens in (0, 1):
            with gate.Main(self.path) as main:
                shut: List[int] = []

                def now() -> int:
                    if not shut:
                        shut.append(1)
                        main.shut_down()
                        # What the opening that goes on will write over.
                        main._words.state = 0 if opens else 4 | 1
                    return time.monotonic_ns()

                if not opens:
                    main.open(LONG_NS)
                main._page.now = now
                if opens:
                    main.open(LONG_NS)
                else:
                    main.close()
                self.assertEqual(main._words.state & 3, 2)
                self.assertEqual(shut, [1])

    def test_a_system_without_gates_is_told_so(self) -> None:
        with unittest.mock.patch.object(system, "_NUMBER", None):
            for end in (gate.Main, gate.Side):
                with self.assertRaisesRegex(gate.GateError, "needs 64-bit Linux on x86-64 or aarch64, and this is"):
                    end(self.path)

    def test_words_are_never_torn(self) -> None:
        writer = """
from bubblebench.gate.page import attached
words = attached(path)[0].words
print("ready", flush=True)
while True:
    words.open_ns = 2**64 - 1
    words.open_ns = 0
"""
        with gate.Main(self.path) as main:
            self.assertEqual(self.first_line(self.start(writer)), "ready")
            seen = {main._words.open_ns for _ in range(200_000)}
            self.assertLessEqual(seen, {0, 2**64 - 1})
            self.eventually("the other", lambda: main._words.open_ns not in list(seen)[:1])


class Places(GateCase):
    """One side a gate, and the next when it is gone."""

    def test_a_second_side_is_refused_and_comes_in_behind_the_first(self) -> None:
        with gate.Main(self.path) as main:
            first = gate.Side(self.path)
            self.assertIsNone(main.side_pid, "it gets ready")
            first.ready()
            self.assertEqual(main.side_pid, os.getpid())
            with self.assertRaisesRegex(gate.GateError, f"already has a side program .process {os.getpid()}"):
                gate.Side(self.path)
            first.close()
            first.close()
            self.assertIsNone(main.side_pid)
            with gate.Side(self.path), self.assertRaisesRegex(gate.GateError, "is closed"):
                first.go()
            with unittest.mock.patch("threading.Thread.start", side_effect=RuntimeError("no more")):
                with self.assertRaisesRegex(gate.GateError, "cannot start a thread: no more"):
                    gate.Side(self.path)
            gate.Side(self.path).close()

    def test_a_killed_side_is_replaced(self) -> None:
        main = gate.Main(self.path)
        for round_ in range(5):
            side = self.start(SIDE)
            one_bubble(self, main)
            main.open(LONG_NS)
            time.sleep(round_ * 1e-3)
            side.send_signal(signal.SIGKILL)
            side.wait()
            main.close()
            # It may have acknowledged just before; it never counts as running.
            main.wait_stopped(LONG_S)
            self.assertEqual(gate.status(self.path)["state"], "idle")
        self.assertEqual(gate.status(self.path)["sides"], 5)

    def test_a_side_that_loses_its_lease_knows_it_and_touches_nothing(self) -> None:
        with gate.Main(self.path) as main:
            first = gate.Side(self.path)
            main.open(LONG_NS)
            self.assertTrue(first.go())
            first._left.set()
            first._renewal.join()
            main._words.lease_until = 1
            with gate.Side(self.path) as second:
                self.assertTrue(second.go())
                second.done()
                before = bytes(main._words)
                with self.assertRaisesRegex(gate.LeaseLost, "has taken this one's place"):
                    first.done()
                for _ in range(2):
                    with self.assertRaises(gate.LeaseLost):
                        first.go()
                self.assertEqual(first.ended, "lease_lost")
                first.close()
                now = page.Words.from_buffer_copy(before)
                now.lease_until = main._words.lease_until
                self.assertEqual(bytes(now), bytes(main._words))
                self.assertTrue(second.go())

    def test_a_suspended_side_loses_its_place_to_the_next(self) -> None:
        main = gate.Main(self.path)
        first = self.start(SIDE)
        one_bubble(self, main)
        main.open(LONG_NS)
        first.send_signal(signal.SIGSTOP)
        time.sleep(0.02)
        main.close()
        begun = time.monotonic()
        try:
            main.wait_stopped(0.005)
        except TimeoutError:
            pass
        self.assertLess(time.monotonic() - begun, LONG_S / 4, "not beyond what the main says")
        with self.assertRaisesRegex(gate.GateError, f"process {first.pid}"):
            gate.Side(self.path)
        self.eventually("the end of the lease", lambda: main._words.lease_until <= time.monotonic_ns())
        second = self.start(SIDE)
        one_bubble(self, main)
        first.send_signal(signal.SIGCONT)
        self.output(first, 42)
        one_bubble(self, main)
        main.shut_down()
        self.output(second)

    def test_the_lease_is_renewed_beside_a_long_operation(self) -> None:
        with gate.Main(self.path) as main, gate.Side(self.path):
            first = main._words.lease_until
            self.eventually("a renewal", lambda: main._words.lease_until > first)

    def test_the_lease_of_another_container_is_waited_for(self) -> None:
        with gate.Main(self.path) as main:
            words = main._words
            first = gate.Side(self.path)
            first._left.set()
            words.side_namespace += 1
            words.lease_until = until = time.monotonic_ns() + 100_000_000
            with gate.Side(self.path):
                self.assertGreaterEqual(time.monotonic_ns(), until)
                # One that renews it lives.
                words.side_namespace += 1
                with self.assertRaisesRegex(gate.GateError, "already has a side program"):
                    gate.Side(self.path)


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
            self.assertIsNone(gate.status(self.path)["main_alive"])
            main.send_signal(signal.SIGKILL)
            self.assertEqual((side.go(timeout=LONG_S), side.ended), (False, "main_gone"))

    def test_a_side_with_another_clock_is_refused(self) -> None:
        text = "try: gate.Side(path)\nexcept gate.GateError as e: print('time namespace' in str(e))"
        within = self.within("--time")
        with gate.Main(self.path):
            self.assertEqual(self.output(self.start(text, within=within)), ["True"])


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


class Status(GateCase):
    """What who looks on sees is what the program says."""

    def compare(self, state: str) -> None:
        seen, code = gate.status(self.path), 0
        self.assertEqual(seen["state"], state)
        if program.program().exists():
            run = told(program.program(), self.path)
            theirs, code = json.loads(run.stdout), run.returncode
            self.assertEqual((code, list(theirs)), (0, list(seen)))
            for moves in ("left_ns", "open_ns", "work_ns") if seen["open"] or state == "draining" else ():
                self.assertEqual(theirs.pop(moves) is None, seen.pop(moves) is None)
            self.assertEqual(theirs, seen)

    def test_every_state_and_the_programs_words_for_it(self) -> None:
        with gate.Main(self.path) as main:
            self.compare("idle")
            side = gate.Side(self.path)
            self.compare("idle")
            side.ready()
            self.compare("armed")
            main.open(LONG_NS)
            self.compare("armed")
            self.assertTrue(side.go())
            self.compare("running")
            self.assertEqual(gate.status(self.path)["side_pid"], os.getpid())
            side.done()
            main.close()
            self.compare("draining")
            with self.assertRaises(TimeoutError):
                side.go(timeout=0)
            self.compare("stopped")
            self.assertGreater(gate.status(self.path)["stop_latency_ns"], 0)
            main.set_margin(0)
            main.open(300_000_000)
            self.assertTrue(side.go())
            self.eventually("the expected close", lambda: gate.status(self.path)["left_ns"] < 0)
            self.compare("draining")
            with self.assertRaises(TimeoutError):
                side.go(timeout=0)
            self.compare("stopped")
            main.shut_down()
            self.compare("stopped")
            self.assertTrue(gate.status(self.path)["shut_down"])
            side.close()
            self.compare("idle")

    def test_a_dead_main_and_one_of_another_container(self) -> None:
        with gate.Main(self.path) as main:
            main._words.main_started += 1
            main._words.main_pid = 1
            self.compare("idle")
            self.assertIs(gate.status(self.path)["main_alive"], False)
            main._words.main_namespace += 1
            self.compare("idle")
            self.assertIsNone(gate.status(self.path)["main_alive"])

    def test_who_looks_on_needs_no_right_to_write(self) -> None:
        with gate.Main(self.path):
            os.chmod(self.path, 0o400)
            self.compare("idle")


class Processes(unittest.TestCase):
    """Who lives."""

    def test_names_with_brackets_do_not_confuse_the_reader(self) -> None:
        line = "42 (a) b (c)) S 1 42 42 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 98765 1000 2"
        self.assertEqual(parse_stat(line), (98765, "S"))
        for other in ("42 (x", "42 (x) S 1", "", "no process"):
            self.assertIsNone(parse_stat(other))

    def test_a_killed_child_is_gone_before_anyone_waits_for_it(self) -> None:
        child = os.fork()
        if child == 0:
            time.sleep(60)
            os._exit(0)
        line = Path(f"/proc/{child}/stat").read_text(encoding="utf-8")
        found = parse_stat(line)
        assert found is not None
        own = ProcessId.own()
        named = ProcessId(child, found[0], own.namespace)
        self.assertEqual((own.life(), named.life()), (Life.RUNNING, Life.RUNNING))
        self.assertEqual(ProcessId(child, found[0] + 1, own.namespace).life(), Life.GONE)
        self.assertEqual(ProcessId(child, found[0], own.namespace + 1).life(), Life.UNKNOWN)
        os.kill(child, signal.SIGKILL)
        end = time.monotonic() + LONG_S
        while named.life() is Life.RUNNING and time.monotonic() < end:
            time.sleep(0.001)
        self.assertEqual(named.life(), Life.GONE)
        os.waitpid(child, 0)
