"""Files that are no cost model of a version this package knows are refused in one sentence."""

from __future__ import annotations

import copy
import json
import pickle
import tempfile
import unittest
from pathlib import Path
from typing import Any, Callable, Dict, Union

from bubblebench.cost_model import CostModelError, load
from bubblebench.cost_model import numbers

from . import program

PUBLISHED = program.ROOT / "results/published/amd-epyc-2c/cost_model.json"


def _set(*keys: Any) -> "Callable[[Dict[str, Any]], None]":
    """A change of the file: the last of these is put where the others lead."""

    def change(model: Dict[str, Any]) -> None:
        place: Any = model
        for key in keys[:-2]:
            place = place[key]
        place[keys[-2]] = keys[-1]

    return change


class Reader(unittest.TestCase):
    """What is written into a folder of the test's own is read back, or refused."""

    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.path = Path(folder.name) / "cost_model.json"
        self.model: Dict[str, Any] = json.loads(PUBLISHED.read_text(encoding="utf-8"))

    def refused(self, content: Union[str, bytes]) -> str:
        self.path.write_bytes(content if isinstance(content, bytes) else content.encode())
        with self.assertRaises(CostModelError) as caught:
            load(self.path)
        return str(caught.exception)

    def test_every_published_model_is_read(self) -> None:
        for path in program.cost_models():
            self.assertEqual(load(path).machine, json.loads(path.read_text(encoding="utf-8"))["machine"]["name"])

    def test_version_1_is_read_and_later_ones_are_refused(self) -> None:
        self.model["schema"] = "bubblebench.cost_model/1"
        self.path.write_text(json.dumps(self.model), encoding="utf-8")
        self.assertEqual(load(self.path).schema, "bubblebench.cost_model/1")
        self.model["schema"] = "bubblebench.cost_model/3"
        self.assertIn("reads up to bubblebench.cost_model/2; update", self.refused(json.dumps(self.model)))
        self.model["schema"] = "bubblebench.plan/2"
        self.assertIn("not bubblebench.cost_model/2; give a cost_model", self.refused(json.dumps(self.model)))
        del self.model["schema"]
        self.assertIn('no "schema" field', self.refused(json.dumps(self.model)))

    def test_files_that_are_no_json_are_refused(self) -> None:
        for content in (b"", b"{", b"[1e999]", b'{"schema": NaN}', b"\xff", b"[" * 100_000):
            self.assertRegex(self.refused(content), "is not JSON|cannot read", str(content[:10]))
        self.assertIn("no \"schema\" field", self.refused("[]"))
        with self.assertRaisesRegex(CostModelError, "nowhere.json.*; check the path"):
            load(self.path.with_name("nowhere.json"))

    def test_unknown_and_missing_keys_and_wrong_types_are_named(self) -> None:
        first = self.model["collectives"][0]["segments"][0]
        for change, said in (
            (_set("machines", 1), "unknown field `machines`"),
            (_set("layer", 0, "shape", "hiden", 1), "unknown field `layer[0].shape.hiden`"),
            (_set("collectives", 0, "ranks", 2.0), "collectives[0].ranks is no count"),
            (_set("collectives", 0, "ranks", -1), "collectives[0].ranks is no count"),
            (_set("layer", 0, "shape", "dtype", "f8"), "layer[0].shape.dtype is none of"),
            (_set("valid", []), "valid is no object"),
            (_set("layer", 0, "shape", "bias", "no"), "layer[0].shape.bias is neither true nor false"),
            (_set("collectives", 0, "segments", [{**first, "from_bytes": True}]), "from_bytes is no count"),
        ):
            model = copy.deepcopy(self.model)
            change(model)
            self.assertIn(said, self.refused(json.dumps(model)))
        del self.model["layer"]
        self.assertIn("missing field `layer`", self.refused(json.dumps(self.model)))

    def test_numbers_that_cannot_be_used_are_named(self) -> None:
        for change, said in (
            (_set("operations", "gemm", "forward", "coefficients_ns", [1.0]), "fit `forward` has a coefficient"),
            (_set("operations", "gemm", "forward", "features", 0, "flops"), "a feature `flops` this version"),
            (_set("operations", "gemm", "forward", "anchors", "sizes", 0, "q"), "a size `q` this version"),
            (_set("collectives", 0, "segments", 0, "latency_ns", -1.0), "the cost model's segments of"),
            (_set("layer", 0, "forward_ns", "low", 1e12), "the cost model's layer h"),
            (_set("layer", 0, "shape", "heads", 7), "the cost model's layer h"),
            (_set("interference", "pairs", 0, "slowdown", "median", 0.0), "the cost model's slowdown of"),
            (_set("interference", "pairs", 0, "side_alone_per_s", -1.0), "the cost model's steps a second of"),
            (_set("topology", {"kind": "host", "linked_gpus": 0}), "the cost model's topology has a number"),
            (_set("gate", "open_ns", -1), "the cost model's gate has a time"),
        ):
            model = copy.deepcopy(self.model)
            change(model)
            self.assertIn(said, self.refused(json.dumps(model)))


class Questions(unittest.TestCase):
    """What is wrong with a question is said in the names of the arguments."""

    def setUp(self) -> None:
        self.model = load(PUBLISHED)

    def test_wrong_arguments_are_named(self) -> None:
        for arguments, said in (
            ({"hidden": 640, "heads": 7}, "hidden 640 cannot be divided by heads 7"),
            ({"hidden": -1, "heads": 1}, "hidden is -1; give a whole number"),
            ({"hidden": 64.0, "heads": 1}, "hidden is 64.0"),
            ({"hidden": True, "heads": 1}, "hidden is True"),
            ({"hidden": 640, "heads": 10, "norm": "rmsnrom"}, "did you mean `rmsnorm`"),
            ({"hidden": 640, "heads": 10, "dtype": "f23"}, "did you mean `f32`"),
            ({"hidden": 640, "heads": 10, "gated": 1}, "gated is 1; give True or False"),
        ):
            with self.assertRaises(CostModelError) as caught:
                self.model.predict_layer(sequence=128, micro_batch=1, **arguments)
            self.assertIn(said, str(caught.exception))
        with self.assertRaisesRegex(CostModelError, "did you mean `all_reduce`"):
            self.model.predict_collective("all_recude", 2, 8)
        with self.assertRaisesRegex(CostModelError, "1 rank on 1 node with 0 bytes make no collective"):
            self.model.predict_collective("all_reduce", 1, 0)

    def test_answers_and_errors_are_values(self) -> None:
        answer = self.model.predict_collective("all_reduce", 2, 65536)
        self.assertEqual(answer, pickle.loads(pickle.dumps(answer)))
        self.assertTrue(answer.in_range and answer.low_ns <= answer.median_ns <= answer.high_ns)
        with self.assertRaises(AttributeError):
            answer.median_ns = 0.0  # type: ignore[misc]
        error = pickle.loads(pickle.dumps(CostModelError("no", "do")))
        self.assertEqual((str(error), error.what, error.cure), ("no; do", "no", "do"))


class Numbers(unittest.TestCase):
    """Where Python raises, the program's doubles are infinite or no numbers."""

    def test_divisions_and_logarithms_are_ieee(self) -> None:
        self.assertEqual(numbers.divide(1.0, 0.0), float("inf"))
        self.assertEqual(numbers.divide(-1.0, 0.0), float("-inf"))
        self.assertNotEqual(numbers.divide(0.0, 0.0), numbers.divide(0.0, 0.0))
        self.assertEqual(numbers.ln(0.0), float("-inf"))
        self.assertNotEqual(numbers.ln(-1.0), numbers.ln(-1.0))
        self.assertEqual(numbers.exp(1e9), float("inf"))

    def test_sums_go_from_left_to_right(self) -> None:
        self.assertEqual(numbers.total([1e16, 1.0, 1.0, -1e16]), 0.0)

    def test_cube_roots_are_near_enough_to_round(self) -> None:
        for side in (1, 2, 63, 64, 1000, 99_999):
            self.assertEqual(round(numbers.cube_root(float(side**3))), side)


if __name__ == "__main__":
    unittest.main()
