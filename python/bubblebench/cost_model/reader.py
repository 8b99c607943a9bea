"""Reads ``cost_model.json``: which version it is of, and that every key is a known one with a value of its type. Unknown keys
are refused, as the program refuses them: a file of a later version may mean something else by the rest."""

from __future__ import annotations

import json
import math
import os
from typing import Any, Dict, Tuple, Union

from .errors import CostModelError
from .fields import Mistake, Object, choice, count, list_of, number, table_of, text, truth
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

def _interval(value: Any, place: str) -> Interval:
    o = Object(value, place)
    found = Interval(o.take("median", number), o.take("low", number), o.take("high", number))
    o.close()
    return found


def _point(value: Any, place: str) -> Tuple[Tuple[float, ...], float, float]:
    o = Object(value, place)
    found = (o.take("at", list_of(number)), o.take("ratio", number), o.take("weight", number))
    o.close()
    return found


def _anchors(value: Any, place: str) -> Anchors:
    o = Object(value, place)
    sizes, length = o.take("sizes", list_of(text)), o.take("length", number)
    o.take("nugget", number)
    points = o.take("points", list_of(_point))
    o.close()
    return Anchors(sizes, length, points)


def _fit(value: Any, place: str) -> Fit:
    o = Object(value, place)
    found = Fit(
        features=o.take("features", list_of(text)),
        coefficients_ns=o.take("coefficients_ns", list_of(number)),
        relative_low=o.take("relative_low", number),
        relative_high=o.take("relative_high", number),
        anchors=o.optional("anchors", _anchors),
        without_gelu=o.default("without_gelu", truth, False),
    )
    o.take("cases", count)
    o.close()
    return found


def _operations(value: Any, place: str) -> OperationFits:
    o = Object(value, place)
    tables = [o.take(key, table_of(_fit)) for key in ("gemm", "attention", "streaming")]
    launch = o.take("launch", lambda v, p: Object(v, p))
    launch.take("per_operation_ns", number)
    additivity = launch.take("additivity", table_of(_fit))
    launch.close()
    o.close()
    return OperationFits(tables[0], tables[1], tables[2], additivity)


def _shape(value: Any, place: str) -> LayerShape:
    o = Object(value, place)
    hidden, heads, tensor = o.take("hidden", count), o.take("heads", count), o.take("tensor", count)
    kv_heads, ffn_hidden = o.optional("kv_heads", count), o.optional("ffn_hidden", count)
    bias, causal = o.optional("bias", truth), o.optional("causal", truth)
    context = o.optional("context", count)
    found = LayerShape(
        hidden=hidden,
        heads=heads,
        kv_heads=heads if kv_heads is None else kv_heads,
        ffn_hidden=min(4 * hidden, MOST) if ffn_hidden is None else ffn_hidden,
        gated=o.default("gated", truth, False),
        norm=o.optional("norm", choice(NORMS)) or NORMS[0],
        positions=o.optional("positions", choice(POSITIONS)) or POSITIONS[0],
        bias=True if bias is None else bias,
        causal=True if causal is None else causal,
        attention=o.optional("attention", choice(ATTENTION_KINDS)) or ATTENTION_KINDS[0],
        sequence=o.take("sequence", count),
        micro_batch=o.take("micro_batch", count),
        tensor=tensor,
        sequence_parallel=o.default("sequence_parallel", truth, False) and tensor > 1,
        context=1 if context is None else context,
        dtype=o.take("dtype", choice(tuple(DTYPES))),
        recompute=o.take("recompute", choice(RECOMPUTE)),
    )
    o.close()
    return found


def _layer(value: Any, place: str) -> LayerAnchor:
    o = Object(value, place)
    found = LayerAnchor(
        shape=o.take("shape", _shape),
        forward_ns=o.take("forward_ns", _interval),
        backward_input_ns=o.take("backward_input_ns", _interval),
        backward_weight_ns=o.take("backward_weight_ns", _interval),
        activation_bytes=o.take("activation_bytes", count),
        parameter_bytes=o.take("parameter_bytes", count),
    )
    o.close()
    return found


def _segment(value: Any, place: str) -> Segment:
    o = Object(value, place)
    ends = o.take("from_bytes", count), o.take("to_bytes", count)
    found = Segment(*ends, o.take("latency_ns", number), o.take("ns_per_byte", number))
    o.close()
    return found


def _algorithm(value: Any, place: str) -> Tuple[int, str]:
    o = Object(value, place)
    found = (o.take("from_bytes", count), o.take("algorithm", text))
    o.close()
    return found


def _collective(value: Any, place: str) -> CollectiveFit:
    o = Object(value, place)
    found = CollectiveFit(
        operation=o.take("operation", text),
        ranks=o.take("ranks", count),
        nodes=o.take("nodes", count),
        dtype=o.take("dtype", text),
        latency=o.take("latency", text),
        segments=o.take("segments", list_of(_segment)),
        algorithms=o.default("algorithms", list_of(_algorithm), ()),
        relative_low=o.take("relative_low", number),
        relative_high=o.take("relative_high", number),
        flags=o.default("flags", list_of(text), ()),
    )
    o.optional("ctas", count)
    o.close()
    return found


def _topology(value: Any, place: str) -> Topology:
    o = Object(value, place)
    found = Topology(
        kind=o.take("kind", choice(("switch", "pairwise", "host"))),
        gpus_per_node=o.optional("gpus_per_node", count),
        linked_gpus=o.optional("linked_gpus", count),
        link_bytes_per_s=o.optional("link_bytes_per_s", number),
        network_bytes_per_s=o.optional("network_bytes_per_s", number),
        source=o.optional("source", text),
    )
    o.close()
    return found


def _pair(value: Any, place: str) -> CorunPair:
    o = Object(value, place)
    names = o.take("main", text), o.take("side", text), o.take("sharing", text)
    slowdown, rates = o.take("slowdown", _interval), [o.optional(key, number) for key in ("side_rate", "side_alone_per_s")]
    found = CorunPair(*names, slowdown, *rates)
    o.close()
    return found


def _interference(value: Any, place: str) -> Interference:
    o = Object(value, place)
    scores = table_of(table_of(number))
    found = Interference(
        pairs=o.take("pairs", list_of(_pair)),
        pressure=o.take("pressure", scores),
        sensitivity=o.take("sensitivity", scores),
        noise_floor=o.optional("noise_floor", _interval),
    )
    o.close()
    return found


def _gate(value: Any, place: str) -> Dict[str, float]:
    o = Object(value, place)
    found = {key: o.take(key, number) for key in ("open_ns", "close_ns", "drain_ns", "restart_ns")}
    by_side = o.take("drain_by_side_ns", table_of(number))
    o.close()
    return {**found, **{f"drain_by_side_ns.{side}": ns for side, ns in by_side.items()}}


def _range(value: Any, place: str) -> Tuple[float, float]:
    o = Object(value, place)
    found = (o.take("low", number), o.take("high", number))
    o.close()
    return found


def _accuracy(value: Any, place: str) -> Tuple[str, float]:
    o = Object(value, place)
    found = (o.take("what", text), o.take("mape_percent", number))
    o.take("held_out", count)
    o.take("worst_percent", number)
    o.close()
    return found


_SOURCES = ("measured", "published", "datasheet")


def _machine(value: Any, place: str) -> str:
    o = Object(value, place)
    name = o.take("name", text)
    o.take("device", text)
    o.take("backend", text)
    o.optional("memory_bytes", count)
    o.default("source", choice(_SOURCES), _SOURCES[0])
    o.close()
    return name


def _made_from(value: Any, place: str) -> None:
    o = Object(value, place)
    o.take("at", text)
    for key in ("measurements_sha256", "commit", "source"):
        o.optional(key, text)
    o.close()


def _origin(value: Any, place: str) -> None:
    o = Object(value, place)
    o.take("machine", text)
    o.take("source", choice(_SOURCES))
    o.close()


def _origins(value: Any, place: str) -> None:
    table_of(_origin)(value, place)


def _cost_model(value: Any) -> CostModelFile:
    o = Object(value, "")
    errors: Dict[str, float] = {}
    for what, percent in o.take("accuracy", list_of(_accuracy)):
        errors.setdefault(what, percent)
    o.take("made_from", _made_from)
    o.default("origins", _origins, None)
    found = CostModelFile(
        schema=o.take("schema", text),
        machine=o.take("machine", _machine),
        layer=o.take("layer", list_of(_layer)),
        operations=o.take("operations", _operations),
        collectives=o.take("collectives", list_of(_collective)),
        topology=o.optional("topology", _topology),
        interference=o.take("interference", _interference),
        accuracy=errors,
        valid=o.take("valid", table_of(_range)),
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
            content = file.read()
    except (OSError, UnicodeDecodeError) as error:
        raise CostModelError(f"cannot read {place}: {error}", "check the path") from error
    try:
        value = json.loads(content, parse_constant=_no_constant, parse_float=_finite)
    except (ValueError, RecursionError) as error:
        raise CostModelError(
            f"{place} is not JSON: {error}", "give a cost_model file written by bubblebench"
        ) from error
    _check_schema(value, place)
    try:
        return _cost_model(value)
    except (Mistake, OverflowError) as error:
        raise CostModelError(
            f"{place} does not follow {_NAME}: {error}", "compare it with `bubblebench schema cost_model`"
        ) from error

