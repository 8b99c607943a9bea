"""What a hook learns from lengths: no clock, no framework."""

from __future__ import annotations

import random
import unittest
from typing import Iterable, List, Optional

from bubblebench.hooks.learning import PROGRAMS, Position, Program, Programs, Settings

MS = 1_000_000


def position(lengths_ms: Iterable[float], kind: str = "recv", settings: Settings = Settings()) -> Position:
    """A position that has seen these lengths."""
    seen = Position(kind, settings)
    for length in lengths_ms:
        seen.learn(int(length * MS))
    return seen


class Lengths(unittest.TestCase):
    def test_the_first_iterations_only_learn(self) -> None:
        for seen in range(8):
            known = position([10.0] * seen)
            self.assertEqual(known.expected_ns(), 10 * MS if seen >= 5 else None, seen)
            self.assertEqual(known.state(), "learned" if seen >= 5 else "learning")

    def test_what_is_expected_is_the_low_quantile_of_the_window(self) -> None:
        lengths = [random.Random(3).uniform(9, 11) for _ in range(200)]
        for quantile in (0.0, 0.02, 0.1, 0.5, 1.0):
            known = position(lengths, settings=Settings(quantile=quantile))
            window = sorted(int(length * MS) for length in lengths[-64:])
            self.assertEqual(known.expected_ns(), window[int(quantile * 63)])
            self.assertEqual(known.median_ns(), window[31])
        self.assertEqual(position(lengths).count, 200)

    def test_about_the_quantile_of_bubbles_is_shorter_than_what_was_expected(self) -> None:
        source, known, shorter = random.Random(5), Position("recv", Settings()), 0
        for _ in range(3000):
            length = int(source.gauss(10, 0.5) * MS)
            expected = known.expected_ns()
            shorter += expected is not None and length < expected
            known.learn(length)
        # Less than the quantile itself: the last few have a say too.
        self.assertTrue(0.04 < shorter / 3000 < 0.11, shorter / 3000)

    def test_bubbles_that_shrink_bit_by_bit_are_followed(self) -> None:
        for shrink, most in ((0.001, 0.2), (0.002, 0.25), (0.005, 0.4)):
            source, known, longer, length, seen = random.Random(5), Position("recv", Settings()), 0, 200.0, 0
            while length > 10:
                length *= 1 - shrink
                actual = int(source.gauss(length, 0.02 * length) * MS)
                expected = known.expected_ns()
                seen += expected is not None
                longer += expected is not None and actual < expected
                known.learn(actual)
            self.assertLess(longer / seen, most, shrink)

    def test_a_step_down_that_is_no_jump_costs_one_bubble(self) -> None:
        known, longer = position([10.0] * 64), 0
        for _ in range(20):
            longer += (known.expected_ns() or 0) > int(5.5 * MS)
            known.learn(int(5.5 * MS))
        self.assertEqual(longer, 1)

    def test_short_bubbles_and_collectives_stay_closed(self) -> None:
        self.assertEqual((position([0.4] * 9).state(), position([0.4] * 9).expected_ns()), ("short", None))
        reduce = position([9.0] * 9, kind="reduce")
        self.assertEqual((reduce.state(), reduce.expected_ns()), ("collective", None))


class Jumps(unittest.TestCase):
    def expected(self, lengths: List[float]) -> Optional[float]:
        found = position([10.0] * 20 + lengths).expected_ns()
        return None if found is None else found / MS

    def test_one_much_shorter_closes_until_the_next_usual_one(self) -> None:
        self.assertIsNone(self.expected([1.0]))
        self.assertEqual(self.expected([1.0, 10.0]), 10.0)

    def test_one_much_longer_changes_nothing(self) -> None:
        self.assertEqual(self.expected([500.0]), 10.0)
        self.assertEqual(self.expected([500.0, 500.0, 10.0]), 10.0)

    def test_lengths_that_stay_changed_are_learned_anew(self) -> None:
        for new, forgotten in ((3.0, 2), (40.0, 3)):
            for seen in range(forgotten, forgotten + 4):
                self.assertIsNone(self.expected([new] * seen), (new, seen))
            self.assertEqual(self.expected([new] * (forgotten + 4)), new)
            self.assertEqual(position([10.0] * 20 + [new] * 9).unlearned, 1)

    def test_one_up_and_one_down_forget_nothing(self) -> None:
        known = position([10.0] * 20 + [50.0, 1.0, 50.0, 50.0, 10.0])
        self.assertEqual((known.unlearned, known.expected_ns()), (0, 10 * MS))

    def test_what_varies_without_jumping_is_never_unlearned(self) -> None:
        source = random.Random(1)
        known = position(source.uniform(8, 14) for _ in range(500))
        self.assertEqual((known.unlearned, known.state()), (0, "learned"))

    def test_lengths_of_microseconds_do_not_jump(self) -> None:
        self.assertEqual(position([0.01, 0.01, 0.15, 0.16, 0.01] * 9).unlearned, 0)


class Order(unittest.TestCase):
    def test_other_waits_begin_anew(self) -> None:
        program = Program("step", Settings())
        for _ in range(6):
            program.finished(["recv", "send"], [10 * MS, 5 * MS])
        self.assertEqual((program.expected_ns(0, "recv"), program.expected_ns(1, "send")), (10 * MS, 5 * MS))
        self.assertIsNone(program.expected_ns(0, "send"))
        self.assertIsNone(program.expected_ns(2, "recv"))
        program.finished(["recv", "recv", "send"], [10 * MS] * 3)
        self.assertIsNone(program.expected_ns(0, "recv"))
        self.assertEqual(
            [(row.position, row.kind, row.count) for row in program.table()],
            [(0, "recv", 1), (1, "recv", 1), (2, "send", 1)],
        )

    def test_programs_are_learned_apart_and_the_one_longest_ago_is_forgotten(self) -> None:
        programs = Programs(Settings())
        for _ in range(6):
            programs.get("train", "train").finished(["recv"], [10 * MS])
        programs.get("eval", "eval").finished(["recv"], [2 * MS])
        self.assertEqual(programs.get("train", "train").expected_ns(0, "recv"), 10 * MS)
        self.assertEqual([row.program for row in programs.table()], ["train", "eval"])
        for number in range(PROGRAMS - 1):
            programs.get(number, str(number))
        self.assertEqual(programs.get("train", "train").iterations, 6)
        self.assertEqual(programs.get("eval", "eval").iterations, 0)


if __name__ == "__main__":
    unittest.main()
