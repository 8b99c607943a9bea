"""Random questions, seeded: mostly ones that can be answered, in and out of the range measured, and some that cannot."""

from __future__ import annotations

import random
from typing import Any, Dict

from bubblebench.cost_model import CostModel

OPERATIONS = (
    "all_reduce all_gather reduce_scatter all_to_all all_to_all_v broadcast reduce gather scatter hypercube pipeline "
    "send_recv send_recv/ping_pong send_recv/one_way send_recv/both_ways send_recv/ring all_reduce/max all_recude"
).split()

#: Options of a layer beside its sizes, with values that are not the usual ones; the last of some is wrong.
LAYER_OPTIONS: Dict[str, Any] = {
    "tensor": [2, 4, 8, 3],
    "recompute": ["selective", "full", "selctive"],
    "kv_heads": [1, 2, 4, 8],
    "ffn_hidden": [1024, 11008, 14336, 28672],
    "gated": [True],
    "norm": ["rmsnorm"],
    "positions": ["rotary"],
    "no_bias": [True],
    "non_causal": [True],
    "attention": ["materialised"],
    "sequence_parallel": [True],
}


def layer(rng: random.Random, model: CostModel) -> Dict[str, Any]:
    """A layer: a few of all options, sizes from a token to a long context."""
    heads = rng.choice([1, 2, 4, 8, 8, 12, 16, 32, 64])
    hidden = heads * rng.choice([32, 64, 64, 80, 128])
    asked: Dict[str, Any] = {
        "kind": "layer",
        "hidden": hidden + (rng.random() < 0.02),
        "heads": heads,
        "sequence": rng.choice([1, 17, 128, 256, 512, 1000, 2048, 8192, 131072]),
        "micro_batch": rng.choice([1, 2, 3, 4, 8, 64]),
    }
    if rng.random() < 0.3:
        asked["dtype"] = rng.choice(["f32", "bf16", "f16", "f64", "f23"])
    for option, values in LAYER_OPTIONS.items():
        if rng.random() < 0.2:
            asked[option] = rng.choice(values)
    return asked


def collective(rng: random.Random, model: CostModel) -> Dict[str, Any]:
    """A collective between few and many ranks, of sizes from nothing to many GiB."""
    nodes = rng.choice([1, 1, 1, 2, 4, 16])
    asked: Dict[str, Any] = {
        "kind": "collective",
        "operation": rng.choice(OPERATIONS),
        "ranks": nodes * rng.choice([2, 2, 3, 4, 8, 8, 16, 64]) - (rng.random() < 0.05),
        "bytes": rng.choice([0, 1, 8, 1000, 1 << 12, 65_536, (1 << 20) + 7, 1 << 24, 1 << 28, 1 << 34, 2**64 - 1]),
    }
    if nodes > 1:
        asked["nodes"] = nodes
    if rng.random() < 0.2:
        asked["dtype"] = rng.choice(["f32", "bf16", "f16"])
    if rng.random() < 0.2:
        asked["isolated"] = True
    return asked


def corun(rng: random.Random, model: CostModel) -> Dict[str, Any]:
    """A pair that was measured, one of its main and another's side, a layer that was not, or a name that is unknown."""
    pairs = model.pairs() or (("gpt-h512-a8-s256-b1-t1-f32-forward", "mlp-b32", "free"),)
    others = ["gpt-h768-a12-s300-b2-t1-f32-forward", "gpt-h768-a12-s300-b2-t1-f32-forward_backward", "layernorm", "matmul"]
    main = rng.choice([rng.choice([p[0] for p in pairs]), rng.choice(others)])
    side = rng.choice([p[1] for p in pairs] + ["nothing", "mlp-b64", "pressure-memory", "pressure-compute"])
    sharing = rng.choice([p[2] for p in pairs] * 2 + ["free", "split", "nice", "stream", "priority"])
    return {"kind": "corun", "main": main, "side": side, "sharing": sharing}


def question(rng: random.Random, model: CostModel) -> Dict[str, Any]:
    """Any of the three, as a line of ``predict --batch`` has it."""
    corunning = 0.3 if model.pairs() else 0.02
    kind = rng.random()
    if kind < corunning:
        return corun(rng, model)
    return layer(rng, model) if kind < 0.65 else collective(rng, model)


def answer(model: CostModel, asked: Dict[str, Any]) -> Dict[str, Any]:
    """What Python answers; raises what it raises."""
    keys = {key: value for key, value in asked.items() if key != "kind"}
    if asked["kind"] == "layer":
        # Options switch off what is usually there; Python's arguments say what is there.
        for option, argument in (("no_bias", "bias"), ("non_causal", "causal")):
            if option in keys:
                keys[argument] = not keys.pop(option)
        return model.predict_layer(**keys).to_json()
    if asked["kind"] == "collective":
        return model.predict_collective(**keys).to_json()
    return model.predict_corun(**keys).to_json()
