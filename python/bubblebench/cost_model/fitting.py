"""Fits of the phases of layers that are all a model holds, as of published figures: whoever reads one makes them, as
``bubblebench predict`` does (``fit_anchors`` of ``src/cost/layers.rs``)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Dict, List

from .fits import PreparedFit
from .layer import plain_work
from .records import CostModelFile, Fit
from .regress import Candidates, Case, Linear, residual, rounds, spread
from .shape import PARTS, LayerShape

#: Fewest layers of a type that products and attention can be told apart from: two a coefficient.
_FEWEST = 4

#: What a layer phase is counted in without its operations' times; near measured layers by its rows, what there is to do for
#: one, and how many keys it meets.
_CANDIDATES = Candidates(
    sets=(("flop",), ("1", "flop"), ("flop", "bytes"), ("product_flop", "pairs"), ("1", "product_flop", "pairs")),
    sizes=("rows", "product_flop/rows", "attention_pairs/rows"),
    doubt=2.0,
)


@dataclass(frozen=True)
class _Row:
    shape: LayerShape
    phase: str
    ns: float

    @property
    def key(self) -> str:
        return self.shape.slug()


def with_layer_fits(model: CostModelFile) -> CostModelFile:
    """The model with fits where layers are all it holds and there are enough of a type; any other model as it is."""
    if any(model.operations.tables()):
        return model
    rows = [
        _Row(anchor.shape, phase, time.median)
        for anchor in model.layer
        if sum(1 for a in model.layer if a.shape.dtype == anchor.shape.dtype) >= _FEWEST
        for phase, time in zip(PARTS, anchor.times())
        if time.median > 0.0
    ]
    return replace(model, operations=replace(model.operations, additivity=_fit(rows)))


def _fit(rows: List[_Row]) -> Dict[str, Fit]:
    """Every phase fitted on all rows, with its interval from rounds that hold whole shapes out."""
    residuals: Dict[str, List[float]] = {}
    for held in rounds([row.key for row in rows]):
        fits = {name: PreparedFit(fit) for name, fit in _train([r for r in rows if r.key not in held]).items()}
        for row in (r for r in rows if r.key in held):
            found = fits.get(f"{row.phase}/{row.shape.dtype}") or fits.get(row.phase)
            if found is not None:
                predicted = found.evaluate(plain_work(row.shape, row.phase))
                residuals.setdefault(row.phase, []).append(residual(predicted, row.ns))
    made = {}
    for name, fit in _train(rows).items():
        low, high = spread(residuals.get(name.split("/")[0], []))
        made[name] = replace(fit, relative_low=low, relative_high=high)
    return made


def _train(rows: List[_Row]) -> Dict[str, Fit]:
    """One fit a phase, without its interval; where there are several element types, one for each."""
    types = sorted({row.shape.dtype for row in rows})
    if len(types) < 2:
        return _train_phases(rows, "")
    found: Dict[str, Fit] = {}
    for dtype in types:
        found.update(_train_phases([row for row in rows if row.shape.dtype == dtype], f"/{dtype}"))
    return found


def _train_phases(rows: List[_Row], ending: str) -> Dict[str, Fit]:
    groups = {phase: [_case(row) for row in rows if row.phase == phase] for phase in PARTS}
    groups = {phase: cases for phase, cases in groups.items() if len(cases) >= 2}
    fits = _CANDIDATES.fit_together(list(groups.values()))
    return {f"{phase}{ending}": _record(linear) for phase, linear in zip(groups, fits) if linear is not None}


def _case(row: _Row) -> Case:
    return Case(plain_work(row.shape, row.phase), row.ns, row.key)


def _record(linear: Linear) -> Fit:
    return Fit(linear.features, linear.coefficients, 0.5, 0.5, linear.anchors, False)
