"""The answers: times with their intervals, and whether the question lies within what was measured."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Dict, Optional, Sequence

from .numbers import divide, total

#: Name and version of the format of ``predict --json``, which ``to_json`` of every answer follows.
SCHEMA = "bubblebench.prediction/1"

#: Least width of either side of an interval, relative: two runs on an idle machine already differ by this much.
_FLOOR = 0.005


@dataclass(frozen=True)
class Interval:
    """A median with its 95 % interval, in the unit that the field's name gives."""

    median: float
    low: float
    high: float


@dataclass(frozen=True)
class Outside:
    """How far the inputs of a prediction lie outside the ranges that were measured.

    ``distance`` is Σ |ln(value ÷ nearest bound)| beyond half or double, ``outside`` the number of inputs outside their range,
    ``unknown`` of those that have none.
    """

    distance: float = 0.0
    outside: int = 0
    unknown: int = 0

    def in_range(self) -> bool:
        """Whether every input has a range and lies within it."""
        return self.distance == 0.0 and self.unknown == 0 and self.outside == 0


@dataclass(frozen=True)
class Prediction:
    """A predicted time in nanoseconds with its 95 % interval; ``in_range`` says whether every input was measured around."""

    median_ns: float
    low_ns: float
    high_ns: float
    in_range: bool

    def to_json(self) -> Dict[str, Any]:
        """What stands in ``predict --json`` for this time."""
        return {
            "median_ns": _number(self.median_ns),
            "low_ns": _number(self.low_ns),
            "high_ns": _number(self.high_ns),
            "in_range": self.in_range,
        }


@dataclass(frozen=True)
class CollectivePrediction(Prediction):
    """The predicted time of one collective or send/recv, in nanoseconds."""

    def to_json(self) -> Dict[str, Any]:
        """What ``predict --json`` prints."""
        return {"schema": SCHEMA, **super().to_json()}


@dataclass(frozen=True)
class LayerPrediction:
    """Predicted times of a GPT layer for one micro-batch on one tensor-parallel rank, and its sizes in bytes on that rank."""

    forward: Prediction
    backward_input: Prediction
    backward_weight: Prediction
    #: The three phases one after another, as they run together.
    forward_backward: Prediction
    #: Activations kept for one micro-batch between its forward and its backward.
    activation_bytes: int
    #: Parameters of the layer in its element type.
    parameter_bytes: int

    def to_json(self) -> Dict[str, Any]:
        """What ``predict --json`` prints."""
        return {
            "schema": SCHEMA,
            "forward": self.forward.to_json(),
            "backward_input": self.backward_input.to_json(),
            "backward_weight": self.backward_weight.to_json(),
            "forward_backward": self.forward_backward.to_json(),
            "activation_bytes": self.activation_bytes,
            "parameter_bytes": self.parameter_bytes,
        }


@dataclass(frozen=True)
class CorunPrediction:
    """Predicted slowdown of a main that runs beside a side, and the speed that is left to the side."""

    #: Time of the main together with the side ÷ alone.
    slowdown: Interval
    #: Progress of the side together with the main ÷ alone; ``None`` where no pair of this side tells.
    side_rate: Optional[float]
    #: Whether this very pair was measured.
    measured: bool
    in_range: bool

    def to_json(self) -> Dict[str, Any]:
        """What ``predict --json`` prints."""
        s = self.slowdown
        return {
            "schema": SCHEMA,
            "slowdown": {"median": _number(s.median), "low": _number(s.low), "high": _number(s.high)},
            "side_rate": None if self.side_rate is None else _number(self.side_rate),
            "measured": self.measured,
            "in_range": self.in_range,
        }


def _number(value: float) -> Optional[float]:
    """JSON has no infinity and nothing that is no number: null stands for both."""
    return value if math.isfinite(value) else None


def with_spread(median_ns: float, low: float, high: float, outside: Outside) -> Prediction:
    """The interval of the fit, and wider outside its range."""
    low, high = max(low, _FLOOR), max(high, _FLOOR)
    d = outside.distance
    add = 0.25 * (outside.distance + float(outside.unknown)) + 0.05 * float(outside.outside)
    below = 1.0 + low * (1.0 + d) / max(1.0 - low, 0.05) + add
    above = 1.0 + high * (1.0 + d) + add
    within = outside.in_range()
    low_ns = median_ns * max(1.0 - low, 0.0) if within else divide(median_ns, below)
    return Prediction(median_ns, low_ns, median_ns * above, within)


def sum_of(parts: Sequence[Prediction]) -> Prediction:
    """The plain sum, of the ends of the intervals too."""
    return Prediction(
        total(p.median_ns for p in parts),
        total(p.low_ns for p in parts),
        total(p.high_ns for p in parts),
        all(p.in_range for p in parts),
    )


def sum_of_kin(parts: Sequence[Prediction]) -> Prediction:
    """The sum of operations whose errors are half of a kind: between the plain sum and the root of the squares."""
    plain = sum_of(parts)

    def off(distances: Sequence[float]) -> float:
        squares = total(d * d for d in distances)
        whole = total(distances)
        return math.sqrt(0.5 * (whole * whole) + 0.5 * squares)

    below = off([abs(p.low_ns - p.median_ns) for p in parts])
    above = off([abs(p.high_ns - p.median_ns) for p in parts])
    return Prediction(plain.median_ns, max(plain.median_ns - below, 0.0), plain.median_ns + above, plain.in_range)
