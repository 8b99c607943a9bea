"""Python's protocol in orders of steps that no machine is asked for: a main and sides on a page that is only pretended.

Each access of a word is a step, and between any two the other program may go on. Stores wait in a buffer of their program:
on the strong machine (x86-64) they are seen by others in their order, on the weak one (aarch64) in any, except that those
to one word keep theirs; a fence, waking and falling asleep empty the buffer. Loads happen in the order of the program. Who
gets a lock sees what was stored before it was given back, and no more. The clock moves whenever it likes. A second side comes
whenever it likes, as if the lease of the first had ended just then.

What must hold: no operation starts with less than it needs left; nothing starts in an opening that the side has said to
stand still in; where the main was told that the side stands still, or that nobody is ready, nothing works until it opens
again; nobody sleeps for ever. A side that another is replacing is excepted: its lease is over. That the model would see it otherwise is tested by leaving fences out.
"""

from __future__ import annotations

import random
import threading
import unittest
from collections import Counter
from typing import Callable, Dict, Iterator, List, Optional, Set, Tuple, cast

from bubblebench.gate import protocol
from bubblebench.gate.page import MOST, Page, Words
from bubblebench.gate.protocol import OPEN, SHUT_DOWN, Look, SideProtocol, standing

MARGIN = 2
#: Steps of one order; none needs as many.
MOST_STEPS = 5_000


class Broken(Exception):
    """Something happened that must not."""


class _Over(BaseException):
    """The world has ended: its programs end too."""


class Program:
    """A main or a side: a thread that takes one step when it is its turn."""

    def __init__(self, world: "World", run: Callable[["Program"], None]) -> None:
        self.world = world
        self.turn = threading.Lock()
        self.turn.acquire()
        self.buffer: List[Tuple[str, int]] = []
        self.ended = self.asleep = False
        self.clock = 0
        self.thread = threading.Thread(target=self._run, args=(run,), daemon=True)

    def _run(self, run: Callable[["Program"], None]) -> None:
        self.turn.acquire()
        try:
            if not self.world.over:
                run(self)
            self.flush()
        except _Over:
            pass
        except Exception as error:  # noqa: BLE001 (it is raised again by the world)
            self.world.error = self.world.error or error
            self.world.over = True
        self.ended = True
        self.world.hand_over(self)

    def step(self) -> None:
        """Lets the others go first, if the order of this world has it so."""
        self.world.hand_over(self)
        if self.world.over:
            raise _Over

    def flush(self) -> None:
        for name, value in self.buffer:
            self.world.words[name] = value
        self.buffer.clear()

    def load(self, name: str) -> int:
        self.step()
        own = [value for word, value in self.buffer if word == name]
        return own[-1] if own else self.world.words[name]

    def store(self, name: str, value: int) -> None:
        self.step()
        self.buffer.append((name, value))
        self.world.stored(self, name, value)


class _ProgramsWords:
    """The words of the page as one program sees them."""

    def __init__(self, program: Program) -> None:
        object.__setattr__(self, "_program", program)

    def __getattr__(self, name: str) -> int:
        program: Program = object.__getattribute__(self, "_program")
        return program.load(name)

    def __setattr__(self, name: str, value: int) -> None:
        program: Program = object.__getattribute__(self, "_program")
        program.store(name, value)


class _ProgramsPage(Page):
    """The page as one program has it."""

    __slots__ = ("_program",)

    def __init__(self, program: Program, weak: bool) -> None:
        self._program = program
        self.words = cast(Words, _ProgramsWords(program))
        self.weak = weak
        self.now = self._now

    def _now(self) -> int:
        self._program.step()
        world = self._program.world
        self._program.clock = world.now
        return world.now

    def fence(self) -> None:
        self._program.step()
        if self._program.world.fences:
            self._program.flush()

    def wake(self) -> None:
        self._program.step()
        if self._program.world.wake_is_fence:
            self._program.flush()
        for program in self._program.world.programs:
            program.asleep = False

    def sleep(self, state: int, timeout_ns: int) -> None:
        # The kernel compares the word and puts the program to sleep in one.
        program = self._program
        program.step()
        program.flush()
        if program.world.words["futex"] == state & 0xFFFF_FFFF:
            program.world.count["slept"] += 1
            program.asleep = True
            program.step()


class World:
    """One order of steps; ``chooses`` says who goes next: an index into those who can."""

    def __init__(self, chooses: Callable[[int, int], int], seed: int, **how: bool) -> None:
        self.chooses, self.random = chooses, random.Random(seed)
        self.weak_machine, self.weak_code = how.get("weak_machine", False), how.get("weak_code", False)
        self.fences, self.wake_is_fence = how.get("fences", True), how.get("wake_is_fence", True)
        self.words: Dict[str, int] = {name: 0 for name, *_ in Words._fields_}
        self.words["margin"] = MARGIN
        self.now, self.steps, self.over = 1, 0, False
        self.error: Optional[Exception] = None
        self.programs: List[Program] = []
        self.finished = threading.Event()
        #: Expected closes that the main has named, by generation.
        self.closes: Dict[int, Set[int]] = {}
        #: The words of sides that they stand still.
        self.stands_in: Set[int] = set()
        #: Who is in an operation, whose lease holds, and who has the lock of places and had it last.
        self.works: Set[Program] = set()
        self.holder: Optional[Program] = None
        self.locked: Optional[Program] = None
        self.unlocked: Optional[Program] = None
        self.told_it_stands = False
        self.done = 0
        self.count: "Counter[str]" = Counter()

    def run(self, *programs: Callable[[Program], None]) -> "Counter[str]":
        self.programs = [Program(self, run) for run in programs]
        for program in self.programs:
            program.thread.start()
        self._next(0).turn.release()
        if not self.finished.wait(60):
            raise AssertionError("the model itself stands still")
        for program in self.programs:
            program.thread.join()
        if self.error is not None:
            raise self.error
        return self.count

    def _next(self, current: int) -> Program:
        able = [p for p in range(len(self.programs)) if not self.programs[p].ended and not self.programs[p].asleep]
        if self.over or not able:
            able = [p for p in range(len(self.programs)) if not self.programs[p].ended]
        return self.programs[able[self.chooses(self.steps, current) % len(able)] if len(able) > 1 else able[0]]

    def hand_over(self, current: Program) -> None:
        """One step is over: somebody's turn is next, stores may be seen, the clock may move."""
        self.steps += 1
        self.over |= self.steps > MOST_STEPS
        if self.random.random() < 0.3:
            self._show_a_store()
        if self.random.random() < 0.2:
            self.now += self.random.randrange(1, 5)
        left = [program for program in self.programs if not program.ended]
        if not left:
            self.finished.set()
            return
        if not self.over and all(program.asleep for program in left):
            self.error, self.over = Broken("somebody sleeps for ever"), True
        following = self._next(self.programs.index(current))
        if following is not current:
            following.turn.release()
            if not current.ended:
                current.turn.acquire()

    def _show_a_store(self) -> None:
        program = self.random.choice(self.programs)
        if program.buffer:
            at = 0
            if self.weak_machine:
                at = self.random.randrange(len(program.buffer))
                at = next(i for i, entry in enumerate(program.buffer) if entry[0] == program.buffer[at][0])
            name, value = program.buffer.pop(at)
            self.words[name] = value

    def stored(self, who: Program, name: str, value: int) -> None:
        """What the main names holds for the opening that it makes next, and for one that is open."""
        if name == "expected_close":
            state = self.programs[0].buffer
            seen = [v for n, v in state if n == "state"]
            current = seen[-1] if seen else self.words["state"]
            self.closes.setdefault((current >> 2) + 1, set()).add(value)
            if current & 3 == OPEN:
                self.closes.setdefault(current >> 2, set()).add(value)
        elif name == "stopped" and value != protocol.NOTHING:
            self.stands_in.add(value)
        elif name == "side_generation":
            self.count["replaced"] += self.holder is not None
            self.holder = who

    def lock(self, program: Program) -> None:
        program.step()
        while self.locked is not None:
            program.step()
        self.locked = program
        if self.unlocked is not None and self.unlocked is not program:
            self.unlocked.flush()

    def unlock(self) -> None:
        self.locked, self.unlocked = None, self.locked

    def page(self, program: Program) -> Page:
        return _ProgramsPage(program, self.weak_code)

    def starts(self, program: Program, side: SideProtocol, need: int) -> None:
        """An operation starts."""
        self.count["starts"] += 1
        self.works.add(program)
        if program is not self.holder:
            self.count["starts behind its lease"] += 1
            return
        close = max(self.closes.get(side.working_in, {0}))
        if program.clock + need > close - MARGIN:
            raise Broken(f"an operation of {need} starts at {program.clock}, and the close is {close}")
        if standing(side.generation, side.working_in) in self.stands_in:
            raise Broken("it works in an opening that it stands still in")
        if self.told_it_stands:
            raise Broken("the main was told that the side stands still")

    def main_was_told(self, operations: int) -> None:
        self.count["told"] += 1
        self.told_it_stands = True
        if self.holder in self.works:
            raise Broken("the main was told that the side stands still, and it works")
        if operations != self.done and not self.count["replaced"]:
            raise Broken("the main sees not what the side did before it stood still")


def main_of(world: World, script: List[Tuple[str, int]]) -> Callable[[Program], None]:
    """A main that goes through the script and shuts down."""

    def run(program: Program) -> None:
        page = world.page(program)
        for verb, number in [*script, ("shut_down", 0), ("ask", 0)]:
            if verb == "open":
                world.told_it_stands = False
                protocol.open_gate(page, number)
            elif verb == "close":
                protocol.close_gate(page)
            elif verb == "shut_down":
                protocol.shut_down(page)
            elif verb == "ask":
                if protocol.stopped(page) is not None:
                    if page.words.state & 3 == OPEN:
                        raise Broken("an open gate is said to stand still")
                    world.main_was_told(page.words.operations)
                elif page.words.state & 3 != OPEN and page.words.side_pid == 0:
                    world.count["absent"] += 1
                    world.main_was_told(world.done)
            else:
                program.step()

    return run


def side_of(world: World, needs: Iterator[int], sleeps: bool = True, behind: int = -1) -> Callable[[Program], None]:
    """A side that takes the place and works until the gate is shut down, or another has taken it.

    ``behind``: it comes so many steps behind the first; -1: it is the first.
    """

    def run(program: Program) -> None:
        page = world.page(program)
        while behind >= 0 and world.holder is None:
            program.step()
        for _ in range(behind):
            program.step()
        world.lock(program)
        side = protocol.claim(page, 7 + behind, MOST)
        world.unlock()
        world.lock(program)
        ready = side.ready(7 + behind)
        world.unlock()
        if not ready and world.holder is program:
            raise Broken("it lost a place that nobody took")
        while True:
            need = next(needs)
            look, state, _ = side.look(need)
            world.count[look.value] += 1
            if look is Look.GO:
                world.starts(program, side, need)
                program.step()
                world.works.remove(program)
                world.done += 1
                if not side.done():
                    if world.holder is program:
                        raise Broken("it lost a place that nobody took")
                    return
            elif look in (Look.WAIT, Look.LATE) and sleeps:
                side.fall_asleep()
                page.sleep(state, MOST)
                side.wake()
            elif look is Look.SHUT_DOWN:
                return
            elif look is Look.LEASE_LOST:
                if world.holder is program:
                    raise Broken("it lost a place that nobody took")
                return

    return run


def a_script(rng: random.Random) -> List[Tuple[str, int]]:
    verbs = [("open", rng.randrange(3, 40)), ("close", 0), ("ask", 0), ("pause", 0)]
    return [(verb, rng.randrange(3, 40)) for verb, _ in rng.choices(verbs, (4, 4, 3, 2), k=rng.randrange(3, 12))]


def needs_of(rng: random.Random) -> Iterator[int]:
    while True:
        yield rng.choice((0, 1, 3, 8, 50))


def random_order(seed: int, sides: int = 1, **how: bool) -> "Counter[str]":
    """One script in one order, both drawn by lot."""
    rng = random.Random(seed)
    stays = rng.choice((0.3, 0.7, 0.95))
    world = World(lambda _, now: now if rng.random() < stays else rng.randrange(1 + sides), seed + 1, **how)
    programs = [main_of(world, a_script(rng)), side_of(world, needs_of(rng), sleeps=rng.random() < 0.7)]
    if sides == 2:
        programs.append(side_of(world, needs_of(rng), rng.random() < 0.7, behind=rng.randrange(80)))
    return world.run(*programs)


STRONG = {"weak_machine": False, "weak_code": False}
WEAK = {"weak_machine": True, "weak_code": True}


class Model(unittest.TestCase):
    """The protocol by itself."""

    def test_random_scripts_in_random_orders(self) -> None:
        for name, how in (("strong", STRONG), ("weak", WEAK)):
            count: "Counter[str]" = Counter()
            for seed in range(400):
                with self.subTest(machine=name, seed=seed):
                    count += random_order(seed, **how)
            for happened in ("starts", "told", "absent", "slept", "wait", "late", "too short", "again", "shut down"):
                self.assertGreater(count[happened], 0, (name, happened, count))
            self.assertEqual((count["replaced"], count["lease lost"]), (0, 0))

    def test_a_side_that_lost_its_place_speaks_for_nobody(self) -> None:
        for name, how in (("strong", STRONG), ("weak", WEAK)):
            count: "Counter[str]" = Counter()
            for seed in range(400):
                with self.subTest(machine=name, seed=seed):
                    count += random_order(seed, sides=2, **how)
            for happened in ("starts", "told", "absent", "slept", "replaced", "lease lost", "shut down"):
                self.assertGreater(count[happened], 0, (name, happened, count))

    def test_two_bubbles_with_every_place_to_come_in(self) -> None:
        """Every step of a side's for the main to come in at, and steps of the main's for the side to go on at."""
        script = [("ask", 0), ("open", 30), ("close", 0), ("ask", 0), ("open", 30), ("close", 0), ("ask", 0)]
        told = starts = 0
        for first in range(40):
            for second in range(first + 1, first + 60, 2):

                def chooses(step: int, current: int, first: int = first, second: int = second) -> int:
                    return 1 if step < first or second <= step < second + 25 else 0

                world = World(chooses, first * 100 + second, **STRONG)
                count = world.run(main_of(world, script), side_of(world, iter(lambda: 1, 0), sleeps=False))
                told, starts = told + count["told"], starts + count["starts"]
        self.assertGreater(min(told, starts), 100)

    def test_the_model_sees_what_it_is_there_to_see(self) -> None:
        def breaks(**how: bool) -> str:
            for seed in range(3_000):
                try:
                    random_order(seed, sides=2, **how)
                except Broken as broken:
                    return str(broken)
            raise AssertionError(f"{how} is not found out")

        # Without the fence behind "ready": the main believes that nobody is there, and the side that the gate is open.
        self.assertIn("stands still", breaks(**STRONG, fences=False))
        # Without the one behind the main's state, and behind the word that a side sleeps on.
        self.assertIn("sleeps for ever", breaks(**STRONG, wake_is_fence=False))
        # What x86-64 may leave out, on a machine that reorders stores.
        breaks(weak_machine=True, weak_code=False)


class Calls(unittest.TestCase):
    """Whole calls, one after the other, with a clock that is set."""

    def test_random_calls_against_what_they_mean(self) -> None:
        for seed in range(60):
            with self.subTest(seed=seed):
                self._calls(random.Random(seed))

    def _calls(self, rng: random.Random) -> None:
        page = Page(Words.from_buffer(bytearray(4096)))
        clock = [rng.randrange(1, 2**40)]
        page.now = lambda: clock[0]
        words = page.words
        words.margin = margin = rng.choice((0, 5))
        words.grace = grace = rng.choice((0, 7))
        self.assertIsNone(protocol.stopped(page), "nobody has ever come")
        side = protocol.claim(page, 7, MOST)
        self.assertTrue(side.ready(7))
        opened = close = closed_at = openings = 0
        phase, stands, in_operation = 0, False, False
        # Of the opening that it works in: when it began, and when its last operation must have ended.
        began = until = looked_at = 0
        work_ns = stopped_at = self_stops = 0

        def account() -> None:
            nonlocal began, work_ns
            if began:
                end = min(clock[0], closed_at, max(until, began)) if closed_at >= began else clock[0]
                work_ns, began = work_ns + end - began, 0

        def stands_still() -> None:
            nonlocal stopped_at
            stopped_at = clock[0] if began else stopped_at
            account()

        for _ in range(400):
            clock[0] += rng.choice((0, 1, 3, 10))
            verb = rng.choice(("open", "close", "go", "go", "go", "done"))
            if verb == "open":
                length = rng.randrange(60)
                protocol.open_gate(page, length)
                opened, close, phase, stands = clock[0], clock[0] + length, OPEN, False
                openings += 1
            elif verb == "close":
                protocol.close_gate(page)
                if phase == OPEN:
                    phase, closed_at = 0, clock[0]
            elif verb == "done" and in_operation:
                self.assertTrue(side.done())
                in_operation = False
            elif verb == "go" and not in_operation:
                need = rng.choice((0, 5, 30))
                look, _, told_ns = side.look(need)
                if phase != OPEN:
                    self.assertIs(look, Look.WAIT)
                    stands = True
                    stands_still()
                elif stands:
                    self.assertIs(look, Look.WAIT, "it works in no opening twice")
                else:
                    deadline, first = close + grace - margin, looked_at != openings
                    if first:
                        # One that the main opened while it was open ends here.
                        account()
                    looked_at = openings
                    if clock[0] + need <= deadline:
                        self.assertIs(look, Look.GO)
                        in_operation = True
                        if first:
                            began, until = clock[0], deadline
                    else:
                        whole = max(0, deadline - opened)
                        self.assertIs(look, Look.WAIT if not first else Look.TOO_SHORT if need > whole else Look.LATE)
                        left = max(0, deadline - clock[0])
                        self.assertEqual(told_ns, {Look.TOO_SHORT: whole, Look.LATE: left}.get(look, 0))
                        self_stops += began > 0
                        stands = True
                        stands_still()
            self.assertEqual((words.work_ns, words.stopped_at, words.self_stops), (work_ns, stopped_at, self_stops))
            stopped = protocol.stopped(page)
            if phase == OPEN or in_operation:
                self.assertIsNone(stopped)
            elif stands:
                self.assertEqual(stopped, max(0, stopped_at - closed_at))
            self.assertEqual((words.openings, words.state & 3), (openings, phase))
            self.assertEqual(words.futex, words.state & 0xFFFF_FFFF)
        protocol.shut_down(page)
        self.assertFalse(protocol.open_gate(page, 5))
        self.assertEqual((words.state & 3, side.look(0)[0]), (SHUT_DOWN, Look.SHUT_DOWN))

    def test_who_loses_the_place_gives_no_word_any_more(self) -> None:
        page = Page(Words.from_buffer(bytearray(4096)))
        first = protocol.claim(page, 7, MOST)
        protocol.open_gate(page, 10**9)
        self.assertIs(first.look(0)[0], Look.GO)
        protocol.close_gate(page)
        second = protocol.claim(page, 8, MOST)
        before = bytes(page.words)
        self.assertIs(first.look(0)[0], Look.LEASE_LOST)
        self.assertFalse(first.done())
        self.assertFalse(protocol.renew(page, first.generation, MOST, 5))
        self.assertFalse(first.ready(7))
        first.wake()
        first.leave()
        self.assertEqual(bytes(page.words), before)
        # A word that it had begun to give before is not the second's.
        page.words.stopped = standing(first.generation, 2)
        self.assertIsNone(protocol.stopped(page))
        for _ in range(2):
            self.assertIs(second.look(0)[0], Look.WAIT)
            self.assertIsNotNone(protocol.stopped(page))
            # One that comes over the second's own is no more than that: it is said again.
            page.words.stopped = standing(first.generation, 2)
            self.assertIsNone(protocol.stopped(page))
        # Its lease is its own alone: another's ends at another time.
        self.assertFalse(protocol.renew(page, second.generation, 5, 6))
        self.assertTrue(protocol.renew(page, second.generation, MOST, 6))
        self.assertEqual(page.words.lease_until, 6)

    def test_a_claim_that_is_cut_off_leaves_nobody_who_may_start(self) -> None:
        page = Page(Words.from_buffer(bytearray(4096)))
        first = protocol.claim(page, 7, MOST)
        self.assertTrue(first.ready(7))
        protocol.open_gate(page, 10**9)
        self.assertIs(first.look(0)[0], Look.GO)

        class Killed(Exception):
            pass

        class Cut(Page):
            """A page whose program is killed at its first fence."""

            __slots__ = ()

            def fence(self) -> None:
                raise Killed

        with self.assertRaises(Killed):
            protocol.claim(Cut(page.words), 8, MOST)
        self.assertEqual(page.words.side_generation, 2)
        self.assertIs(first.look(0)[0], Look.LEASE_LOST)
        protocol.close_gate(page)
        self.assertIsNone(protocol.stopped(page))

    def test_what_a_side_says_later_changes_no_stop(self) -> None:
        page, clock = Page(Words.from_buffer(bytearray(4096))), [100]
        page.now = lambda: clock[0]
        words = page.words
        side = protocol.claim(page, 7, MOST)
        protocol.open_gate(page, 100)
        self.assertEqual(side.look(50), (Look.GO, 0, 0))
        clock[0] = 160
        self.assertIs(side.look(50)[0], Look.WAIT)
        self.assertEqual((words.stopped_at, words.work_ns, words.self_stops), (160, 60, 1))
        for now in (170, 180):
            clock[0] = now
            self.assertIs(side.look(0)[0], Look.WAIT, "what still fits starts no more")
        protocol.close_gate(page)
        clock[0] = 200
        self.assertIs(side.look(0)[0], Look.WAIT)
        self.assertEqual((words.stopped_at, words.work_ns, protocol.stopped(page)), (160, 60, 0))
        # What drains behind the closing is no use of the opening, whatever the side says of it.
        for length, closed, drained, work_ns in ((100, 240, 270, 40), (30, 290, 300, 30)):
            clock[0], before = 200, words.work_ns
            protocol.open_gate(page, length)
            self.assertIs(side.look(10)[0], Look.GO)
            clock[0] = closed
            protocol.close_gate(page)
            clock[0] = drained
            self.assertIs(side.look(10)[0], Look.WAIT)
            self.assertEqual((words.work_ns - before, words.stopped_at), (work_ns, drained))
            self.assertEqual(protocol.stopped(page), drained - closed)
        self.assertEqual(words.self_stops, 1, "where the closing came first it did not stop by the clock")

    def test_a_devices_opening_is_never_taken_for_the_mains(self) -> None:
        page, clock = Page(Words.from_buffer(bytearray(4096))), [100]
        page.now = lambda: clock[0]
        words = page.words
        words.driver = 1
        self.assertIsNone(protocol.stopped(page), "nobody has ever come")
        side = protocol.claim(page, 7, MOST)
        words.device_generation, words.device_expected_us, words.device_open = 1, 1, 1
        for need_ns in (2_000, 10, 10):
            self.assertEqual(
                side.look(need_ns), (Look.WAIT, 1 << 2 | 1, 0), "of unknown age, and no word about its length"
            )
        words.device_open = 0
        self.assertIs(side.look(0)[0], Look.WAIT)
        words.device_generation, words.device_open = 2, 1
        self.assertIs(side.look(2_000)[0], Look.TOO_SHORT)
        words.device_open = 0
        self.assertIs(side.look(0)[0], Look.WAIT)
        words.device_generation, words.device_open = 3, 1
        self.assertIs(side.look(10)[0], Look.GO)
        # The main's own word has by accident the value that a main's opening of this number would have.
        words.state = 3 << 2 | 1
        words.device_open = 0
        self.assertIs(side.look(10)[0], Look.WAIT)
        self.assertEqual(protocol.stopped(page), 0)
        self.assertEqual(words.self_stops, 0)

    def test_ctrl_c_in_the_middle_of_a_look_starts_nothing_behind_a_word(self) -> None:
        """At whichever access it comes: of a first look at an opening, and of a stop by the clock."""
        interrupted = 0
        for stops in (False, True):
            for accesses in range(30):
                page, clock = Page(Words.from_buffer(bytearray(4096))), [100]
                page.now = lambda clock=clock: clock[0]  # type: ignore[misc]
                words = page.words
                side = protocol.claim(page, 7, MOST)
                protocol.open_gate(page, 100)
                if stops:
                    self.assertIs(side.look(10)[0], Look.GO)
                    clock[0] = 195
                page.words = cast(Words, _Interrupted(words, accesses))
                try:
                    side.look(10)
                except KeyboardInterrupt:
                    interrupted += 1
                page.words = words
                said = words.stopped == standing(side.generation, 1)
                look = side.look(0)[0]
                self.assertFalse(said and look is Look.GO)
                if look is Look.GO:
                    self.assertEqual(words.started, 1)
                clock[0] = 201
                protocol.close_gate(page)
                self.assertIs(side.look(0)[0], Look.WAIT)
                self.assertIsNotNone(protocol.stopped(page))
                self.assertIn(words.stopped_at, (201, 195 if stops else 201))
        self.assertGreater(interrupted, 15)


class _Interrupted:
    """Words of a page at one access of which Ctrl-C comes."""

    def __init__(self, words: Words, accesses: int) -> None:
        object.__setattr__(self, "_words", words)
        object.__setattr__(self, "_left", accesses)

    def _access(self) -> Words:
        left: int = object.__getattribute__(self, "_left")
        object.__setattr__(self, "_left", left - 1)
        if left == 0:
            raise KeyboardInterrupt
        words: Words = object.__getattribute__(self, "_words")
        return words

    def __getattr__(self, name: str) -> int:
        return int(getattr(self._access(), name))

    def __setattr__(self, name: str, value: int) -> None:
        setattr(self._access(), name, value)
