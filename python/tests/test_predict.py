"""Python's answers are the program's own, number for number, over every published cost model."""

from __future__ import annotations

import random
import tempfile
import unittest
from pathlib import Path
from typing import Any, Dict, List, Tuple

from bubblebench.cost_model import CostModelError, load

from . import program, questions, variants

#: Questions in all; more than half must be answered for the comparison to say anything.
QUESTIONS = 1_000


def _of_model(seed: int, path: Path, count: int) -> List[Tuple[Dict[str, Any], Dict[str, Any], Dict[str, Any]]]:
    """Questions with the program's answer and Python's."""
    rng, model = random.Random(f"{seed} {path.parent.name}"), load(path)
    asked = [questions.question(rng, model) for _ in range(count)]
    answers = []
    for question in asked:
        try:
            answers.append(questions.answer(model, question))
        except CostModelError as error:
            answers.append({"error": str(error)})
    return list(zip(asked, program.ask(path, asked), answers))


class Predict(unittest.TestCase):
    """Whoever changes a constant on either side sees this fail."""

    def setUp(self) -> None:
        if not program.program().exists():
            self.skipTest(f"{program.program()} is not there: build it with cargo, or set BUBBLEBENCH")

    def test_a_thousand_random_questions_have_the_programs_answers(self) -> None:
        paths = program.cost_models()
        self.assertGreater(len(paths), 5)
        counts = self._compare(paths, -(-QUESTIONS // len(paths)))
        self.assertGreaterEqual(sum(counts.values()), QUESTIONS)
        self.assertGreater(counts["answered"], QUESTIONS // 2, counts)
        self.assertGreater(counts["refused"], QUESTIONS // 20, counts)

    def test_models_made_up_for_what_none_published_has_give_the_programs_answers(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            counts = self._compare(list(variants.write(Path(folder))), 200)
        self.assertGreater(counts["answered"], 700, counts)

    def _compare(self, paths: List[Path], each: int) -> Dict[str, int]:
        counts = {"answered": 0, "refused": 0}
        for path in paths:
            compared = _of_model(1, path, each)
            self.assertEqual(len(compared), each)
            for question, theirs, ours in compared:
                with self.subTest(machine=path.parent.name, question=question):
                    # Equal to the last digit, and so is what is said of a question that cannot be answered.
                    self.assertEqual(ours, theirs)
                counts["refused" if "error" in theirs else "answered"] += 1
        return counts

    def test_layers_and_pairs_that_were_measured_have_the_programs_answers(self) -> None:
        path = program.ROOT / "results/published/amd-epyc-2c/cost_model.json"
        model = load(path)
        asked: List[Dict[str, Any]] = [
            {
                "kind": "layer",
                "hidden": a.shape.hidden,
                "heads": a.shape.heads,
                "sequence": a.shape.sequence,
                "micro_batch": a.shape.micro_batch,
                "tensor": a.shape.tensor,
                "dtype": a.shape.dtype,
                "recompute": a.shape.recompute,
            }
            for a in model._file.layer
        ]
        asked += [{"kind": "corun", "main": m, "side": s, "sharing": h} for m, s, h in model.pairs()]
        ours = [questions.answer(model, question) for question in asked]
        self.assertEqual(ours, program.ask(path, asked))
        self.assertTrue(all(a.get("measured", True) for a in ours))


if __name__ == "__main__":
    unittest.main()
