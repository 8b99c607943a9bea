"""From the ranks that were measured to others: a curve's time at a size, links of a group, steps and bytes of an algorithm.
docs/cost-model.md has the equations and their sources."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Dict, List, Optional, Sequence, Tuple

from .numbers import divide, ln, total
from .records import CollectiveFit, Segment, Topology

#: Messages from this size on show a bandwidth, in bytes.
_LARGE = 4 << 20
#: A larger group with less of the smaller one's bandwidth than this passes another kind of link.
_FALL = 0.5
#: The part of the latency spent in steps, within a node and between nodes, where one number of ranks says nothing about it.
_DEFAULT_IN_STEPS = (0.25, 1.0)
_IN_STEPS = (0.0, 0.25, 0.5, 0.75, 1.0)
#: The default stays unless another explanation leaves less than this part of its error …
_CONVINCING = 0.5
#: … and of two explanations the simpler one unless the other is better by this.
_MARGIN = 0.01
_DEFAULT_SPREAD = 0.6
#: The widest spread, however badly the measured curves carry into each other.
MOST_SPREAD = 2.0

TUNED, RING, TREE, SWITCH = "tuned", "ring", "tree", "switch"
_ALGORITHMS = (TUNED, RING, TREE, SWITCH)


def at_size(segments: Sequence[Segment], size: int) -> Optional[Tuple[float, float]]:
    """The time at a size in ns, and how far the size lies outside what was measured, as ln of the ratio."""
    if not segments:
        return None
    first, last = segments[0], segments[-1]
    x = float(size)
    if size < first.from_bytes:
        # A segment without a latency is a bandwidth: it says nothing about a message next to nothing.
        start = float(first.from_bytes)
        return (_line(first, x if first.latency_ns > 0.0 else start), ln(start / max(x, 1.0)))
    largest = max(last.to_bytes - 1, 0)
    if size > largest:
        most = float(largest)
        end = _line(last, most)
        slope = last.ns_per_byte if last.ns_per_byte > 0.0 else divide(end, most)
        return (end + slope * (x - most), ln(divide(x, most)))
    found = next((s for s in segments if size < s.to_bytes), last)
    return (_line(found, x), 0.0)


def _line(segment: Segment, x: float) -> float:
    return segment.latency_ns + segment.ns_per_byte * x


def bus_factor(operation: str, ranks: int) -> Optional[float]:
    """Bus bandwidth ÷ algorithm bandwidth of an operation by its name, as nccl-tests counts it."""
    share = float(ranks - 1) / float(ranks) if ranks else 0.0
    if operation == "all_reduce":
        return 2.0 * share
    if operation in ("all_gather", "reduce_scatter", "all_to_all", "all_to_all_v", "gather", "scatter", "hypercube"):
        return share
    return 1.0 if operation in ("broadcast", "reduce", "send_recv", "pipeline") else None


@dataclass(frozen=True)
class Ranked:
    """An operation, and the ranks and nodes it runs between."""

    operation: str
    ranks: int
    nodes: int

    @staticmethod
    def of(fit: CollectiveFit) -> "Ranked":
        """What a curve was measured of."""
        return Ranked(fit.operation, fit.ranks, fit.nodes)

    @property
    def base(self) -> str:
        """The operation's name without its pattern or reduction."""
        return self.operation.split("/")[0]

    @property
    def point_to_point(self) -> bool:
        """Whether messages go between two ranks each."""
        return self.base == "send_recv"

    @property
    def group(self) -> int:
        """How many ranks one message of the operation involves."""
        return 2 if self.point_to_point else self.ranks

    def _per_node(self) -> float:
        return max(float(self.ranks) / float(self.nodes), 1.0)

    def ways_beside(self, other: "Ranked") -> float:
        """The ways out of a node that a collective has and a single message has not."""
        many = self.nodes > 1 and not self.point_to_point and other.point_to_point
        return math.sqrt(self._per_node()) if many else 1.0

    def ways(self) -> float:
        """Ranks of a node, each of which may have its own way into the network; 1 within a node."""
        return self._per_node() if self.nodes > 1 and not self.point_to_point else 1.0


def algorithm_named(name: str) -> Optional[str]:
    """The algorithm by its name in the records; ``None`` for an unknown name."""
    lower = "".join(c.lower() if c.isascii() else c for c in name)
    for part, algorithm in (("tree", TREE), ("nvls", SWITCH), ("collnet", SWITCH)):
        if part in lower:
            return algorithm
    return RING if lower.startswith(("ring", "chain", "direct", "pat")) else None


def steps(algorithm: str, what: Ranked) -> float:
    """Number of dependent steps, in units of a message between two ranks."""
    if what.point_to_point:
        return 1.0
    passes = 2.0 if what.base == "all_reduce" else 1.0
    ranks, nodes = float(what.ranks), float(what.nodes)
    if what.nodes > 1:
        ring, tree = 0.5 * nodes + 0.25 * (ranks - nodes), 0.5 + 0.5 * math.log2(nodes)
    else:
        ring, tree = ranks - 1.0, math.log2(ranks)
    if algorithm == SWITCH:
        return passes
    only_rings = algorithm == TUNED and what.nodes > 1 and what.base != "all_reduce"
    return passes * (ring if algorithm == RING or only_rings else tree)


def moved(algorithm: str, what: Ranked) -> float:
    """Bytes that pass a rank's link ÷ bytes of the message."""
    if algorithm in (TUNED, RING):
        factor = bus_factor(what.base, what.ranks)
        plain = 1.0 if factor is None else factor
        if what.base != "all_to_all":
            return plain
        per_node = float(what.ranks) / float(max(what.nodes, 1))
        return (per_node if what.nodes > 1 else 1.0) * plain
    return 2.0 if algorithm == TREE and what.base == "all_reduce" else 1.0


@dataclass(frozen=True)
class GroupLinks:
    """How many links a group of ranks has within a node."""

    #: Whether each pair of ranks has links of its own, so that a larger group uses more of them.
    pairwise: bool = False
    #: The largest group that is linked directly, in ranks; ``None`` where every group is.
    linked: Optional[int] = None

    @staticmethod
    def of(stated: Optional[Topology], curves: Sequence[CollectiveFit]) -> "GroupLinks":
        """What the cost model states, else what its curves say."""
        if stated is None:
            return _inferred(curves)
        return GroupLinks(True, stated.linked_gpus) if stated.kind == "pairwise" else GroupLinks()

    def of_group(self, ranks: int, nodes: int) -> float:
        """Links of one rank that a group uses at once, as a multiple of what two ranks use."""
        linked = self.pairwise and nodes <= 1 and (self.linked is None or ranks <= self.linked)
        return float(max(ranks - 1, 1)) if linked else 1.0

    def part(self, a: int, b: int) -> bool:
        """Whether one of two numbers of ranks is linked directly and the other passes the host."""
        return self.linked is not None and (a <= self.linked) != (b <= self.linked)


def _inferred(curves: Sequence[CollectiveFit]) -> GroupLinks:
    """The law that the bandwidths of the first operation with two numbers of ranks follow, the all-reduce before others."""
    names = sorted({f.operation for f in curves if not f.operation.startswith("send_recv")})
    for name in sorted(names, key=lambda n: n != "all_reduce"):
        groups: Dict[Tuple[str, str], Dict[int, CollectiveFit]] = {}
        for fit in curves:
            if fit.operation == name and fit.nodes == 1 and "oversubscribed" not in fit.flags:
                groups.setdefault((fit.latency, fit.dtype), {})[fit.ranks] = fit
        for key in sorted(groups):
            law = _law_of([groups[key][ranks] for ranks in sorted(groups[key])])
            if law is not None:
                return law
    return GroupLinks()


def _law_of(curves: List[CollectiveFit]) -> Optional[GroupLinks]:
    def last(fit: CollectiveFit) -> int:
        return max(fit.segments[-1].to_bytes - 1, 0) if fit.segments else 0

    ordered = [fit for fit in curves if last(fit) >= _LARGE]
    seen: Optional[GroupLinks] = None
    for few, many in zip(ordered, ordered[1:]):
        size = min(last(few), last(many))
        rates = []
        for fit in (many, few):
            found = at_size(fit.segments, size)
            if found is None:
                return None
            rates.append(divide(moved(RING, Ranked.of(fit)), found[0]))
        ratio = divide(rates[0], rates[1])
        if ratio < _FALL:
            return GroupLinks(False, few.ranks)
        # As near to the links' number as to 1, in ratio.
        links = float(many.ranks - 1) / float(few.ranks - 1)
        seen = GroupLinks(ratio > math.sqrt(links), None)
    return seen


@dataclass(frozen=True)
class Carried:
    """A time carried from a curve, the part of it that does not grow with the message, and how far the size lies outside."""

    ns: float
    latency_ns: float
    outside: float


@dataclass(frozen=True)
class Scaling:
    """How a curve is carried to another number of ranks."""

    algorithm: str
    in_steps: float
    links: GroupLinks
    spread: float

    @staticmethod
    def of(curves: Sequence[CollectiveFit], known: Optional[str], links: GroupLinks) -> "Scaling":
        """The scaling that carries the measured curves into each other with the least error; ``known`` fixes the algorithm."""
        between_nodes = bool(curves) and curves[0].nodes > 1
        default = Scaling(known or TUNED, _DEFAULT_IN_STEPS[between_nodes], links, _DEFAULT_SPREAD)
        usual = default._error_between(curves)
        if usual is None:
            return default
        least, best = _CONVINCING * usual, None
        for algorithm in _ALGORITHMS if known is None else (known,):
            for in_steps in _IN_STEPS:
                scaling = Scaling(algorithm, in_steps, links, default.spread)
                error = scaling._error_between(curves)
                if error is not None and error < least - _MARGIN:
                    least, best = error, scaling
        error, found = (usual, default) if best is None else (least, best)
        # A mean absolute error covers 95 % of normal errors when multiplied by this.
        return Scaling(found.algorithm, found.in_steps, links, min(2.457 * error, MOST_SPREAD))

    def _error_between(self, curves: Sequence[CollectiveFit]) -> Optional[float]:
        """Mean |ln(carried ÷ measured)| over ordered pairs of curves and their sizes."""
        errors = []
        for i, start in enumerate(curves):
            for j, to in enumerate(curves):
                if j == i or to.ranks == start.ranks or self.links.part(start.ranks, to.ranks):
                    continue
                for size in _ends(to):
                    carried = self.carry(start, Ranked.of(to), size)
                    measured = at_size(to.segments, size)
                    if carried and measured and carried.outside == 0.0 and measured[1] == 0.0:
                        errors.append(abs(ln(divide(carried.ns, measured[0]))))
        return total(errors) / float(len(errors)) if errors else None

    def carry(self, start: CollectiveFit, to: Ranked, size: int) -> Optional[Carried]:
        """The time of another operation, or between other ranks, from a curve; ``None`` if it has no segments."""
        found = at_size(start.segments, size)
        if found is None:
            return None
        ns, outside = found
        measured = Ranked.of(start)
        latency = _latency_part(start, size, ns)
        # Another operation need not have the algorithm of this one: only a ring is every operation's.
        same = measured.base == to.base or self.algorithm == RING
        algorithm = self.algorithm if same else TUNED
        step_ratio = divide(steps(algorithm, to), steps(self.algorithm, measured))
        moved_ratio = divide(moved(algorithm, to), self._moved_by(measured, to))
        links = self.links.of_group(measured.group, start.nodes) / self.links.of_group(to.group, to.nodes)
        # A ring over several ranks of each node crosses between nodes by all their adapters, one over a single rank of each
        # by one, unless the ranks of a node share one: half-way, in ratio, between the two.
        both = not measured.point_to_point and not to.point_to_point
        adapters = math.sqrt(measured.ways() / to.ways()) if both else 1.0
        ways = adapters * measured.ways_beside(to) / to.ways_beside(measured)
        latency_ns = latency * ((1.0 - self.in_steps) + self.in_steps * step_ratio)
        return Carried(latency_ns + (ns - latency) * moved_ratio * links * ways, latency_ns, outside)

    def adds_up(self) -> bool:
        """Whether the algorithm is one of which other operations on the same links have nothing."""
        return self.algorithm == SWITCH

    def _moved_by(self, measured: Ranked, to: Ranked) -> float:
        own = moved(self.algorithm, measured)
        if self.algorithm == SWITCH and measured.base != to.base:
            return math.sqrt(own * moved(RING, measured))
        return own


def _latency_part(fit: CollectiveFit, size: int, ns: float) -> float:
    """The segment's latency, but no more than the smallest message takes."""
    segment = next((s for s in fit.segments if size < s.to_bytes), fit.segments[-1])
    smallest = at_size(fit.segments, fit.segments[0].from_bytes)
    least = math.inf if smallest is None else smallest[0]
    return min(segment.latency_ns, ns, least)


def _ends(fit: CollectiveFit) -> List[int]:
    """Sizes at which a curve is compared: where its segments begin, and its end."""
    starts = [s.from_bytes for s in fit.segments]
    return starts + [max(s.to_bytes - 1, 0) for s in fit.segments[-1:]]
