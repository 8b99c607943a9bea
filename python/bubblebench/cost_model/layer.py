"""One GPT layer: as measured where the shape was; else from its operations, or where none was measured from its products and
attention; else scaled from the nearest layer by FLOPs, which is always out of range."""

from __future__ import annotations

import math
from typing import Dict, List, Optional, Sequence, Tuple

from .errors import CostModelError
from .fits import AS_MEASURED, FeatureInput, PreparedFits
from .numbers import divide, ln, total
from .operation import ATTENTION, GEMM, STREAMING, TRAINED, Operation
from .prediction import Interval, LayerPrediction, Outside, Prediction, sum_of, sum_of_kin, with_spread
from .records import CostModelFile, LayerAnchor
from .shape import FORWARD_BACKWARD, PARTS, RECOMPUTE, LayerShape

#: Half the interval, as a fraction of the time, of a layer scaled by FLOPs alone.
_SCALED_SPREAD = 0.5
#: How far outside its range an input is still near, as ln of the ratio: half or double.
_NEAR = 0.6931471805599453
#: Names of the operations of a layer that are linear layers; other products are attention's.
_LINEAR_LAYERS = ("qkv", "projection", "fc1", "fc2")

_Ranges = Dict[str, Tuple[float, float]]


def _log_ratio(larger: float, smaller: float) -> float:
    return ln(larger / smaller) if smaller > 0.0 else 1.0


def outside_of(ranges: _Ranges, inputs: Sequence[Tuple[str, float]]) -> Outside:
    """Compares inputs, given by name and value, with the ranges measured."""
    distance, outside, unknown = 0.0, 0, 0
    for name, value in inputs:
        found = ranges.get(name)
        if found is None:
            unknown += 1
            continue
        low, high = found
        if value < low or value > high:
            outside += 1
            away = _log_ratio(low, value) if value < low else _log_ratio(value, high)
            distance += max(away - _NEAR, 0.0)
    return Outside(distance, outside, unknown)


def _inputs(shape: LayerShape) -> List[Tuple[str, float]]:
    return [
        ("hidden", float(shape.hidden)),
        ("heads", float(shape.heads)),
        ("sequence", float(shape.sequence)),
        ("micro_batch", float(shape.micro_batch)),
        ("tensor", float(shape.tensor)),
        ("head_size", float(shape.head_size())),
        ("recompute", float(RECOMPUTE.index(shape.recompute))),
    ]


def dtypes_of(ranges: _Ranges) -> List[str]:
    """Names of the element types measured; empty for a model that does not say."""
    return [key[len("dtype/") :] for key in sorted(ranges) if key.startswith("dtype/")]


def usual_dtype(model: CostModelFile) -> str:
    """The type to take where none is named: the one most layers were measured in, else the one the fits are for, else bf16."""
    counts = {dtype: sum(1 for a in model.layer if a.shape.dtype == dtype) for dtype in reversed(TRAINED)}
    # Of two types with as many layers the later one.
    most = max(reversed(list(counts)), key=lambda dtype: counts[dtype])
    if counts[most] > 0:
        return most
    known = ("f64", "f32", "f16", "bf16")
    return next((dtype for dtype in dtypes_of(model.valid) if dtype in known), "bf16")


class Layers:
    """Answers for layers by one model."""

    def __init__(self, model: CostModelFile) -> None:
        self._model = model
        self._fits = PreparedFits(model.operations)
        streaming = [r for key, r in model.valid.items() if key.startswith("streaming/") and key.endswith("/bytes")]
        self._streaming: Optional[Tuple[float, float]] = None
        if streaming:
            self._streaming = (min(low for low, _ in streaming), max(high for _, high in streaming))

    def predict(self, shape: LayerShape) -> LayerPrediction:
        """The layer as measured where its shape was, else from its operations, else from the nearest layer by FLOPs."""
        shape.validate()
        anchor = next((a for a in self._model.layer if a.shape == shape), None)
        if anchor is not None:
            return self._measured(anchor)
        self._refuse_dtype(shape.dtype)
        outside = outside_of(self._model.valid, _inputs(shape))
        if not any(a.shape.like(shape) for a in self._model.layer):
            outside = Outside(outside.distance, outside.outside, outside.unknown + 1)
        found = [self._fitted(shape, phase, 0.0, outside) for phase in PARTS]
        parts = [part for part in found if part is not None]
        if len(parts) < len(PARTS):
            outside = Outside(outside.distance, outside.outside, outside.unknown + 1)
            parts = self._scaled(shape, outside)
        plain = sum_of(parts)
        whole = self._fitted(shape, FORWARD_BACKWARD, plain.median_ns, outside) or plain
        return _put_together(parts, whole, shape.activation_bytes(), shape.parameter_bytes())

    def _measured(self, anchor: LayerAnchor) -> LayerPrediction:
        parts = [_as_measured(t) for t in anchor.times()]
        plain = sum_of(parts)
        # The phases one after another cost a little more or less than timed alone: by the fit's factor, if it has one.
        joined = self._evaluate(anchor.shape, FORWARD_BACKWARD, plain.median_ns)
        factor = joined / plain.median_ns if joined is not None and plain.median_ns > 0.0 else 1.0
        whole = Prediction(
            factor * plain.median_ns,
            min(factor, 1.0) * plain.low_ns,
            max(factor, 1.0) * plain.high_ns,
            True,
        )
        return _put_together(parts, whole, anchor.activation_bytes, anchor.parameter_bytes)

    def _refuse_dtype(self, dtype: str) -> None:
        known = dtypes_of(self._model.valid)
        if known and dtype not in known:
            raise CostModelError(
                f"nothing of type {dtype} was measured on {self._model.machine}",
                f"give --dtype {' or '.join(known)}, or measure layers of that type",
            )

    def _fitted(self, shape: LayerShape, phase: str, phases_ns: float, outside: Outside) -> Optional[Prediction]:
        fit = self._fits.phase(phase, shape.dtype)
        if fit is None:
            return self._summed(shape, phase)
        ns = self._evaluate(shape, phase, phases_ns)
        if ns is None:
            return None
        low, high = fit.fit.relative_low, fit.fit.relative_high
        own = with_spread(ns, low, high, outside)
        if own.in_range or not fit.of_operations:
            return own
        # Beyond the layers measured the operations carry on: their own intervals and ranges count, and what the sum lacked.
        whole = self._summed(shape, phase)
        if whole is None:
            return None
        low = _joined(whole.low_ns, whole.median_ns, low)
        high = _joined(whole.high_ns, whole.median_ns, high)
        in_range = whole.in_range and outside.unknown == 0
        return Prediction(ns, ns * max(1.0 - low, 0.05), ns * (1.0 + high), in_range)

    def _evaluate(self, shape: LayerShape, phase: str, phases_ns: float) -> Optional[float]:
        """Time of a phase, Σ coefficient · feature and its correction near measured layers."""
        fit = self._fits.phase(phase, shape.dtype)
        if fit is None:
            return None
        if not fit.of_operations:
            return fit.evaluate(plain_work(shape, phase, 0.0, phases_ns))
        operations = [operation for _, operation in shape.operations(phase)]
        operations_ns = self._fits.sum_ns(operations, shape.dtype)
        return None if operations_ns is None else fit.evaluate(plain_work(shape, phase, operations_ns, 0.0))

    def _summed(self, shape: LayerShape, phase: str) -> Optional[Prediction]:
        """Without a measured layer: the plain sum of the operations, each with its own interval and its own range."""
        if phase == FORWARD_BACKWARD:
            return None
        parts = []
        for _, operation in shape.operations(phase):
            found = self._fits.time(operation, shape.dtype)
            if found is None:
                return None
            outside = self._outside(operation)
            parts.append(with_spread(found.ns, found.relative_low, found.relative_high, outside))
        return sum_of_kin(parts)

    def _outside(self, operation: Operation) -> Outside:
        """A streaming operation that was not measured by name is held against the sizes of all others together."""
        if operation.batched:
            return Outside(outside=1)
        if operation.family == STREAMING and operation.sizes[0][0] not in self._model.valid:
            joined = {} if self._streaming is None else {operation.sizes[0][0]: self._streaming}
            return outside_of(joined, operation.sizes)
        return outside_of(self._model.valid, operation.sizes)

    def _scaled(self, shape: LayerShape, outside: Outside) -> List[Prediction]:
        """The nearest measured layer's times by the ratio of FLOPs, phase by phase."""

        def distance(anchor: LayerAnchor) -> float:
            pairs = zip(_inputs(anchor.shape), _inputs(shape))
            return total(abs(ln((1.0 + x) / (1.0 + y))) for (_, x), (_, y) in pairs)

        candidates = [a for a in self._model.layer if a.shape.dtype == shape.dtype]
        if not candidates:
            raise CostModelError(
                f"the cost model of {self._model.machine} has no layer of type {shape.dtype} and no fits of its operations",
                "measure some with `bubblebench measure gpt-layer` and fit again",
            )
        anchor = min(candidates, key=distance)
        outside = Outside(max(outside.distance, distance(anchor)), outside.outside, outside.unknown)
        found = []
        for phase, time in zip(PARTS, anchor.times()):
            scale = divide(shape.flop(phase), anchor.shape.flop(phase))
            found.append(with_spread(time.median * scale, _SCALED_SPREAD, _SCALED_SPREAD, outside))
        return found


def _put_together(
    parts: Sequence[Prediction], whole: Prediction, activation_bytes: int, parameter_bytes: int
) -> LayerPrediction:
    forward, backward_input, backward_weight = parts
    return LayerPrediction(forward, backward_input, backward_weight, whole, activation_bytes, parameter_bytes)


def _as_measured(time: Interval) -> Prediction:
    if time.low < time.high:
        return Prediction(time.median, time.low, time.high, True)
    # A figure without a spread was measured once, or is somebody's mean.
    return with_spread(time.median, AS_MEASURED, AS_MEASURED, Outside())


def _joined(end: float, median: float, fit: float) -> float:
    off = divide(end, median) - 1.0
    return math.sqrt(off * off + fit * fit)


def plain_work(
    shape: LayerShape, phase: str, operations_ns: float = 0.0, phases_ns: float = 0.0
) -> FeatureInput:
    """The quantities that the features of a layer phase are computed from."""
    flop = moved = product_flop = attention_flop = 0.0
    for name, operation in shape.operations(phase):
        flop += operation.flop
        moved += operation.bytes
        if operation.family == GEMM and name in _LINEAR_LAYERS:
            product_flop += operation.flop
        elif operation.family in (GEMM, ATTENTION):
            attention_flop += operation.flop
    return FeatureInput(
        flop=flop,
        bytes=moved,
        pairs=attention_flop / (4.0 * float(shape.head_size())),
        product_flop=product_flop,
        rows=float(shape.rows()),
        attention_pairs=shape.attention_shape().pairs(),
        operations_ns=operations_ns,
        phases_ns=phases_ns,
    )

