"""What a gate is for: who may start when, and what the main and who looks on are told of it."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import threading
import time
import unittest
import unittest.mock
from pathlib import Path
from typing import List

from bubblebench import gate
from bubblebench.gate import lock, process, system
from bubblebench.gate.process import Life, ProcessId, main_life, parse_stat, time_namespace

from . import program
from .gates import LONG_NS, LONG_S, MAIN, SIDE, GateCase, WatchedSide, one_bubble, told


class Bubbles(GateCase):
    """What the gate is for."""

    def test_a_bubble_that_is_never_closed_is_not_overrun(self) -> None:
        need_ns, worked_in = 1_000_000, set()
        with gate.Main(self.path) as main, WatchedSide(self.path) as side:
            for _ in range(10):
                main.open(5_000_000)
                close = side.expected_close
                self.assertEqual(close, main.opened_at + 5_000_000)
                while True:
                    try:
                        self.assertTrue(side.go(need_ns, timeout=0.006))
                    except TimeoutError:
                        break
                    self.assertLessEqual(side.starts[-1].at_ns + need_ns + gate.MARGIN_NS, close)
                    worked_in.add(close)
                    time.sleep(0.0005)
                    side.done()
                self.assertEqual(side.expected_close, close, "it is still open")
                main.close()
                self.assertEqual(main.stopped(), 0, "it stood still before the closing")
                told = main.work_ns
                with self.assertRaises(TimeoutError):
                    side.go(timeout=0)
                self.assertEqual((main.stopped(), main.work_ns), (0, told), "it is told once")
            self.assertGreater(len(side.starts), 0)
            self.assertEqual((main.operations, side.operations), (len(side.starts),) * 2)
            self.assertEqual(main.self_stops, len(worked_in))

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
            self.assertEqual((main.started_at, main.start_latency_ns, main.work_ns), (None, None, None))
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

    def test_a_gate_that_never_opened_tells_of_no_start(self) -> None:
        with gate.Main(self.path) as main, gate.Side(self.path) as side:
            main.shut_down()
            self.assertFalse(side.go())
            self.assertEqual((main.started_at, main.start_latency_ns, main.work_ns), (None, None, None))

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
            self.assertEqual(main.self_stops, 0, "where it did not work it did not stop")

    def test_an_opening_that_it_is_late_for_begins_the_count_again(self) -> None:
        with gate.Main(self.path) as main, gate.Side(self.path) as side:

            def too_short(times: int) -> None:
                for _ in range(times):
                    main.open(1_000_000)
                    with self.assertRaises(TimeoutError):
                        side.go(2_000_000, timeout=0)
                    # Looking again at the same one, or at a closed gate, is no answer to it.
                    main.close()
                    with self.assertRaises(TimeoutError):
                        side.go(2_000_000, timeout=0)

            too_short(63)
            main.open(2_010_000)
            time.sleep(0.00005)
            with self.assertRaises(TimeoutError):
                side.go(2_000_000, timeout=0)
            too_short(63)
            main.open(1_500_000)
            with self.assertRaises(gate.NeverFits) as refused:
                side.go(2_000_000, timeout=0)
            self.assertEqual(refused.exception.longest_ns, 1_500_000 - gate.MARGIN_NS)
            self.assertEqual(main.self_stops, 0)

    def test_a_side_that_always_comes_too_late_is_told(self) -> None:
        with gate.Main(self.path) as main, gate.Side(self.path) as side:
            clock: List[int] = [10**9]
            for page in (main._page, side._page):
                page.now = lambda: clock[0]
            need_ns = 1_000_000

            def miss(late_ns: int, length_ns: int = need_ns + gate.MARGIN_NS) -> None:
                main.open(length_ns)
                clock[0] += late_ns
                with self.assertRaises(TimeoutError):
                    side.go(need_ns, timeout=0)
                main.close()
                clock[0] += 1_000
                with self.assertRaises(TimeoutError):
                    side.go(need_ns, timeout=0)  # no opening, and no answer to one

            def refused(late_ns: int, length_ns: int = need_ns + gate.MARGIN_NS) -> int:
                main.open(length_ns)
                clock[0] += late_ns
                with self.assertRaises(gate.NeverFits) as error:
                    side.go(need_ns, timeout=0)
                main.close()
                self.assertEqual(error.exception.need_ns, need_ns)
                self.assertIn(
                    f"an operation of {need_ns} ns fits none of the last openings: "
                    f"the longest had {error.exception.longest_ns} ns left; ",
                    str(error.exception),
                )
                return error.exception.longest_ns

            for number in range(1023):
                miss(50 + number % 7)
            self.assertEqual(refused(3_000_000), need_ns - 50)
            # The counts begin again.
            for _ in range(63):
                miss(0, 500_000)
            for _ in range(900):
                miss(2_000_000)
            main.open(LONG_NS)
            self.assertTrue(side.go(need_ns))
            main.close()
            for number in range(1023):
                # Of every 50 in a row, 49 are too short from their first moment on.
                miss(60, 500_000 if number % 50 else need_ns + gate.MARGIN_NS)
            self.assertEqual(refused(70), need_ns - 60)
            # Those that are too short count with their whole length.
            for number in range(1023):
                miss(*((60, 500_000) if number % 50 else (900_000,)))
            self.assertEqual(refused(950_000), 500_000 - gate.MARGIN_NS)
            for _ in range(63):
                miss(0, 300_000)
            self.assertEqual(refused(0, 200_000), 300_000 - gate.MARGIN_NS)

    def test_what_starts_at_once_begins_the_counts_again(self) -> None:
        with gate.Main(self.path) as main, gate.Side(self.path) as side:
            main.open(LONG_NS)
            self.assertTrue(side.go(5))
            for _ in range(3):
                for _ in range(63):
                    main.open(500_000)
                    with self.assertRaises(TimeoutError):
                        side.go(2_000_000, timeout=0)
                main.open(LONG_NS)
                # By the first answer, and by the one without a wait.
                self.assertTrue(side.go(2_000_000) and side.go(2_000_000))

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
            words = main._words
            main.open(LONG_NS)
            address = main.hand_to_device()
            self.assertEqual(address % 4096, 1024)
            self.assertEqual((words.state & 3, main.closings), (0, 1), "the main's own opening is over")

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
            self.assertEqual((main.stopped(), main.started_at, main.start_latency_ns), (None, None, None))
            words.device_open = 0
            self.assertIsNone(main.stopped(), "it has not looked")
            with self.assertRaises(TimeoutError):
                side.go(timeout=0)
            self.assertEqual(main.stopped(), 0)
            opens(3, 0)
            with self.assertRaises(TimeoutError):
                side.go(1_000_000, timeout=0)
            self.assertEqual(main.self_stops, 0, "it worked in none of those that it stopped in")
            words.started = words.state >> 2
            self.assertIsNone(main.start_latency_ns, "a device's numbers are not the main's")
            words.started -= 1
            self.assertIsNone(main.start_latency_ns)
            before = bytes(words)[:256]
            main.open(LONG_NS)
            main.close()
            self.assertEqual(bytes(words)[:256], before)
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


class Status(GateCase):
    """What who looks on sees is what the program says."""

    def compare(self, state: str, *moving: str) -> None:
        seen, code = gate.status(self.path), 0
        self.assertEqual(seen["state"], state)
        if program.program().exists():
            run = told(program.program(), self.path)
            theirs, code = json.loads(run.stdout), run.returncode
            self.assertEqual((code, list(theirs)), (0, list(seen)))
            # What goes on while both look: an opening until it is known to be over, and work until the closing.
            for moves in moving:
                self.assertIsNotNone(theirs.pop(moves))
                self.assertIsNotNone(seen.pop(moves))
            self.assertEqual(theirs, seen)

    def test_every_state_and_the_programs_words_for_it(self) -> None:
        with gate.Main(self.path) as main:
            self.compare("idle")
            side = gate.Side(self.path)
            self.compare("idle")
            side.ready()
            self.compare("armed")
            main.open(LONG_NS)
            self.compare("armed", "left_ns", "open_ns")
            self.assertTrue(side.go())
            self.compare("running", "left_ns", "open_ns", "work_ns")
            self.assertEqual(gate.status(self.path)["side_pid"], os.getpid())
            side.done()
            main.close()
            self.compare("draining")
            words = main._words
            self.assertEqual(gate.status(self.path)["work_ns"], words.closed_at - words.started_at)
            with self.assertRaises(TimeoutError):
                side.go(timeout=0)
            self.compare("stopped")
            self.assertGreater(gate.status(self.path)["stop_latency_ns"], 0)
            main.set_margin(0)
            main.open(300_000_000)
            self.assertTrue(side.go())
            self.eventually("the expected close", lambda: gate.status(self.path)["left_ns"] < 0)
            self.compare("draining", "left_ns", "open_ns", "work_ns")
            with self.assertRaises(TimeoutError):
                side.go(timeout=0)
            self.compare("stopped", "left_ns", "open_ns")
            main.shut_down()
            self.compare("stopped")
            self.assertTrue(gate.status(self.path)["shut_down"])
            side.close()
            self.compare("idle")

    def test_a_dead_main_and_one_of_another_container(self) -> None:
        with gate.Main(self.path) as main:
            words = main._words
            # Its lock tells that it lives, and its table of processes where a child holds that lock for it.
            words.main_namespace += 1
            self.compare("idle")
            self.assertIs(gate.status(self.path)["main_alive"], True)
            words.main_namespace -= 1
            words.main_started += 1
            self.compare("idle")
            self.assertIs(gate.status(self.path)["main_alive"], False)
            words.main_started -= 1
            words.main_pid = 2**40
            self.compare("idle")
            self.assertEqual((gate.status(self.path)["main_pid"], gate.status(self.path)["main_alive"]), (0, False))
            words.main_pid = os.getpid()
            self.compare("idle")
            self.assertIs(gate.status(self.path)["main_alive"], True)

    def test_an_opening_of_a_dead_main_ends_when_it_was_to_end(self) -> None:
        main = self.start(MAIN.replace("print(", "main.open(1_000_000); print("))
        self.assertEqual(self.first_line(main), "ready")
        main.kill()
        main.wait()
        self.compare("idle", "left_ns")
        seen = gate.status(self.path)
        self.assertEqual((seen["main_alive"], seen["open"], seen["open_ns"]), (False, True, 1_000_000))
        with gate.Side(self.path) as side:
            side.ready()
            self.compare("armed", "left_ns")

    def test_a_gate_of_a_devices(self) -> None:
        with gate.Main(self.path) as main, gate.Side(self.path) as side:
            main.hand_to_device()
            self.compare("idle")
            side.ready()
            self.compare("armed")
            words = main._words
            for generation in (1, 2):
                with self.assertRaises(TimeoutError):
                    side.go(timeout=0)
                words.device_generation, words.device_expected_us, words.device_open = generation, 10**9, 1
                seen = gate.status(self.path)
                self.assertEqual((seen["openings"], seen["closings"]), (generation, generation - 1))
                self.assertTrue(side.go(timeout=LONG_S))
                self.compare("running", "work_ns")
                words.device_open = 0
                self.compare("draining", "work_ns")
                seen = gate.status(self.path)
                self.assertEqual((seen["openings"], seen["closings"]), (generation, generation))
                with self.assertRaises(TimeoutError):
                    side.go(timeout=0)
                self.compare("stopped")
            main.shut_down()
            self.compare("draining", "work_ns")
            self.assertFalse(side.go())
            self.compare("stopped")

    def test_a_page_that_says_what_cannot_be_is_told_all_the_same(self) -> None:
        with gate.Main(self.path) as main:
            main.hand_to_device()
            main._words.device_open = 1
            self.assertEqual(gate.status(self.path)["closings"], 0, "an opening that has no number")

    def test_who_looks_on_needs_no_right_to_write(self) -> None:
        with gate.Main(self.path):
            os.chmod(self.path, 0o400)
            self.compare("idle")


class Processes(unittest.TestCase):
    """Who lives."""

    def test_names_with_brackets_do_not_confuse_the_reader(self) -> None:
        def line(state: str, threads: int) -> str:
            return f"42 (a) b (c)) {state} 1 42 42 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 {threads} 0 98765 1000 2"

        self.assertEqual(parse_stat(line("S", 1)), (98765, True))
        self.assertEqual(parse_stat(line("Z", 1)), (98765, False))
        self.assertEqual(parse_stat(line("Z", 3)), (98765, True), "its first thread has ended before others")
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
        named = ProcessId(child, found.started, own.namespace)
        self.assertEqual((own.life(), named.life()), (Life.RUNNING, Life.RUNNING))
        self.assertEqual(ProcessId(child, found.started + 1, own.namespace).life(), Life.GONE)
        for unknown in (ProcessId(child, found.started, own.namespace + 1), ProcessId(child, 0, own.namespace)):
            self.assertEqual(unknown.life(), Life.UNKNOWN)
        os.kill(child, signal.SIGKILL)
        end = time.monotonic() + LONG_S
        while named.life() is Life.RUNNING and time.monotonic() < end:
            time.sleep(0.001)
        self.assertEqual(named.life(), Life.GONE)
        os.waitpid(child, 0)

    def test_a_table_that_does_not_tell_is_not_believed(self) -> None:
        own = ProcessId.own()
        with unittest.mock.patch.object(process, "_namespace", return_value=0):
            self.assertEqual(ProcessId(own.pid, own.started, 0).life(), Life.UNKNOWN, "a system without namespaces")
        with unittest.mock.patch("os.readlink", return_value="1234567"):
            self.assertEqual(own.life(), Life.UNKNOWN, "another namespace's table")
        with unittest.mock.patch("os.readlink", side_effect=FileNotFoundError(2, "no /proc")):
            self.assertEqual(own.life(), Life.UNKNOWN)
        # Hidden from this user (hidepid): there all the same, or gone.
        with unittest.mock.patch.object(process, "_table_entry", return_value=None):
            self.assertEqual(own.life(), Life.UNKNOWN)
            with unittest.mock.patch("os.kill", side_effect=PermissionError(1, "no")):
                self.assertEqual(own.life(), Life.UNKNOWN)
            with unittest.mock.patch("os.kill", side_effect=ProcessLookupError(3, "none")):
                self.assertEqual(own.life(), Life.GONE)
            self.assertEqual(ProcessId(2**32 - 1, 5, own.namespace).life(), Life.GONE, "no process has such an id")

    def test_a_first_thread_that_ends_before_others_leaves_its_process_running(self) -> None:
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:

            def outlive() -> None:
                os.write(writer, b"x")
                time.sleep(60)

            threading.Thread(target=outlive).start()
            ctypes.CDLL(None).syscall({"x86_64": 60, "aarch64": 93}[os.uname().machine], 0)
        try:
            os.read(reader, 1)
            path, end = Path(f"/proc/{child}/stat"), time.monotonic() + LONG_S
            while ") Z " not in path.read_text(encoding="utf-8"):
                self.assertLess(time.monotonic(), end)
                time.sleep(0.001)
            found = parse_stat(path.read_text(encoding="utf-8"))
            assert found is not None
            named = ProcessId(child, found.started, ProcessId.own().namespace)
            self.assertEqual(named.life(), Life.RUNNING)
        finally:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            os.close(reader)
            os.close(writer)
        self.assertEqual(named.life(), Life.GONE)

    def test_the_lock_of_a_main_tells_before_the_table_does(self) -> None:
        own, here = ProcessId.own(), time_namespace()
        elsewhere, dead = ProcessId(own.pid, own.started, 1), ProcessId(own.pid, own.started + 1, own.namespace)
        asked = {
            # A child that was made past fork may hold the lock of a dead one.
            True: (Life.RUNNING, Life.RUNNING, Life.GONE),
            False: (Life.GONE, Life.GONE, Life.GONE),
            None: (Life.RUNNING, Life.UNKNOWN, Life.GONE),
        }
        for held, lives in asked.items():
            with unittest.mock.patch.object(lock, "is_held", return_value=held):
                self.assertEqual(tuple(main_life(-1, main, here) for main in (own, elsewhere, dead)), lives)

    def test_a_table_on_another_clock_says_nothing_of_a_main(self) -> None:
        own = ProcessId.own()
        for held, life in ((True, Life.RUNNING), (False, Life.GONE), (None, Life.UNKNOWN)):
            with unittest.mock.patch.object(lock, "is_held", return_value=held):
                for main in (own, ProcessId(own.pid, own.started + 1, own.namespace)):
                    self.assertIs(main_life(-1, main, time_namespace() + 1), life)
