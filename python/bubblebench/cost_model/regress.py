"""Non-negative relative least squares, the choice between sets of features, and the interval that goes with a fit
(``src/cost/regress.rs``, ``nnls.rs``, ``anchors.rs`` and ``heldout.rs``)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Callable, Dict, List, Optional, Sequence, Set, Tuple

from .fits import FeatureInput, PreparedAnchors, feature, size
from .nnls import solve
from .numbers import MIN_POSITIVE, divide, exp, ln, total
from .records import Anchors

#: Four fifths stay, one fifth is held out.
_ROUNDS = 5
_SEED = 0x627562626C655F31
_WORD = 2**64 - 1
#: Fewest cases of a fit that a correction near them can be judged on.
_FEWEST_NEAR = 6
#: Keeps the factorisation defined where points nearly coincide.
_RIDGE = 1e-9
#: Most points that a correction keeps.
_MOST = 256
#: Lengths and nuggets of the corrections that cross-validation chooses from.
_GRID = [(length, nugget) for length in (0.7, 1.4, 2.8) for nugget in (0.0, 0.03, 0.1, 0.3)]
_STUDENT = (12.706, 4.303, 3.182, 2.776, 2.571)


@dataclass(frozen=True)
class Case:
    """A measured case: its work, its time in ns, and the key under which it is held out."""

    work: FeatureInput
    ns: float
    key: str


@dataclass(frozen=True)
class Linear:
    """A fitted sum of features, corrected near measured cases."""

    features: Tuple[str, ...]
    coefficients: Tuple[float, ...]
    anchors: Optional[Anchors] = None

    def sum(self, work: FeatureInput) -> float:
        """Σ coefficient · feature."""
        return total(c * feature(name)(work) for name, c in zip(self.features, self.coefficients))


def mean(values: Sequence[float]) -> Optional[float]:
    """The arithmetic mean; ``None`` of nothing."""
    return total(values) / float(len(values)) if values else None


def _quantile(values: Sequence[float], q: float) -> float:
    ordered = sorted(values)
    if not ordered:
        return 0.0
    position = min(max(q, 0.0), 1.0) * float(len(ordered) - 1)
    below, above = math.floor(position), math.ceil(position)
    return ordered[below] + (ordered[above] - ordered[below]) * (position - float(below))


def _hash(text: str) -> int:
    h = 0xCBF29CE484222325 ^ _SEED
    for byte in text.encode():
        h = ((h ^ byte) * 0x100000001B3) & _WORD
    z = (h + 0x9E3779B97F4A7C15) & _WORD
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _WORD
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _WORD
    return z ^ (z >> 31)


def rounds(keys: Sequence[str]) -> List[Set[str]]:
    """The keys held out of each round, every key in one of five; none where there is only one key."""
    ordered = sorted(set(keys), key=lambda key: (_hash(key), key))
    if len(ordered) < 2:
        return []
    count = min(_ROUNDS, len(ordered))
    return [set(ordered[i::count]) for i in range(count)]


def spread(residuals: Sequence[float]) -> Tuple[float, float]:
    """The 95 % interval, relative, from residuals (measured ÷ predicted − 1) on held-out cases."""
    finite = [r for r in residuals if math.isfinite(r)]
    n = float(len(finite))
    if not finite:
        return (0.5, 0.5)
    if len(finite) >= 40:
        level = min(0.975 * (n + 1.0) / n, 1.0)
        low, high = -_quantile(finite, 1.0 - level), _quantile(finite, level)
    else:
        rms = math.sqrt(total(r * r for r in finite) / n)
        low = high = _student(len(finite)) * rms * math.sqrt(1.0 + 1.0 / n)
    return (min(max(low, 0.005), 0.9), min(max(high, 0.005), 2.0))


def _student(n: int) -> float:
    if n <= len(_STUDENT):
        return _STUDENT[n - 1]
    z, v = 1.959964, float(n)
    cube, fifth = z * z * z, z * ((z * z) * (z * z))
    return z + (cube + z) / (4.0 * v) + (5.0 * fifth + 16.0 * cube + 3.0 * z) / (96.0 * v * v)


def residual(predicted: float, measured: float) -> float:
    """measured ÷ predicted − 1."""
    return measured / max(predicted, MIN_POSITIVE) - 1.0


def _error(predicted: float, measured: float) -> float:
    return min(abs(ln(max(divide(predicted, measured), 1e-9))), 1.0)


def _gain(new: Sequence[float], old: Sequence[float]) -> Optional[Tuple[float, float]]:
    """By how much the mean error is smaller, and the standard error of that, where it is worth a feature."""
    gains = [o - n for o, n in zip(old, new)]
    gain, before = mean(gains), mean(old)
    if gain is None or before is None or not gain > max(0.03 * before, 0.001):
        return None
    variance = total((g - gain) * (g - gain) for g in gains) / max(float(len(gains)) - 1.0, 1.0)
    return gain, math.sqrt(variance / float(len(gains)))


def _relative(rows: List[List[float]], times: List[float]) -> List[float]:
    """Non-negative coefficients with the smallest Σ w·(rows·c ÷ times − 1)², w being Huber's, found by iterating."""
    columns = len(rows[0]) if rows else 0
    scaled = [[v / t for v in row] for row, t in zip(rows, times)]
    weights, found = [1.0] * len(rows), [0.0] * columns
    for _ in range(12):
        roots = [math.sqrt(w) for w in weights]
        following = solve([[v * root for v in row] for row, root in zip(scaled, roots)], roots)
        moved = any(abs(a - b) > 1e-9 * abs(a) for a, b in zip(following, found))
        found = following
        if not moved or len(rows) < columns + 3:
            break
        residuals = [abs(total(a * b for a, b in zip(row, found)) - 1.0) for row in scaled]
        limit = 1.345 * max(1.4826 * _quantile(residuals, 0.5), 1e-6)
        weights = [limit / r if r > limit else 1.0 for r in residuals]
    return found


def _cholesky(rows: List[List[float]], x: List[float]) -> List[float]:
    n = len(rows)
    for i in range(n):
        for j in range(i):
            dot = total(a * b for a, b in zip(rows[i][:j], rows[j][:j]))
            rows[i][j] = (rows[i][j] - dot) / rows[j][j]
        rows[i][i] = math.sqrt(max(rows[i][i] - total(v * v for v in rows[i][:i]), _RIDGE))
        x[i] = (x[i] - total(a * b for a, b in zip(rows[i][:i], x))) / rows[i][i]
    for i in reversed(range(n)):
        x[i] = (x[i] - total(rows[k][i] * x[k] for k in range(i + 1, n))) / rows[i][i]
    return x


def _anchors(tuning: Tuple[float, float], names: Tuple[str, ...], cases: List[Tuple[List[float], float]]) -> Optional[Anchors]:
    """The correction that follows from the ratio measured ÷ fitted at cases of these sizes."""
    length, nugget = tuning
    places: Dict[Tuple[float, ...], List[float]] = {}
    for at, ratio in cases:
        if math.isfinite(ratio) and ratio > 0.0:
            places.setdefault(tuple(max(value, 1.0) for value in at), []).append(ln(ratio))
    points = [(at, total(places[at]) / float(len(places[at]))) for at in sorted(places)]
    if not points:
        return None
    kept = min(len(points), _MOST)
    points = [points[i * len(points) // kept] for i in range(kept)]
    logs = [[ln(value) for value in at] for at, _ in points]
    rows = []
    for i, here in enumerate(logs):
        row = [_kernel(here, there, length) for there in logs[: i + 1]]
        row[i] = row[i] + nugget + _RIDGE
        rows.append(row)
    weights = _cholesky(rows, [ratio for _, ratio in points])
    made = tuple((at, exp(ratio), weight) for (at, ratio), weight in zip(points, weights))
    return Anchors(names, length, made)


def _kernel(a: List[float], b: List[float], length: float) -> float:
    h = math.sqrt(3.0) * (math.sqrt(total((x - y) * (x - y) for x, y in zip(a, b))) / length)
    return (1.0 + h) * exp(-h)


#: Cases of one fit.
Cases = List[Case]


@dataclass(frozen=True)
class Candidates:
    """Sets of features that a fit may have, simplest first, and the sizes that tell near from far."""

    sets: Tuple[Tuple[str, ...], ...]
    sizes: Tuple[str, ...]
    #: Standard errors of the difference by which a later set must be better than one before it.
    doubt: float

    def fit_together(self, groups: List[Cases]) -> List[Optional[Linear]]:
        """One fit for each group, all of the form with the smallest cross-validated error."""
        form = self._choose(groups)
        if form is None:
            return [None for _ in groups]
        chosen, tuning = form

        def fit(cases: Cases) -> Linear:
            plain = _fit_set(chosen, cases)
            return plain if tuning is None else self._near(plain, tuning, cases)

        return [fit(cases) if cases else None for cases in groups]

    def _choose(self, groups: List[Cases]) -> Optional[Tuple[Tuple[str, ...], Optional[Tuple[float, float]]]]:
        lengths = [len(cases) for cases in groups if cases]
        if not lengths:
            return None
        smallest = min(lengths)
        best, errors = self.sets[0], self._errors(self.sets[0], groups, None)
        for candidate in self.sets[1:]:
            if smallest < 2 * len(candidate):
                continue
            own = self._errors(candidate, groups, None)
            gain = _gain(own, errors)
            if gain is not None and gain[0] > self.doubt * gain[1]:
                best, errors = candidate, own
        if smallest < _FEWEST_NEAR:
            return best, None
        corrected = [(tuning, self._errors(best, groups, tuning)) for tuning in _GRID]
        infinite = math.inf
        tuning, own = min(corrected, key=lambda c: infinite if (m := mean(c[1])) is None else m)
        return best, tuning if _gain(own, errors) is not None else None

    def _errors(self, names: Tuple[str, ...], groups: List[Cases], tuning: Optional[Tuple[float, float]]) -> List[float]:
        """Held-out errors of one form, in an order that is the same for all forms."""
        found = []
        for cases in groups:
            for held in rounds([case.key for case in cases]):
                training = [case for case in cases if case.key not in held]
                fit = _fit_set(names, training)
                predict = self._prediction(fit if tuning is None else self._near(fit, tuning, training))
                found += [_error(predict(case.work), case.ns) for case in cases if case.key in held]
        return found

    def _near(self, fit: Linear, tuning: Tuple[float, float], cases: Cases) -> Linear:
        values = [size(name) for name in self.sizes]
        ratios = [([value(c.work) for value in values], divide(c.ns, fit.sum(c.work))) for c in cases]
        return Linear(fit.features, fit.coefficients, _anchors(tuning, self.sizes, ratios))

    @staticmethod
    def _prediction(fit: Linear) -> Callable[[FeatureInput], float]:
        anchors = None if fit.anchors is None else PreparedAnchors(fit.anchors)
        return lambda work: fit.sum(work) * (1.0 if anchors is None else anchors.factor(work))


def _fit_set(names: Tuple[str, ...], cases: Cases) -> Linear:
    values = [feature(name) for name in names]
    rows = [[value(case.work) for value in values] for case in cases]
    return Linear(names, tuple(_relative(rows, [case.ns for case in cases])))
