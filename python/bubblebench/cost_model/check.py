"""Whether the numbers of a cost model, from whatever file, can be used."""

from __future__ import annotations

import math
from typing import Iterable, Optional

from .errors import CostModelError, counted
from .fits import feature, size
from .prediction import Interval
from .records import CollectiveFit, CostModelFile, Fit, LayerAnchor, Topology

_AGAIN = "make the cost model again with `bubblebench fit`"


def _usable(value: float) -> bool:
    return math.isfinite(value) and value >= 0.0


def _positive(value: float) -> bool:
    return math.isfinite(value) and value > 0.0


def _ordered(time: Interval) -> bool:
    return _usable(time.low) and _usable(time.high) and time.low <= time.median <= time.high


def _fit(name: str, fit: Fit) -> None:
    for known in fit.features:
        feature(known)
    numbers = [*fit.coefficients_ns, fit.relative_low, fit.relative_high]
    # An interval of a thousand times the prediction says nothing.
    narrow = fit.relative_low <= 1e3 and fit.relative_high <= 1e3
    sound = narrow and all(_usable(value) for value in numbers)
    if len(fit.features) != len(fit.coefficients_ns) or not sound or not _anchors(fit):
        raise CostModelError(f"the cost model's fit `{name}` has a coefficient that cannot be used", _AGAIN)


def _anchors(fit: Fit) -> bool:
    anchors = fit.anchors
    if anchors is None:
        return True
    for name in anchors.sizes:
        size(name)
    points = (
        len(at) == len(anchors.sizes) and all(map(_positive, at)) and _positive(ratio) and math.isfinite(weight)
        for at, ratio, weight in anchors.points
    )
    return _positive(anchors.length) and all(points)


def _topology(topology: Topology) -> None:
    counts = (n for n in (topology.gpus_per_node, topology.linked_gpus) if n is not None)
    rates = (r for r in (topology.link_bytes_per_s, topology.network_bytes_per_s) if r is not None)
    if all(n >= 1 for n in counts) and all(math.isfinite(r) and r >= 1.0 for r in rates):
        return
    raise CostModelError(
        "the cost model's topology has a number that cannot be used",
        "give counts of at least 1 and bandwidths in bytes per second, or leave them out",
    )


def _collective(fit: CollectiveFit) -> bool:
    asked = fit.ranks >= 2 and fit.nodes >= 1 and _usable(fit.relative_low) and _usable(fit.relative_high)
    pieces = all(
        _usable(s.latency_ns) and _usable(s.ns_per_byte) and s.from_bytes < s.to_bytes for s in fit.segments
    )
    return asked and pieces and all(a.to_bytes <= b.from_bytes for a, b in zip(fit.segments, fit.segments[1:]))


def _layer(anchor: LayerAnchor) -> bool:
    try:
        anchor.shape.validate()
    except CostModelError:
        return False
    return all(_ordered(time) for time in anchor.times())


def _first(wrong: Iterable[str]) -> Optional[str]:
    return next(iter(wrong), None)


def check(model: CostModelFile) -> None:
    """Raises an error if a fit has an unknown feature, or a number is negative, infinite or otherwise impossible."""
    for table in model.operations.tables():
        for name in sorted(table):
            _fit(name, table[name])
    if model.topology is not None:
        _topology(model.topology)
    wrong = _first(
        f"the cost model's segments of {c.operation} over {counted(c.ranks, 'rank')} cannot be used"
        for c in model.collectives
        if not _collective(c)
    )
    wrong = wrong or _first(
        f"the cost model's layer {a.shape.slug()} cannot be used" for a in model.layer if not _layer(a)
    )
    wrong = wrong or _first(
        f"the cost model's slowdown of {p.main} beside {p.side} cannot be used"
        for p in model.interference.pairs
        if not all(_positive(s) for s in (p.slowdown.median, p.slowdown.low, p.slowdown.high))
    )
    wrong = wrong or _first(
        f"the cost model's steps a second of {p.side} cannot be used"
        for p in model.interference.pairs
        if p.side_alone_per_s is not None and not _positive(p.side_alone_per_s)
    )
    if not all(_usable(ns) for ns in model.gate_ns.values()):
        wrong = wrong or "the cost model's gate has a time that cannot be used"
    if wrong is not None:
        raise CostModelError(wrong, _AGAIN)
