"""The time of one operation: Σ coefficient · feature, corrected near measured cases, by the fit that is nearest to what is
asked. docs/cost-model.md lists the features and sizes."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Callable, Dict, List, Optional, Sequence, Tuple

from .errors import CostModelError
from .numbers import ceil, cube_root, exp, ln, total
from .operation import DTYPES, GEMM, STREAMING, Operation, elements, linear
from .records import Anchors, Fit, OperationFits

#: Half the interval, relative, of an operation that was measured itself.
AS_MEASURED = 0.08
#: Half the interval, relative, of a time that only a roofline gives.
_ROOFLINE = 0.3
#: Name of the fit to all streaming operations together.
ANY_STREAMING = "any"


@dataclass(frozen=True)
class FeatureInput:
    """The quantities that features are computed from, of one operation or one phase of a layer."""

    flop: float = 0.0
    bytes: float = 0.0
    mnk: Tuple[float, float, float] = (0.0, 0.0, 0.0)
    gelu_elements: float = 0.0
    weights: float = 0.0
    pairs: float = 0.0
    product_flop: float = 0.0
    rows: float = 0.0
    attention_pairs: float = 0.0
    attention: Tuple[float, float, float] = (0.0, 0.0, 0.0)
    operations_ns: float = 0.0
    phases_ns: float = 0.0

    @staticmethod
    def of(operation: Operation) -> "FeatureInput":
        """The quantities of a single operation."""
        return FeatureInput(
            flop=operation.flop,
            bytes=operation.bytes,
            mnk=operation.mnk,
            gelu_elements=operation.gelu_elements,
            weights=operation.weights,
            pairs=operation.pairs,
            attention=operation.attention,
        )


#: Gives the value of a feature, or of a size.
Value = Callable[[FeatureInput], float]

_FEATURES: Dict[str, Value] = {
    "1": lambda work: 1.0,
    "flop": lambda work: work.flop,
    "bytes": lambda work: work.bytes,
    "m*k": lambda work: work.mnk[0] * work.mnk[2],
    "n*k": lambda work: work.mnk[1] * work.mnk[2],
    "m*n": lambda work: work.mnk[0] * work.mnk[1],
    "weights": lambda work: work.weights,
    "gelu_elements": lambda work: work.gelu_elements,
    "pairs": lambda work: work.pairs,
    "product_flop": lambda work: work.product_flop,
    "operations_ns": lambda work: work.operations_ns,
    "phases_ns": lambda work: work.phases_ns,
}

_SIZES: Dict[str, Value] = {
    "m": lambda work: work.mnk[0],
    "n": lambda work: work.mnk[1],
    "k": lambda work: work.mnk[2],
    "batch*heads": lambda work: work.attention[0],
    "sequence": lambda work: work.attention[1],
    "head_size": lambda work: work.attention[2],
    "bytes": lambda work: work.bytes,
    "rows": lambda work: work.rows,
    "product_flop/rows": lambda work: work.product_flop / max(work.rows, 1.0),
    "attention_pairs/rows": lambda work: work.attention_pairs / max(work.rows, 1.0),
}


def _count(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() and int(text) < 2**64 else 0


def _padded(tile: float) -> Value:
    def value(work: FeatureInput) -> float:
        m, n, k = work.mnk
        return 2.0 * ceil(m / tile) * tile * ceil(n / tile) * tile * k

    return value


def _wave(tile: float, sms: float) -> Value:
    def value(work: FeatureInput) -> float:
        m, n, k = work.mnk
        return 2.0 * ceil(ceil(m / tile) * ceil(n / tile) / sms) * sms * tile * tile * k

    return value


def feature(name: str) -> Value:
    """The feature of that name in the file."""
    plain = _FEATURES.get(name)
    if plain is not None:
        return plain
    if name.startswith("bytes_over_"):
        cache = _count(name[len("bytes_over_") :])
        if cache > 0:
            return lambda work: max(work.bytes - float(cache), 0.0)
    if name.startswith("padded_flop_"):
        tile = _count(name[len("padded_flop_") :])
        if tile > 0:
            return _padded(float(tile))
    if name.startswith("wave_flop_"):
        words = name[len("wave_flop_") :].split("_s", 1)
        if len(words) == 2 and _count(words[0]) > 0 and _count(words[1]) > 0:
            return _wave(float(_count(words[0])), float(_count(words[1])))
    raise CostModelError(
        f"the cost model has a feature `{name}` this version does not know",
        "make it again with `bubblebench fit`, or use the version that wrote it",
    )


def size(name: str) -> Value:
    """The size of that name, by which near and far are told."""
    found = _SIZES.get(name)
    if found is None:
        raise CostModelError(
            f"the cost model has a size `{name}` this version does not know",
            "make it again with `bubblebench fit`, or use the version that wrote it",
        )
    return found


def _logs(sizes: Sequence[float]) -> List[float]:
    return [ln(max(value, 1.0)) for value in sizes]


class PreparedAnchors:
    """A correction with its points' logarithms taken once."""

    def __init__(self, anchors: Anchors) -> None:
        self._sizes = [size(name) for name in anchors.sizes]
        self._length = anchors.length
        self._ratios = {at: ratio for at, ratio, _ in reversed(anchors.points)}
        self._points = [(_logs(at), weight) for at, _, weight in anchors.points]
        ratios = [ln(ratio) for _, ratio, _ in anchors.points]
        self._low, self._high = min([0.0, *ratios]), max([0.0, *ratios])

    def _of(self, work: FeatureInput) -> List[float]:
        return [value(work) for value in self._sizes]

    def measured(self, work: FeatureInput) -> Optional[float]:
        """The ratio of the case of just these sizes; ``None`` where none was measured."""
        return self._ratios.get(tuple(max(value, 1.0) for value in self._of(work)))

    def factor(self, work: FeatureInput) -> float:
        """What the sum of features is multiplied by."""
        ratio = self.measured(work)
        if ratio is not None:
            return ratio
        here = _logs(self._of(work))
        root = math.sqrt(3.0)
        result = 0.0
        for at, weight in self._points:
            squares = 0.0
            for x, y in zip(here, at):
                squares += (x - y) * (x - y)
            h = root * (math.sqrt(squares) / self._length)
            result += weight * ((1.0 + h) * exp(-h))
        return exp(min(max(result, self._low), self._high))


class PreparedFit:
    """A fit whose names were looked up once."""

    def __init__(self, fit: Fit) -> None:
        self.fit = fit
        self.of_operations = "operations_ns" in fit.features
        self._terms = list(zip([feature(name) for name in fit.features], fit.coefficients_ns))
        self._anchors = None if fit.anchors is None else PreparedAnchors(fit.anchors)

    def measured(self, work: FeatureInput) -> bool:
        """Whether an operation of just these sizes was measured."""
        return self._anchors is not None and self._anchors.measured(work) is not None

    def evaluate(self, work: FeatureInput) -> float:
        """The time in nanoseconds."""
        result = total(coefficient * value(work) for value, coefficient in self._terms)
        return result if self._anchors is None else result * self._anchors.factor(work)


@dataclass(frozen=True)
class OperationTime:
    """The time of one operation in nanoseconds, and how far the truth may lie below and above, as a fraction of it."""

    ns: float
    relative_low: float
    relative_high: float


@dataclass
class PreparedFits:
    """All fits of a model, each looked up once."""

    fits: OperationFits
    _found: Dict[Tuple[str, str, str], Optional[PreparedFit]] = field(default_factory=dict)
    _phases: Dict[Tuple[str, str], Optional[PreparedFit]] = field(default_factory=dict)

    def phase(self, phase: str, dtype: str) -> Optional[PreparedFit]:
        """The fit of a layer phase: that of its element type where types have their own."""
        key = (phase, dtype)
        if key not in self._phases:
            found = self.fits.additivity.get(f"{phase}/{dtype}") or self.fits.additivity.get(phase)
            self._phases[key] = None if found is None else PreparedFit(found)
        return self._phases[key]

    def _find(self, operation: Operation, dtype: str) -> Optional[PreparedFit]:
        """Of the operation's own element type, else of the primary one, and only then the cold ones."""
        key = (operation.family, operation.name, dtype)
        if key in self._found:
            return self._found[key]
        table = {GEMM: self.fits.gemm, STREAMING: self.fits.streaming}.get(operation.family, self.fits.attention)
        names = [operation.name] + ([ANY_STREAMING] if operation.family == STREAMING else [])
        keys = [n + ending for n in names for ending in (f"/{dtype}", "", f"/{dtype}/cold", "/cold")]
        fit = next((table[k] for k in keys if k in table), None)
        self._found[key] = None if fit is None else PreparedFit(fit)
        return self._found[key]

    def time(self, operation: Operation, dtype: str) -> Optional[OperationTime]:
        """The time of an operation by the fit that predicts it; ``None`` where nothing is there to go by."""
        found = self._find(operation, dtype)
        if found is not None:
            work, fit = FeatureInput.of(operation), found.fit
            most = AS_MEASURED if found.measured(work) else math.inf
            low, high = min(fit.relative_low, most), min(fit.relative_high, most)
            ns = found.evaluate(work)
            # A product whose fit saw no GELU in any epilogue gets one as a pass of its own behind it.
            gelu = self.time(operation.gelu, dtype) if fit.without_gelu and operation.gelu is not None else None
            return OperationTime(ns if gelu is None else ns + gelu.ns, low, high)
        return self._roofline(operation, dtype) if operation.batched else None

    def _roofline(self, operation: Operation, dtype: str) -> Optional[OperationTime]:
        """A square product of as many FLOPs or a copy of as many bytes, whichever is longer."""
        root = cube_root(operation.flop / 2.0)
        side = int(max(math.floor(root + 0.5), 1))
        product = self.time(linear("forward", (side, side, side), dtype), dtype)
        moved = elements("copy", int(operation.bytes / (2.0 * float(DTYPES[dtype]))), dtype)
        copy = self.time(moved, dtype)
        if product is None or copy is None:
            return None
        longer = product if product.ns > copy.ns else copy
        low, high = max(longer.relative_low, _ROOFLINE), max(longer.relative_high, _ROOFLINE)
        return OperationTime(longer.ns, low, high)

    def sum_ns(self, operations: Sequence[Operation], dtype: str) -> Optional[float]:
        """Sum of the operations' times; ``None`` if one of them has nothing to go by."""
        result = 0.0
        for operation in operations:
            found = self.time(operation, dtype)
            if found is None:
                return None
            result += found.ns
        return result
