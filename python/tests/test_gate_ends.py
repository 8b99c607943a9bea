"""How mains and sides come and go: who is refused, and what becomes of those that die."""

from __future__ import annotations

import copy
import functools
import gc
import os
import pickle
import resource
import signal
import struct
import threading
import time
import unittest
import unittest.mock
from pathlib import Path
from typing import Any, Callable, List, Tuple

from bubblebench import gate
from bubblebench.gate import lock, page, system
from bubblebench.gate import main as main_end
from bubblebench.gate.lock import Lock
from bubblebench.gate.process import ProcessId

from .gates import LONG_NS, LONG_S, MAIN, SIDE, GateCase, died, one_bubble

#: Descriptors of this process, to see that none is left behind.
OPEN_FILES = Path("/proc/self/fd")


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

    def test_an_abandoned_page_whose_place_stands_still_is_not_taken_over(self) -> None:
        self.write_page(version=2, started=1)
        fd = os.open(self.path, os.O_RDWR)
        self.addCleanup(lambda: os.close(fd) if fd >= 0 else None)
        self.assertIs(lock.try_lock(fd, lock.PLACE), Lock.HELD)
        begun = time.monotonic_ns()
        with self.assertRaises(gate.GateError) as refused:
            gate.Main(self.path)
        self.assertGreaterEqual(time.monotonic_ns() - begun, gate.LEASE_NS)
        self.assertEqual(
            str(refused.exception),
            f"a program has stood still for long while it took or left the side's place of {self.path}; "
            "find a suspended side program, and end it",
        )
        self.assertEqual(os.listdir(self.folder), ["gate"], "no temporary file stays")
        # One that only takes its time is waited for.
        release = threading.Timer(0.3, lock.unlock, (fd, lock.PLACE))
        release.start()
        gate.Main(self.path).shut_down()
        release.join()

    def test_a_path_that_changes_all_the_time_is_given_up(self) -> None:
        changing = unittest.mock.patch.object(main_end, "_take", return_value=main_end._Standing.CHANGING)
        with changing, self.assertRaisesRegex(gate.GateError, "others make and remove it all the time"):
            gate.Main(self.path)
        self.assertEqual(os.listdir(self.folder), [])

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

    def test_what_a_link_leads_to_is_replaced_and_not_the_link(self) -> None:
        link = self.folder / "link"
        link.symlink_to(self.path)
        with self.assertRaisesRegex(gate.GateError, "link is there and is no gate"):
            gate.Main(link)
        self.assertEqual(os.listdir(self.folder), ["link"], "it leads nowhere")
        self.write_page(version=2, started=1)
        with gate.Main(link), gate.Side(self.path), self.assertRaisesRegex(gate.GateError, "already has a side"):
            self.assertEqual((link.is_symlink(), Path(self.path).is_symlink()), (True, False))
            gate.Side(link)
        self.assertEqual(os.listdir(self.folder), ["link"])
        with gate.Main(self.path), self.assertRaisesRegex(gate.GateError, "already has a main"):
            gate.Main(link)
        link.unlink()
        link.symlink_to(link)
        with self.assertRaisesRegex(gate.GateError, "link is there and is no gate"):
            gate.Main(link)

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
            with self.assertRaisesRegex(gate.GateError, "another time namespace: .*run both programs in one"):
                gate.Side(self.path)
            with self.assertRaisesRegex(gate.GateError, "another time namespace: .*look from within its") as refused:
                gate.status(self.path)
            self.assertEqual(len(str(refused.exception).splitlines()), 1)
            # Whatever the table says of a start on another clock, its lock is held.
            main._words.main_started += 100_000 * 100
            with self.assertRaisesRegex(gate.GateError, r"already has a main program \(process \d+\);"):
                gate.Main(self.path)

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

    def test_a_main_may_shut_down_and_go_behind_a_sides_look(self) -> None:
        for how in ("shut_down", "main_gone"):
            with self.subTest(how):
                main = gate.Main(self.path)
                with gate.Side(self.path) as side:
                    is_gone = side._main_is_gone

                    def goes(now: int, main: gate.Main = main, how: str = how) -> bool:
                        if how == "shut_down":
                            main.shut_down()
                        main._close_file()
                        return is_gone(now)

                    with unittest.mock.patch.object(side, "_main_is_gone", goes):
                        self.assertEqual((side.go(timeout=LONG_S), side.ended), (False, how))

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


class Arguments(GateCase):
    """What callers may give."""

    def test_a_bubbles_number_fits_its_word_or_nothing_is_touched(self) -> None:
        with gate.Main(self.path) as main:
            before = bytes(main._words)
            for number in (-1, 2**64):
                with self.assertRaisesRegex(gate.GateError, f"the number {number}; give one from 0 to") as refused:
                    main.open(5, bubble=number)
                self.assertEqual(len(str(refused.exception).splitlines()), 1)
            other: Any
            for other in (1.0, "7"):
                with self.assertRaises(TypeError):
                    main.open(5, bubble=other)
            self.assertEqual(bytes(main._words), before)
            main.open(5, bubble=2**64 - 1)
            self.assertEqual(main._words.bubble, 2**64 - 1)
            main.open(5)
            self.assertEqual(main._words.bubble, 0)
            main.open(5, bubble=_Index())  # type: ignore[arg-type]
            self.assertEqual(main._words.bubble, 7)

    def test_seconds_are_a_length_of_time_or_none(self) -> None:
        with gate.Main(self.path) as main, gate.Side(self.path) as side:
            main.open(LONG_NS)
            for opened in (True, False):
                for wrong in (-1, -1e-9, float("nan"), float("-inf")):
                    asks: List[Tuple[str, Callable[[], object]]] = [
                        ("timeout", functools.partial(side.go, timeout=wrong)),
                        ("limit_s", functools.partial(main.wait_stopped, wrong)),
                        ("main_timeout", functools.partial(gate.Side, self.path, main_timeout=wrong)),
                    ]
                    for name, ask in asks:
                        with self.assertRaisesRegex(ValueError, f"^{name} cannot be .* s: give 0 or more") as refused:
                            ask()
                        self.assertEqual(len(str(refused.exception).splitlines()), 1)
                other: Any = "1"
                with self.assertRaises(TypeError):
                    side.go(timeout=other)
                with self.assertRaises(TypeError):
                    main.wait_stopped(other)
                if opened:
                    for right in (None, float("inf"), 1e300, 10**8, 0, 0.0):
                        self.assertTrue(side.go(timeout=right))
                    main.close()
            with self.assertRaises(TimeoutError):
                side.go(timeout=0)
            for limit in (None, float("inf"), 1e300, 0):
                self.assertIsNotNone(main.wait_stopped(limit))
            opener = threading.Timer(0.03, main.open, (LONG_NS,))
            opener.start()
            self.assertTrue(side.go(timeout=float("inf")))
            opener.join()
            side.close()
            for limit in (None, float("inf"), 1e300):
                with gate.Side(self.path, main_timeout=limit) as patient:
                    main._words.main_heartbeat = 0
                    with self.assertRaises(TimeoutError):
                        main.close()
                        main._words.main_heartbeat = 0
                        patient.go(timeout=0.01)
            with gate.Side(self.path, main_timeout=0) as hasty:
                self.assertEqual((hasty.go(timeout=LONG_S), hasty.ended), (False, "main_gone"))

    def test_a_need_is_a_whole_number_of_0_or_more(self) -> None:
        with gate.Main(self.path) as main, gate.Side(self.path) as side:
            main.open(LONG_NS)
            for opened in (True, False):
                for _ in range(2):
                    with self.assertRaisesRegex(ValueError, "^an operation cannot need -1 ns: give 0 or more$"):
                        side.go(-1, timeout=0)
                    other: Any
                    for other in (1.0, float("nan"), "5", None):
                        with self.assertRaises(TypeError):
                            side.go(other, timeout=0)
                if opened:
                    for need in (0, 5, 5, 1 << 20, 1 << 20, _Index(), True):
                        self.assertTrue(side.go(need))  # type: ignore[arg-type]
                    main.close()
            with self.assertRaisesRegex(TimeoutError, "no operation of 7 ns may start"):
                side.go(_Index(), timeout=0)  # type: ignore[arg-type]

    def test_a_path_may_be_of_bytes(self) -> None:
        for path in (os.fsencode(self.path), os.fsencode(self.path) + b"\xff"):
            with gate.Main(path) as main, gate.Side(path) as side:
                self.assertEqual((main.path, side.path), (os.fsdecode(path),) * 2)
                self.assertTrue(os.path.exists(path))
                self.assertEqual(gate.status(path)["main_pid"], os.getpid())
            self.assertFalse(os.path.exists(path))

    def test_an_end_is_not_copied(self) -> None:
        with gate.Main(self.path) as main, gate.Side(self.path) as side:
            for end in (main, side):
                for copy_ in (copy.copy, copy.deepcopy, pickle.dumps):
                    with self.assertRaisesRegex(TypeError, "^a gate's end cannot be copied$"):
                        copy_(end)
            gc.collect()
            self.assertTrue(os.path.exists(self.path))
            main.open(LONG_NS)
            self.assertTrue(side.go())


class _Index:
    """An integer that is none of Python's, as NumPy has them."""

    def __index__(self) -> int:
        return 7


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

    def test_a_lease_is_lengthened_by_its_own_side_alone(self) -> None:
        with gate.Main(self.path) as main, gate.Side(self.path) as side:
            words = main._words
            # As where another has taken the place.
            words.lease_until = theirs = words.lease_until - 1
            side._renewal.join(LONG_S)
            self.assertEqual((side._renewal.is_alive(), words.lease_until), (False, theirs))

    def test_a_turn_at_which_the_place_may_be_changing_hands_is_left_out(self) -> None:
        with gate.Main(self.path) as main, gate.Side(self.path) as side:
            words = main._words
            fd = os.open(self.path, os.O_RDWR)
            self.addCleanup(os.close, fd)
            self.assertIs(lock.try_lock(fd, lock.PLACE), Lock.HELD)
            seen = words.lease_until
            time.sleep(0.6)
            self.assertEqual(words.lease_until, seen)
            lock.unlock(fd, lock.PLACE)
            self.eventually("a renewal", lambda: words.lease_until > seen)
            with side._places:
                # It is kept apart from its own threads too, which the file's lock would let in.
                seen = words.lease_until
                time.sleep(0.6)
                self.assertEqual(words.lease_until, seen)
            self.eventually("a renewal", lambda: words.lease_until > seen)

    def test_a_lease_longer_than_any_is_none(self) -> None:
        with gate.Main(self.path) as main:
            words = main._words
            words.side_namespace, words.holder = 1, 7
            # Of another boot of the machine: the page outlived its clock.
            words.lease_until = time.monotonic_ns() + 3600 * 10**9
            begun = time.monotonic_ns()
            gate.Side(self.path).close()
            self.assertLess(time.monotonic_ns() - begun, gate.LEASE_NS)

    def test_a_place_whose_lock_is_not_given_back_is_refused_after_a_while(self) -> None:
        with gate.Main(self.path) as main:
            side = gate.Side(self.path)
            fd = os.open(self.path, os.O_RDWR)
            self.assertIs(lock.try_lock(fd, lock.PLACE), Lock.HELD)
            with self.assertRaisesRegex(gate.GateError, "has stood still for long") as refused:
                gate.Side(self.path)
            self.assertEqual(len(str(refused.exception).splitlines()), 1)
            # Who is ready all the same is believed: whose the place is tells its generation.
            side.ready()
            self.assertEqual(main.side_pid, os.getpid())
            side.close()
            self.assertEqual(main.side_pid, os.getpid(), "it could not be given back")
            os.close(fd)
            # Its lease ends by itself.
            self.eventually("its end", lambda: main._words.lease_until <= time.monotonic_ns())
            gate.Side(self.path).close()

    def test_a_side_that_lost_its_place_before_it_was_ready_does_not_say_so(self) -> None:
        with gate.Main(self.path) as main:
            first = gate.Side(self.path)
            main._words.lease_until = 1
            with gate.Side(self.path):
                first.ready()
                self.assertIsNone(main.side_pid)
                with self.assertRaises(gate.LeaseLost):
                    first.go()

    def test_a_file_system_without_locks_has_no_side_of_pythons(self) -> None:
        with unittest.mock.patch.object(lock, "try_lock", return_value=Lock.UNKNOWN):
            with gate.Main(self.path):
                with self.assertRaisesRegex(gate.GateError, "has no locks, which a side of Python's needs") as refused:
                    gate.Side(self.path)
                self.assertEqual(len(str(refused.exception).splitlines()), 1)

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
