"""Non-negative least squares: min ‖A·c − b‖² with every c ≥ 0, by the active-set method of Lawson & Hanson (*Solving Least
Squares Problems*, 1974, chapter 23) on the normal equations of scaled columns (``src/cost/nnls.rs``)."""

from __future__ import annotations

import math
from typing import List

from .numbers import total

#: Below this a column has nothing left to explain.
_TOLERANCE = 1e-12
#: Keeps the factorisation of (nearly) dependent columns defined.
_RIDGE = 1e-11


def solve(rows: List[List[float]], target: List[float]) -> List[float]:
    """The non-negative c with the smallest ‖A·c − b‖²: ``rows`` holds A row by row, ``target`` b."""
    columns = range(len(rows[0]) if rows else 0)
    scale = [math.sqrt(total(row[j] * row[j] for row in rows)) for j in columns]
    scale = [length if math.isfinite(length) else 0.0 for length in scale]
    length = math.sqrt(total(b * b for b in target))
    gram = [[_divide(total(r[i] * r[j] for r in rows), scale[i] * scale[j]) for j in columns] for i in columns]
    moment = [_divide(total(r[j] * b for r, b in zip(rows, target)), scale[j] * length) for j in columns]
    found = _active_set(gram, moment)
    return [c * length / s if s > 0.0 else 0.0 for c, s in zip(found, scale)]


def _divide(value: float, by: float) -> float:
    return value / by if by > 0.0 else 0.0


def _active_set(gram: List[List[float]], moment: List[float]) -> List[float]:
    n = len(moment)
    x, passive = [0.0] * n, [False] * n
    # The outer loop ends after finitely many rounds; the bound is against rounding going in circles.
    for _ in range(10 * max(n, 1)):
        gradient = [moment[i] - total(g * v for g, v in zip(gram[i], x)) for i in range(n)]
        best = -1
        for i in range(n):
            if not passive[i] and (best < 0 or gradient[i] >= gradient[best]):
                best = i
        if best < 0 or not gradient[best] > _TOLERANCE:
            break
        passive[best] = True
        _descend(gram, moment, x, passive)
    return x


def _descend(gram: List[List[float]], moment: List[float], x: List[float], passive: List[bool]) -> None:
    """Moves to the least-squares point of the passive columns, dropping those that would turn negative on the way."""
    while True:
        chosen = [i for i, free in enumerate(passive) if free]
        goal = _least_squares(gram, moment, chosen)
        steps = [x[i] / (x[i] - z) if x[i] > z else 0.0 for i, z in zip(chosen, goal) if z <= 0.0]
        if not steps:
            for i, z in zip(chosen, goal):
                x[i] = z
            return
        step = min(steps)
        for i, z in zip(chosen, goal):
            x[i] += step * (z - x[i])
            if z <= 0.0 and x[i] <= _TOLERANCE:
                x[i], passive[i] = 0.0, False
        if not any(passive):
            return


def _least_squares(gram: List[List[float]], moment: List[float], chosen: List[int]) -> List[float]:
    """Cholesky on the chosen columns."""
    n = len(chosen)
    lower = [[0.0] * n for _ in range(n)]
    for i in range(n):
        for j in range(i + 1):
            dot = total(lower[i][k] * lower[j][k] for k in range(j))
            value = gram[chosen[i]][chosen[j]] + (_RIDGE if i == j else 0.0) - dot
            lower[i][j] = math.sqrt(max(value, _RIDGE)) if i == j else value / lower[j][j]
    z = [moment[i] for i in chosen]
    for i in range(n):
        z[i] = (z[i] - total(lower[i][k] * z[k] for k in range(i))) / lower[i][i]
    for i in reversed(range(n)):
        z[i] = (z[i] - total(lower[k][i] * z[k] for k in range(i + 1, n))) / lower[i][i]
    return z
