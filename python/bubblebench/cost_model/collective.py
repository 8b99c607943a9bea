"""One collective or send/recv. Sizes outside the curve follow its first or last segment; ranks nobody measured are carried
from the nearest ones; an operation nobody measured is derived from another one, or from what the cost model states of the
network. All these are out of range."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from typing import Dict, List, Optional, Sequence, Tuple, Union

from . import derived
from .derived import Derived
from .errors import CostModelError, counted, cure, some_of
from .numbers import MIN_POSITIVE, exp, ln
from .prediction import Outside, Prediction, with_spread
from .ranks import MOST_SPREAD, GroupLinks, Ranked, Scaling, algorithm_named, at_size
from .records import CollectiveFit, CostModelFile, Topology

#: What a curve costs in distance that lies on the other side of where the links end.
_OTHER_LINKS = 8.0

_PATTERNS = ("", "/ping_pong", "/one_way", "/both_ways", "/ring")


@dataclass(frozen=True)
class CollectiveQuery:
    """A collective or send/recv whose time is to be predicted."""

    operation: str
    ranks: int
    nodes: int
    bytes: int
    isolated: bool
    dtype: Optional[str]

    def asked(self) -> Ranked:
        """The operation between its ranks and nodes."""
        return Ranked(self.operation, self.ranks, self.nodes)

    def answers(self, fit: CollectiveFit) -> bool:
        """Curves of this kind of latency and type, of which one within a node says nothing about a network."""
        return (
            fit.latency == ("isolated" if self.isolated else "pipelined")
            and (fit.nodes > 1) == (self.nodes > 1)
            and (self.dtype is None or self.dtype == fit.dtype)
            and len(fit.segments) > 0
        )


@dataclass(frozen=True)
class _Measured:
    fit: CollectiveFit


@dataclass(frozen=True)
class _Carried:
    fit: CollectiveFit


@dataclass(frozen=True)
class _DerivedFrom:
    fits: List[CollectiveFit]


#: What a prediction rests on: a curve as it is, carried to other ranks, curves of other operations, or stated bandwidths.
_Basis = Union[_Measured, _Carried, _DerivedFrom, Topology]


def _distance(fit: CollectiveFit, query: CollectiveQuery) -> float:
    """|ln| of the ratios of ranks and nodes."""
    return _ratio(fit.ranks, query.ranks) + _ratio(fit.nodes, query.nodes)


def _ratio(a: int, b: int) -> float:
    return abs(ln(float(a) / float(b)))


class Collectives:
    """Answers for collectives by one model."""

    def __init__(self, model: CostModelFile) -> None:
        self._model = model
        self._links = GroupLinks.of(model.topology, model.collectives)
        self._scalings: Dict[Tuple[str, str, int, str, Optional[str]], Scaling] = {}

    def predict(self, query: CollectiveQuery) -> Prediction:
        """The time of a collective; an error where nothing is known about its network."""
        if query.ranks < 2 or query.nodes == 0 or query.nodes > query.ranks or query.bytes == 0:
            ranks, nodes = counted(query.ranks, "rank"), counted(query.nodes, "node")
            raise CostModelError(
                f"{ranks} on {nodes} with {counted(query.bytes, 'byte')} make no collective",
                "give at least 2 ranks, 1 to that many nodes, and 1 byte or more",
            )
        answer = self._answer(self._basis(query), query)
        if answer is None:
            raise self._unknown(query)
        return answer

    def _answer(self, basis: Optional[_Basis], query: CollectiveQuery) -> Optional[Prediction]:
        if isinstance(basis, _Measured):
            found = at_size(basis.fit.segments, query.bytes)
            if found is None:
                return None
            low, high = basis.fit.relative_low, basis.fit.relative_high
            return with_spread(found[0], low, high, Outside(distance=found[1]))
        if isinstance(basis, _Carried):
            return self._no_faster(query, self._other_ranks(query, basis.fit))
        if isinstance(basis, _DerivedFrom):
            return self._no_faster(query, self._other_operation(query, basis.fits))
        if basis is None:
            return None
        time = derived.from_stated(basis, query.asked(), query.bytes)
        return None if time is None else _wide(time, 0.0, Outside(unknown=1))

    def _no_faster(self, query: CollectiveQuery, found: Optional[Prediction]) -> Optional[Prediction]:
        """What is carried over cannot be faster than the adapters that the cost model states."""
        topology = self._model.topology
        least = None if topology is None else derived.least_ns(topology, query.asked(), query.bytes)
        if found is None or least is None or not found.median_ns < least:
            return found
        slower = math.inf if found.median_ns == 0.0 else least / found.median_ns
        return Prediction(least, found.low_ns, found.high_ns * slower, found.in_range)

    def _basis(self, query: CollectiveQuery) -> Optional[_Basis]:
        """The nearest of what is known: the operation's own curve, another operation's, the stated figures."""
        own = next(iter(self._candidates(query)), None)
        asked = query.asked()
        if own is not None and own.nodes == query.nodes and (own.ranks == query.ranks or asked.point_to_point):
            return _Measured(own)
        near = math.inf if own is None else self._remote(own, query)
        other: Optional[Tuple[float, CollectiveFit]] = None
        for fit in self._model.collectives:
            apart = derived.remoteness(Ranked.of(fit), asked)
            if fit.operation == query.operation or apart is None or not query.answers(fit):
                continue
            far = apart + self._remote(fit, query)
            if other is None or far < other[0]:
                other = (far, fit)
        if own is not None and (other is None or near <= other[0]):
            return _Carried(own)
        if other is not None:
            return _DerivedFrom(self._both_halves(query, other[1]))
        return self._stated(query)

    def _stated(self, query: CollectiveQuery) -> Optional[Topology]:
        topology, asked = self._model.topology, query.asked()
        if topology is None or query.isolated or derived.remoteness(asked, asked) is None:
            return None
        return None if derived.from_stated(topology, asked, query.bytes) is None else topology

    def _remote(self, fit: CollectiveFit, query: CollectiveQuery) -> float:
        """How far a curve lies from what is asked."""
        measured, asked = Ranked.of(fit), query.asked()
        pairs = measured.point_to_point or asked.point_to_point
        ranks = 0.0 if pairs and query.nodes == 1 else _ratio(measured.group, asked.group)
        found = at_size(fit.segments, query.bytes)
        sizes = 0.0 if found is None else found[1]
        other = math.log(_OTHER_LINKS) if self._links.part(measured.group, asked.group) else 0.0
        return max(ranks, _ratio(fit.nodes, query.nodes)) + 0.5 * sizes + other

    def _both_halves(self, query: CollectiveQuery, one: CollectiveFit) -> List[CollectiveFit]:
        """An all-reduce is both of its halves, where both were measured alike."""
        halves = {"all_gather": "reduce_scatter", "reduce_scatter": "all_gather"}
        half = halves.get(one.operation) if query.operation == "all_reduce" else None
        if half is None:
            return [one]
        for fit in self._model.collectives:
            alike = (fit.ranks, fit.nodes, fit.dtype) == (one.ranks, one.nodes, one.dtype)
            if fit.operation == half and query.answers(fit) and alike:
                return [one, fit]
        return [one]

    def _candidates(self, query: CollectiveQuery) -> List[CollectiveFit]:
        """The curves of this operation that may answer, the nearest first."""
        patterns = _PATTERNS if query.operation == "send_recv" else ("",)
        group = query.asked().group
        for pattern in patterns:
            name = query.operation + pattern
            found = [f for f in self._model.collectives if f.operation == name and query.answers(f)]
            if not found:
                continue
            look = any(f.ranks != query.ranks for f in found)

            def far(fit: CollectiveFit, look: bool = look) -> float:
                apart = look and self._links.part(Ranked.of(fit).group, group)
                return sys.float_info.max if apart else _distance(fit, query)

            # Of two types at one distance the one with more of a curve.
            return sorted(found, key=lambda f: (far(f), -len(f.segments)))
        return []

    def _scaling(self, query: CollectiveQuery, start: CollectiveFit) -> Scaling:
        ran = next((name for least, name in reversed(start.algorithms) if least <= query.bytes), None)
        if ran is None and start.algorithms:
            ran = start.algorithms[0][1]
        known = None if ran is None else algorithm_named(ran)
        key = (start.operation, start.dtype, start.nodes, start.latency, known)
        if key not in self._scalings:
            curves = [
                f
                for f in self._model.collectives
                if query.answers(f)
                and (f.dtype, f.operation, f.nodes) == (start.dtype, start.operation, start.nodes)
            ]
            self._scalings[key] = Scaling.of(curves, known, self._links)
        return self._scalings[key]

    def _other_ranks(self, query: CollectiveQuery, near: CollectiveFit) -> Optional[Prediction]:
        """From the nearest curve; between two numbers of ranks measured on as many nodes, from both."""
        scaling = self._scaling(query, near)
        carried = self._carry(scaling, near, query)
        if carried is None:
            return None
        median_ns, outside = carried
        other = next((f for f in self._candidates(query) if self._on_other_side(scaling, f, near, query)), None)
        across = None if other is None else self._carry(scaling, other, query)
        if other is not None and across is not None:
            d, far = _distance(near, query), _distance(other, query)
            share = far / max(d + far, MIN_POSITIVE)
            median_ns = exp(share * ln(median_ns) + (1.0 - share) * ln(across[0]))
        other_links = scaling.links.part(near.ranks, query.ranks)
        spread = _OTHER_LINKS if other_links else scaling.spread
        # Both ends as far from the time, in ratio.
        low, high = max(near.relative_low, spread / (1.0 + spread)), max(near.relative_high, spread)
        return with_spread(median_ns, low, high, Outside(outside + _distance(near, query), 0, int(other_links)))

    @staticmethod
    def _on_other_side(scaling: Scaling, fit: CollectiveFit, near: CollectiveFit, query: CollectiveQuery) -> bool:
        like = fit.dtype == near.dtype and fit.nodes == near.nodes and not scaling.links.part(fit.ranks, query.ranks)
        return like and near.ranks != query.ranks and (fit.ranks > query.ranks) != (near.ranks > query.ranks)

    @staticmethod
    def _carry(scaling: Scaling, start: CollectiveFit, query: CollectiveQuery) -> Optional[Tuple[float, float]]:
        if Ranked.of(start).point_to_point:
            return at_size(start.segments, query.bytes)
        carried = scaling.carry(start, query.asked(), query.bytes)
        return None if carried is None else (carried.ns, carried.outside)

    def _other_operation(self, query: CollectiveQuery, fits: Sequence[CollectiveFit]) -> Optional[Prediction]:
        """From another operation's curve, or from both halves of an all-reduce."""
        asked = query.asked()
        times: List[Derived] = []
        for fit in fits:
            found = derived.from_curve(fit, self._scaling(query, fit), asked, query.bytes)
            if found is None:
                return None
            times.append(found)
        time = derived.mean(times)
        if time is None:
            return None
        start = Ranked.of(fits[0])
        own = max([0.0, *(f.relative_high for f in fits)])
        spread = _OTHER_LINKS if self._links.part(start.group, asked.group) else 0.0
        ranks = 0.0 if start.point_to_point or asked.point_to_point else _distance(fits[0], query)
        return _wide(time, own + spread, Outside(time.outside + ranks, 0, 1))

    def _unknown(self, query: CollectiveQuery) -> CostModelError:
        fits = self._model.collectives
        names = sorted({f.operation for f in fits})
        if names and query.operation != "send_recv" and query.operation not in names:
            return CostModelError(
                f"the cost model knows no operation `{query.operation}`",
                f"{cure(query.operation, names)}; another is measured by `bubblebench measure collectives` or imported",
            )
        own = [f for f in fits if query.operation in (f.operation, f.operation.split("/")[0])]
        measured = sorted({f"{counted(f.ranks, 'rank')} over {counted(f.nodes, 'node')} in {f.dtype}" for f in own})
        known = f"this operation between {some_of(measured, 8)}" if measured else "no collective at all"
        dtype = "" if query.dtype is None else f" in {query.dtype}"
        return CostModelError(
            f"the cost model does not know {query.operation} over {counted(query.nodes, 'node')}{dtype}",
            f"it was made from {known}; measure this one with `bubblebench measure collectives` or import it",
        )


def _wide(time: Derived, own: float, outside: Outside) -> Prediction:
    """Both ends as far from the time, in ratio."""
    high = min(time.spread + own, max(MOST_SPREAD, own))
    return with_spread(time.ns, high / (1.0 + high), high, outside)
