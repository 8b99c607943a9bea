"""A collective nobody measured, from another operation on the same links, or from what is stated of the network."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Optional, Sequence

from .numbers import MIN_POSITIVE, ln, total
from .ranks import TUNED, GroupLinks, Ranked, Scaling, bus_factor, moved, steps
from .records import CollectiveFit, Topology

#: Half the interval of a derived time, relative: of the part that grows with the message, and of the latency.
_SPREAD = (0.3, 1.5)
#: Operations that only share the links say less about each other.
_REMOTE_SPREAD = 0.7
#: A switch that adds up speeds the all-reduce alone.
_SWITCH_SPREAD = 0.5
#: Part of a data sheet's bandwidth that large messages reach.
_REACHED = 0.8
#: Latency of a step between nodes, in ns.
_NETWORK_STEP_NS = 16_000.0
#: Beyond this many ranks the interval grows with the ln of the ratio.
_MANY_RANKS = 32.0
_MANY_RANKS_SPREAD = 0.35
#: Start of an operation and a step within a node, in ns.
_NODE_LATENCY_NS = (6_600.0, 600.0)

_HALVES = ("all_gather", "reduce_scatter")
_TELLING = ("all_reduce", "all_gather", "reduce_scatter", "broadcast", "reduce", "send_recv")


def remoteness(start: Ranked, to: Ranked) -> Optional[float]:
    """How far another operation is from this one, as ln of the ratio of ranks over which carrying errs as much."""
    a, b = start.base, to.base
    if bus_factor(a, 2) is None or bus_factor(b, 2) is None:
        return None
    if a == b:
        return math.log(1.5)
    if a in _HALVES and b in _HALVES:
        return math.log(2.0)
    if (a in _HALVES and b == "all_reduce") or (a == "all_reduce" and b in _HALVES):
        return math.log(4.0)
    return math.log(8.0 if a in _TELLING else 16.0)


@dataclass(frozen=True)
class Derived:
    """A time in ns worked out from other curves or stated figures, with half its interval as a fraction of it, and how far
    the message's size lies outside the curves."""

    ns: float
    spread: float
    outside: float


def from_curve(start: CollectiveFit, scaling: Scaling, to: Ranked, size: int) -> Optional[Derived]:
    """The time of ``to`` from a curve of another operation on the same network."""
    carried = scaling.carry(start, to, size)
    if carried is None:
        return None
    latency = carried.latency_ns / max(carried.ns, MIN_POSITIVE)
    distance = remoteness(Ranked.of(start), to)
    spread = _SPREAD[0] + (_SPREAD[1] - _SPREAD[0]) * latency
    spread += 0.0 if distance is not None and distance <= math.log(4.0) else _REMOTE_SPREAD
    spread += _SWITCH_SPREAD if scaling.adds_up() else 0.0
    spread += _MANY_RANKS_SPREAD * max(ln(float(max(start.ranks, to.ranks)) / _MANY_RANKS), 0.0)
    return Derived(carried.ns, spread, carried.outside)


def mean(times: Sequence[Derived]) -> Optional[Derived]:
    """The mean of times derived from several curves; ``None`` of none."""
    if not times:
        return None
    ns = total(t.ns for t in times) / float(len(times))
    return Derived(ns, max([0.0, *(t.spread for t in times)]), max([0.0, *(t.outside for t in times)]))


def _ways(to: Ranked) -> float:
    return 1.0 if to.point_to_point else max(float(to.ranks) / float(to.nodes), 1.0)


def least_ns(topology: Topology, to: Ranked, size: int) -> Optional[float]:
    """The time that an operation between nodes takes at least, by the stated network."""
    if to.nodes < 2 or topology.network_bytes_per_s is None:
        return None
    return float(size) * moved(TUNED, to) / (topology.network_bytes_per_s * _ways(to)) * 1e9


def from_stated(topology: Topology, to: Ranked, size: int) -> Optional[Derived]:
    """The time by the bandwidth stated for the links that ``to`` uses; ``None`` where that is not stated."""
    links = GroupLinks.of(topology, []).of_group(to.group, to.nodes)
    stated = topology.link_bytes_per_s
    within = None if stated is None else stated * links
    count = steps(TUNED, to)
    if to.nodes > 1:
        if topology.network_bytes_per_s is None:
            return None
        inner = math.inf if within is None or to.ranks <= to.nodes else within
        rate = min(topology.network_bytes_per_s * _ways(to), inner)
        latency_ns = _NETWORK_STEP_NS * count
    else:
        if within is None:
            return None
        rate, latency_ns = within, _NODE_LATENCY_NS[0] + _NODE_LATENCY_NS[1] * count
    return Derived(latency_ns + float(size) * moved(TUNED, to) / (_REACHED * rate) * 1e9, _SPREAD[1], 0.0)
