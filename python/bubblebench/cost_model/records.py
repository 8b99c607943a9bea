"""What stands in ``cost_model.json``, as values. The comments of ``bubblebench schema cost_model`` hold for each field."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Dict, List, Optional, Tuple

from .prediction import Interval
from .shape import LayerShape


@dataclass(frozen=True)
class Anchors:
    """The correction of a fit near measured cases; ``points`` are their sizes, their ratio and their weight."""

    sizes: Tuple[str, ...]
    length: float
    points: Tuple[Tuple[Tuple[float, ...], float, float], ...]


@dataclass(frozen=True)
class Fit:
    """A fitted time, Σ coefficient · feature, in nanoseconds."""

    features: Tuple[str, ...]
    coefficients_ns: Tuple[float, ...]
    relative_low: float
    relative_high: float
    anchors: Optional[Anchors]
    without_gelu: bool


@dataclass(frozen=True)
class OperationFits:
    """Fits of single operations by family and name, and of whole layer phases (``additivity``)."""

    gemm: Dict[str, Fit]
    attention: Dict[str, Fit]
    streaming: Dict[str, Fit]
    additivity: Dict[str, Fit]

    def tables(self) -> List[Dict[str, Fit]]:
        """All four, in the file's order."""
        return [self.gemm, self.attention, self.streaming, self.additivity]


@dataclass(frozen=True)
class LayerAnchor:
    """A layer that was measured, which is answered as measured."""

    shape: LayerShape
    forward_ns: Interval
    backward_input_ns: Interval
    backward_weight_ns: Interval
    activation_bytes: int
    parameter_bytes: int

    def times(self) -> List[Interval]:
        """The three phases' times, in order."""
        return [self.forward_ns, self.backward_input_ns, self.backward_weight_ns]


@dataclass(frozen=True)
class Segment:
    """One straight piece of a collective's curve, ``latency_ns + ns_per_byte · bytes``."""

    from_bytes: int
    to_bytes: int
    latency_ns: float
    ns_per_byte: float


@dataclass(frozen=True)
class CollectiveFit:
    """Time of one collective over message size."""

    operation: str
    ranks: int
    nodes: int
    dtype: str
    latency: str
    segments: Tuple[Segment, ...]
    #: From which size on which algorithm ran.
    algorithms: Tuple[Tuple[int, str], ...]
    relative_low: float
    relative_high: float
    flags: Tuple[str, ...]


@dataclass(frozen=True)
class Topology:
    """How a machine's GPUs are joined, as far as that is stated; bandwidths in bytes per second, one direction."""

    kind: str
    gpus_per_node: Optional[int]
    linked_gpus: Optional[int]
    link_bytes_per_s: Optional[float]
    network_bytes_per_s: Optional[float]
    source: Optional[str]


@dataclass(frozen=True)
class CorunPair:
    """A main and a side that were measured beside each other on one device."""

    main: str
    side: str
    sharing: str
    slowdown: Interval
    side_rate: Optional[float]
    #: Training steps a second of the side alone; ``None`` where it does not train, and in files of earlier versions.
    side_alone_per_s: Optional[float] = None


@dataclass(frozen=True)
class Interference:
    """How much programs that share a device slow each other down; scores by name, then ``mode/resource``."""

    pairs: Tuple[CorunPair, ...]
    pressure: Dict[str, Dict[str, float]]
    sensitivity: Dict[str, Dict[str, float]]
    noise_floor: Optional[Interval]


@dataclass(frozen=True)
class CostModelFile:
    """The parts of a cost model that predictions are made from."""

    schema: str
    machine: str
    layer: Tuple[LayerAnchor, ...]
    operations: OperationFits
    collectives: Tuple[CollectiveFit, ...]
    topology: Optional[Topology]
    interference: Interference
    #: Mean absolute error in percent of held-out cases, by part of the model; of two alike the first.
    accuracy: Dict[str, float]
    #: Smallest and largest value measured of every input, by name.
    valid: Dict[str, Tuple[float, float]]
    #: Times of the gate by name, which no prediction here needs.
    gate_ns: Dict[str, float]
