"""The segments of a side's step: which cuts ask, and for how much. No torch, no clock."""

from __future__ import annotations

import unittest
from typing import List, Optional

from bubblebench.side.segments import Segments, Times

US = 1_000


def run(segments: Segments, lengths: List[int], labels: Optional[List[str]] = None) -> List[int]:
    """One step whose cuts are so many nanoseconds apart: the cuts that asked."""
    labels = labels or [f"cut {cut}" for cut in range(len(lengths))]
    asked: List[int] = []
    spent = 0
    for cut, length in enumerate(lengths):
        if segments.begins(cut, labels[cut]):
            if asked:
                segments.add(asked[-1], labels[asked[-1]], spent)
            asked.append(cut)
            spent = 0
        spent += length
    segments.add(asked[-1], labels[asked[-1]], spent)
    return asked


class Joining(unittest.TestCase):
    def test_short_segments_are_joined_and_long_ones_stay(self) -> None:
        segments = Segments(0.99)
        lengths = [10 * US, 50 * US, 60 * US, 300 * US, 5 * US, 5 * US]
        self.assertEqual(run(segments, lengths), [0, 1, 2, 3, 4, 5])
        segments.join(150 * US)
        self.assertEqual(run(segments, lengths), [0, 3, 4])
        table = segments.table()
        self.assertEqual(
            [(row.label, row.joined, row.need_ns) for row in table],
            [("cut 0", 2, 120 * US), ("cut 3", 0, 300 * US), ("cut 4", 1, 10 * US)],
        )

    def test_no_joined_segment_is_longer_than_asked_for(self) -> None:
        lengths = [(7 * n % 13 + 1) * 10 * US for n in range(60)]
        segments = Segments(0.99)
        run(segments, lengths)
        segments.join(150 * US)
        asked = run(segments, lengths)
        ends = [*asked[1:], len(lengths)]
        self.assertTrue(all(sum(lengths[a:b]) <= 150 * US for a, b in zip(asked, ends)))
        self.assertTrue(all(sum(lengths[a : b + 1]) > 150 * US for a, b in zip(asked, ends[:-1])))

    def test_a_step_with_more_cuts_than_before_asks_at_each(self) -> None:
        segments = Segments(0.99)
        run(segments, [10 * US, 20 * US])
        segments.join(150 * US)
        self.assertEqual(run(segments, [10 * US, 20 * US, 30 * US, 40 * US]), [0, 2, 3])

    def test_what_is_unknown_may_be_as_long_as_the_longest(self) -> None:
        segments = Segments(0.99)
        run(segments, [10 * US, 200 * US, 30 * US])
        segments.join(150 * US)
        run(segments, [10 * US, 200 * US, 30 * US])
        self.assertEqual(segments.need_ns(2, "cut 2"), 30 * US)
        self.assertEqual(segments.need_ns(2, "another"), 200 * US)
        self.assertEqual(segments.need_ns(7, "cut 7"), 200 * US)


    def test_a_step_that_goes_another_way_asks_at_each_cut_and_for_what_that_took(self) -> None:
        segments = Segments(0.99)
        usual = [10 * US] * 6
        run(segments, usual)
        segments.join(150 * US)
        for _ in range(3):
            self.assertEqual(run(segments, usual), [0])
        before = segments.table()
        other, labels = [10 * US, 10 * US, 9000 * US, 40 * US], ["cut 0", "cut 1", "evaluation", "forward"]
        self.assertEqual(run(segments, other, labels), [0, 2, 3])
        self.assertEqual(segments.table(), before, "its lengths are no word about the usual way")
        self.assertEqual(run(segments, usual), [0])
        self.assertTrue(segments.begins(0, "cut 0") and not segments.begins(1, "cut 1"))
        self.assertTrue(segments.begins(2, "evaluation"))
        self.assertEqual(segments.need_ns(2, "evaluation"), 9000 * US)
        self.assertTrue(segments.begins(3, "cut 3"))
        self.assertEqual(segments.need_ns(3, "cut 3"), 9000 * US)


class Quantiles(unittest.TestCase):
    def test_a_high_quantile_of_the_last_lengths(self) -> None:
        times = Times()
        for length in range(1, 1001):
            times.add(length)
        self.assertEqual((len(times), times.quantile(1.0), times.quantile(0.5)), (128, 1000, 937))
        self.assertEqual(times.quantile(0.99), 999)
        self.assertEqual(Times().quantile(0.99), 0)


if __name__ == "__main__":
    unittest.main()
