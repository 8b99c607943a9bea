"""Cost models made up from published ones, for what no published one has: a switch that adds up, GPUs bridged in pairs, pairs
that nobody could judge, layers alone, fits by element type."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Tuple

from . import program

Model = Dict[str, Any]


def _switch(model: Model) -> None:
    del model["topology"]
    # The halves of an all-reduce are then derived from it.
    halves = ("all_gather", "reduce_scatter")
    model["collectives"] = [c for c in model["collectives"] if c["operation"] not in halves]
    for curve in model["collectives"]:
        if curve["operation"] == "all_reduce":
            curve["algorithms"] = [
                {"from_bytes": 8, "algorithm": "tree/LL"},
                {"from_bytes": 1 << 20, "algorithm": "NVLS"},
            ]


def _bridged(model: Model) -> None:
    model["topology"].update(kind="pairwise", linked_gpus=2)


def _mesh(model: Model) -> None:
    model["topology"] = {"kind": "pairwise", "link_bytes_per_s": 25e9, "network_bytes_per_s": 12.5e9}
    model["collectives"] = [c for c in model["collectives"] if c["operation"] in ("send_recv", "send_recv/ping_pong")]


def _unjudged(model: Model) -> None:
    model["accuracy"] = [a for a in model["accuracy"] if a["what"] != "corun"]
    model["interference"]["pairs"] = model["interference"]["pairs"][::3]


def _judged(model: Model) -> None:
    model["interference"]["pairs"] = model["interference"]["pairs"][1::4]
    for keys in list(model["interference"]["pressure"].values())[::2]:
        keys.pop(sorted(keys)[0])
    model["interference"]["noise_floor"] = None


def _layers_alone(model: Model) -> None:
    launch = {"per_operation_ns": 0.0, "additivity": {}}
    model["operations"] = {"gemm": {}, "attention": {}, "streaming": {}, "launch": launch}


def _few_layers_alone(model: Model) -> None:
    _layers_alone(model)
    model["layer"] = model["layer"][:3]


def _two_types_alone(model: Model) -> None:
    _layers_alone(model)
    for index, layer in enumerate(model["layer"]):
        if index % 2:
            layer["shape"]["dtype"] = "bf16"
    model["valid"]["dtype/bf16"] = {"low": 2, "high": 2}


def _no_fits(model: Model) -> None:
    _layers_alone(model)
    model["valid"] = {name: ends for name, ends in model["valid"].items() if "/" not in name or "dtype" in name}


def _of_features(fit: Model, features: List[str]) -> None:
    """The fit by other features, however many it was made by."""
    fit["features"] = features
    fit["coefficients_ns"] = [fit["coefficients_ns"][at % len(fit["coefficients_ns"])] for at in range(len(features))]


def _typed(model: Model) -> None:
    launch = model["operations"]["launch"]
    launch["additivity"] = {f"{name}/f32": fit for name, fit in launch["additivity"].items()}
    gemm, attention = model["operations"]["gemm"]["forward"], model["operations"]["attention"]["backward"]
    _of_features(gemm, ["wave_flop_128_s132", "bytes_over_1048576", "padded_flop_64"])
    gemm["without_gelu"] = True
    _of_features(attention, ["1", "pairs"])
    model["valid"]["dtype/bf16"] = {"low": 2, "high": 2}


_MADE: "Tuple[Tuple[str, str, Callable[[Model], None]], ...]" = (
    ("switch", "h100-sxm", _switch),
    ("bridged", "a100-80gb", _bridged),
    ("mesh", "amd-epyc-2c", _mesh),
    ("unjudged", "amd-epyc-2c", _unjudged),
    ("judged", "amd-epyc-2c", _judged),
    ("layers-alone", "amd-epyc-2c", _layers_alone),
    ("few-layers-alone", "amd-epyc-2c", _few_layers_alone),
    ("two-types-alone", "rtx3090", _two_types_alone),
    ("many-layers-alone", "rtx3090", _no_fits),
    ("typed", "amd-epyc-2c", _typed),
)


def write(folder: Path) -> Iterator[Path]:
    """The made-up models, each in a folder of its name."""
    for name, source, change in _MADE:
        text = (program.ROOT / "results/published" / source / "cost_model.json").read_text(encoding="utf-8")
        model = json.loads(text)
        change(model)
        path = folder / name / "cost_model.json"
        path.parent.mkdir()
        path.write_text(json.dumps(model), encoding="utf-8")
        yield path
