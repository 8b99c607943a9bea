"""Reads ``cost_model.json``: which version it is of, and that every key is a known one with a value of its type. Unknown keys
are refused, as the program refuses them: a file of a later version may mean something else by the rest."""

from __future__ import annotations

import json
import math
import os
from typing import Any, Callable, Dict, List, Optional, Tuple, TypeVar, Union

from .errors import CostModelError
from .operation import DTYPES
from .prediction import Interval
from .records import (
    Anchors,
    CollectiveFit,
    CorunPair,
    CostModelFile,
    Fit,
    Interference,
    LayerAnchor,
    OperationFits,
    Segment,
    Topology,
)
from .shape import ATTENTION_KINDS, MOST, NORMS, POSITIONS, RECOMPUTE, LayerShape

#: The version of the format that this package reads; it reads every earlier one too.
VERSION = 2
_PREFIX = "bubblebench.cost_model/"
_NAME = f"{_PREFIX}{VERSION}"

T = TypeVar("T")


class _Mistake(Exception):
    """What does not follow the format, and where."""


class _Object:
    """A JSON object whose keys are asked for one by one; those left over are unknown."""

    def __init__(self, value: Any, place: str) -> None:
        if not isinstance(value, dict):
            raise _Mistake(f"{place} is no object")
        self.place = place
        self._left: Dict[str, Any] = dict(value)

    def at(self, key: str) -> str:
        """Where a key stands."""
        return f"{self.place}.{key}" if self.place else key

    def take(self, key: str, read: "Callable[[Any, str], T]") -> T:
        """The value of a key that must be there."""
        if key not in self._left:
            raise _Mistake(f"missing field `{self.at(key)}`")
        return read(self._left.pop(key), self.at(key))

    def optional(self, key: str, read: "Callable[[Any, str], T]") -> Optional[T]:
        """The value of a key that may be absent or null."""
        value = self._left.pop(key, None)
        return None if value is None else read(value, self.at(key))

    def default(self, key: str, read: "Callable[[Any, str], T]", value: T) -> T:
        """The value of a key that may be absent, but not null."""
        return self.take(key, read) if key in self._left else value

    def close(self) -> None:
        """Refuses what nobody asked for."""
        for key in self._left:
            raise _Mistake(f"unknown field `{self.at(key)}`")


def _text(value: Any, place: str) -> str:
    if not isinstance(value, str):
        raise _Mistake(f"{place} is no text")
    return value


def _truth(value: Any, place: str) -> bool:
    if not isinstance(value, bool):
        raise _Mistake(f"{place} is neither true nor false")
    return value


def _count(value: Any, place: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MOST:
        raise _Mistake(f"{place} is no count")
    return value


def _number(value: Any, place: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise _Mistake(f"{place} is no number")
    return float(value)


def _choice(names: Tuple[str, ...]) -> Callable[[Any, str], str]:
    def read(value: Any, place: str) -> str:
        if value not in names:
            raise _Mistake(f"{place} is none of {', '.join(names)}")
        return str(value)

    return read


def _list(read: "Callable[[Any, str], T]") -> "Callable[[Any, str], Tuple[T, ...]]":
    def all_of(value: Any, place: str) -> Tuple[T, ...]:
        if not isinstance(value, list):
            raise _Mistake(f"{place} is no list")
        return tuple(read(item, f"{place}[{index}]") for index, item in enumerate(value))

    return all_of


def _table(read: "Callable[[Any, str], T]") -> "Callable[[Any, str], Dict[str, T]]":
    def all_of(value: Any, place: str) -> Dict[str, T]:
        if not isinstance(value, dict):
            raise _Mistake(f"{place} is no object")
        return {key: read(item, f"{place}.{key}") for key, item in value.items()}

    return all_of


def _interval(value: Any, place: str) -> Interval:
    o = _Object(value, place)
    found = Interval(o.take("median", _number), o.take("low", _number), o.take("high", _number))
    o.close()
    return found


def _point(value: Any, place: str) -> Tuple[Tuple[float, ...], float, float]:
    o = _Object(value, place)
    found = (o.take("at", _list(_number)), o.take("ratio", _number), o.take("weight", _number))
    o.close()
    return found


def _anchors(value: Any, place: str) -> Anchors:
    o = _Object(value, place)
    sizes, length = o.take("sizes", _list(_text)), o.take("length", _number)
    o.take("nugget", _number)
    points = o.take("points", _list(_point))
    o.close()
    return Anchors(sizes, length, points)


def _fit(value: Any, place: str) -> Fit:
    o = _Object(value, place)
    found = Fit(
        features=o.take("features", _list(_text)),
        coefficients_ns=o.take("coefficients_ns", _list(_number)),
        relative_low=o.take("relative_low", _number),
        relative_high=o.take("relative_high", _number),
        anchors=o.optional("anchors", _anchors),
        without_gelu=o.default("without_gelu", _truth, False),
    )
    o.take("cases", _count)
    o.close()
    return found


def _operations(value: Any, place: str) -> OperationFits:
    o = _Object(value, place)
    tables = [o.take(key, _table(_fit)) for key in ("gemm", "attention", "streaming")]
    launch = o.take("launch", lambda v, p: _Object(v, p))
    launch.take("per_operation_ns", _number)
    additivity = launch.take("additivity", _table(_fit))
    launch.close()
    o.close()
    return OperationFits(tables[0], tables[1], tables[2], additivity)


def _shape(value: Any, place: str) -> LayerShape:
    o = _Object(value, place)
    hidden, heads, tensor = o.take("hidden", _count), o.take("heads", _count), o.take("tensor", _count)
    kv_heads, ffn_hidden = o.optional("kv_heads", _count), o.optional("ffn_hidden", _count)
    bias, causal = o.optional("bias", _truth), o.optional("causal", _truth)
    context = o.optional("context", _count)
    found = LayerShape(
        hidden=hidden,
        heads=heads,
        kv_heads=heads if kv_heads is None else kv_heads,
        ffn_hidden=min(4 * hidden, MOST) if ffn_hidden is None else ffn_hidden,
        gated=o.default("gated", _truth, False),
        norm=o.optional("norm", _choice(NORMS)) or NORMS[0],
        positions=o.optional("positions", _choice(POSITIONS)) or POSITIONS[0],
        bias=True if bias is None else bias,
        causal=True if causal is None else causal,
        attention=o.optional("attention", _choice(ATTENTION_KINDS)) or ATTENTION_KINDS[0],
        sequence=o.take("sequence", _count),
        micro_batch=o.take("micro_batch", _count),
        tensor=tensor,
        sequence_parallel=o.default("sequence_parallel", _truth, False) and tensor > 1,
        context=1 if context is None else context,
        dtype=o.take("dtype", _choice(tuple(DTYPES))),
        recompute=o.take("recompute", _choice(RECOMPUTE)),
    )
    o.close()
    return found


def _layer(value: Any, place: str) -> LayerAnchor:
    o = _Object(value, place)
    found = LayerAnchor(
        shape=o.take("shape", _shape),
        forward_ns=o.take("forward_ns", _interval),
        backward_input_ns=o.take("backward_input_ns", _interval),
        backward_weight_ns=o.take("backward_weight_ns", _interval),
        activation_bytes=o.take("activation_bytes", _count),
        parameter_bytes=o.take("parameter_bytes", _count),
    )
    o.close()
    return found


def _segment(value: Any, place: str) -> Segment:
    o = _Object(value, place)
    ends = o.take("from_bytes", _count), o.take("to_bytes", _count)
    found = Segment(*ends, o.take("latency_ns", _number), o.take("ns_per_byte", _number))
    o.close()
    return found


def _algorithm(value: Any, place: str) -> Tuple[int, str]:
    o = _Object(value, place)
    found = (o.take("from_bytes", _count), o.take("algorithm", _text))
    o.close()
    return found


def _collective(value: Any, place: str) -> CollectiveFit:
    o = _Object(value, place)
    found = CollectiveFit(
        operation=o.take("operation", _text),
        ranks=o.take("ranks", _count),
        nodes=o.take("nodes", _count),
        dtype=o.take("dtype", _text),
        latency=o.take("latency", _text),
        segments=o.take("segments", _list(_segment)),
        algorithms=o.default("algorithms", _list(_algorithm), ()),
        relative_low=o.take("relative_low", _number),
        relative_high=o.take("relative_high", _number),
        flags=o.default("flags", _list(_text), ()),
    )
    o.optional("ctas", _count)
    o.close()
    return found


def _topology(value: Any, place: str) -> Topology:
    o = _Object(value, place)
    found = Topology(
        kind=o.take("kind", _choice(("switch", "pairwise", "host"))),
        gpus_per_node=o.optional("gpus_per_node", _count),
        linked_gpus=o.optional("linked_gpus", _count),
        link_bytes_per_s=o.optional("link_bytes_per_s", _number),
        network_bytes_per_s=o.optional("network_bytes_per_s", _number),
        source=o.optional("source", _text),
    )
    o.close()
    return found


def _pair(value: Any, place: str) -> CorunPair:
    o = _Object(value, place)
    names = o.take("main", _text), o.take("side", _text), o.take("sharing", _text)
    found = CorunPair(*names, o.take("slowdown", _interval), o.optional("side_rate", _number))
    o.close()
    return found


def _interference(value: Any, place: str) -> Interference:
    o = _Object(value, place)
    scores = _table(_table(_number))
    found = Interference(
        pairs=o.take("pairs", _list(_pair)),
        pressure=o.take("pressure", scores),
        sensitivity=o.take("sensitivity", scores),
        noise_floor=o.optional("noise_floor", _interval),
    )
    o.close()
    return found


def _gate(value: Any, place: str) -> Dict[str, float]:
    o = _Object(value, place)
    found = {key: o.take(key, _number) for key in ("open_ns", "close_ns", "drain_ns", "restart_ns")}
    by_side = o.take("drain_by_side_ns", _table(_number))
    o.close()
    return {**found, **{f"drain_by_side_ns.{side}": ns for side, ns in by_side.items()}}


def _range(value: Any, place: str) -> Tuple[float, float]:
    o = _Object(value, place)
    found = (o.take("low", _number), o.take("high", _number))
    o.close()
    return found


def _accuracy(value: Any, place: str) -> Tuple[str, float]:
    o = _Object(value, place)
    found = (o.take("what", _text), o.take("mape_percent", _number))
    o.take("held_out", _count)
    o.take("worst_percent", _number)
    o.close()
    return found


_SOURCES = ("measured", "published", "datasheet")


def _machine(value: Any, place: str) -> str:
    o = _Object(value, place)
    name = o.take("name", _text)
    o.take("device", _text)
    o.take("backend", _text)
    o.optional("memory_bytes", _count)
    o.default("source", _choice(_SOURCES), _SOURCES[0])
    o.close()
    return name


def _made_from(value: Any, place: str) -> None:
    o = _Object(value, place)
    o.take("at", _text)
    for key in ("measurements_sha256", "commit", "source"):
        o.optional(key, _text)
    o.close()


def _origin(value: Any, place: str) -> None:
    o = _Object(value, place)
    o.take("machine", _text)
    o.take("source", _choice(_SOURCES))
    o.close()


def _cost_model(value: Any) -> CostModelFile:
    o = _Object(value, "")
    errors: Dict[str, float] = {}
    for what, percent in o.take("accuracy", _list(_accuracy)):
        errors.setdefault(what, percent)
    o.take("made_from", _made_from)
    o.default("origins", _table(_origin), {})
    found = CostModelFile(
        schema=o.take("schema", _text),
        machine=o.take("machine", _machine),
        layer=o.take("layer", _list(_layer)),
        operations=o.take("operations", _operations),
        collectives=o.take("collectives", _list(_collective)),
        topology=o.optional("topology", _topology),
        interference=o.take("interference", _interference),
        accuracy=errors,
        valid=o.take("valid", _table(_range)),
        gate_ns=o.optional("gate", _gate) or {},
    )
    o.close()
    return found


def _check_schema(value: Any, place: str) -> None:
    """Refuses a file of another kind or version, naming both and what to do."""
    found = value.get("schema") if isinstance(value, dict) else None
    if not isinstance(found, str):
        raise CostModelError(
            f'{place} has no "schema" field, so it is not a cost_model file',
            f"give a file whose schema is {_NAME}",
        )
    digits = found[len(_PREFIX) :] if found.startswith(_PREFIX) else ""
    version = int(digits) if digits.isascii() and digits.isdigit() else 0
    if version > VERSION:
        raise CostModelError(
            f"{place} has schema {found}, this package reads up to {_NAME}",
            "update bubblebench, or make the file again with this version",
        )
    if version < 1:
        raise CostModelError(f"{place} has schema {found}, not {_NAME}", "give a cost_model file")


def _no_constant(text: str) -> float:
    raise ValueError(f"{text} is no number of JSON")


def _finite(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ValueError(f"{text} is out of range")
    return value


def read(path: "Union[str, os.PathLike[str]]") -> CostModelFile:
    """Reads a cost model; raises :class:`CostModelError` where the file is no cost model that this version knows."""
    place = os.fspath(path)
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read()
    except (OSError, UnicodeDecodeError) as error:
        raise CostModelError(f"cannot read {place}: {error}", "check the path") from error
    try:
        value = json.loads(text, parse_constant=_no_constant, parse_float=_finite)
    except (ValueError, RecursionError) as error:
        raise CostModelError(
            f"{place} is not JSON: {error}", "give a cost_model file written by bubblebench"
        ) from error
    _check_schema(value, place)
    try:
        return _cost_model(value)
    except (_Mistake, OverflowError) as error:
        raise CostModelError(
            f"{place} does not follow {_NAME}: {error}", "compare it with `bubblebench schema cost_model`"
        ) from error


__all__: List[str] = ["read"]
