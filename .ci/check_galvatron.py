"""The search engine of hetu-galvatron 2.4.0 reads two folders of `export --to galvatron`, of one GPU and of eight.

On one GPU its answer has a closed form: samples ÷ (micro-batches · 3 · (layers · forward + the rest)), each time on the straight
line through batch · time. On eight, what gets slower must not get faster.
"""
import argparse
import contextlib
import importlib.util
import io
import json
import os
import shutil
import sys
import tempfile
import types
from unittest.mock import MagicMock

import numpy

# The package imports the training runtime (torch, Megatron) on its way; of it only the engine is wanted.
for name in ("torch", "torch.nn", "torch.utils", "torch.utils.data", "torch.utils.data.distributed"):
    sys.modules[name] = MagicMock(__spec__=None)
root = importlib.util.find_spec("galvatron").submodule_search_locations[0]
import galvatron  # noqa: E402,F401

core = types.ModuleType("galvatron.core")
core.__path__ = [f"{root}/core"]
sys.modules["galvatron.core"] = core
from galvatron.core.search_engine import GalvatronSearchEngine  # noqa: E402
from galvatron.core.search_engine.arguments import galvatron_search_args  # noqa: E402

HIDDEN, HEADS, SEQUENCE, LAYERS = 2304, 24, 1024, 4
MODEL = f"hidden{HIDDEN}_head{HEADS}"
one, eight = sys.argv[1:]


def search(folder, gpus, chunks, batch=8, memory=60, **more):
    a = galvatron_search_args(argparse.ArgumentParser()).parse_args([])
    vars(a).update(num_nodes=1, num_gpus_per_node=gpus, memory_constraint=memory, settle_bsz=batch, settle_chunk=chunks,
                   time_profile_mode="batch", mixed_precision="bf16", hidden_size=HIDDEN, log_dir=folder + "/logs",
                   output_config_path=folder, **more)
    for path in ("memory_profiling_path", "time_profiling_path", "allreduce_bandwidth_config_path", "p2p_bandwidth_config_path",
                 "overlap_coe_path", "sp_time_path"):
        setattr(a, path, folder)
    engine = GalvatronSearchEngine(a)
    engine.set_search_engine_info(folder, [{"hidden_size": HIDDEN, "layer_num": LAYERS, "seq_len": SEQUENCE}], MODEL)
    with contextlib.redirect_stdout(io.StringIO()):
        engine.initialize_search_engine()
        return engine.parallelism_optimization()


def changed(folder, file, factor, keys=""):
    """A copy of the folder in which the numbers of a file are so many times as large."""
    copy = f"{place}/{file}-{factor}-{keys}"
    shutil.copytree(folder, copy)
    name, = (n for n in os.listdir(copy) if n.startswith(file))
    numbers = json.load(open(f"{copy}/{name}"))
    json.dump({k: v * factor if k.startswith(keys) else v for k, v in numbers.items()}, open(f"{copy}/{name}", "w"))
    return copy


def closed(folder, chunks, batch=8):
    name, = (n for n in os.listdir(folder) if n.startswith("computation"))
    times = json.load(open(f"{folder}/{name}"))

    def ms(kind, size):
        points = [(b, b * times[f"{kind}_bsz{b}_seq{SEQUENCE}"]) for b in range(1, 9)]
        slope, start = numpy.polyfit(*zip(*points), 1)
        return start + slope * size

    size = batch // chunks
    return batch / (chunks * 3 * (LAYERS * ms("layertype_0", size) + ms("layertype_other", size)) * 1e-3)


def same(found, wanted, what):
    assert abs(found / wanted - 1) < 1e-4, f"{what}: {found}, not {wanted}"


with tempfile.TemporaryDirectory() as place:
    for chunks in (1, 2, 4, 8):
        same(search(one, 1, chunks, disable_ckpt=1), closed(one, chunks), f"one GPU, {chunks} micro-batches")
    double = changed(one, "computation_profiling", 2.0, "layertype_0")
    same(search(double, 1, 2, disable_ckpt=1), closed(double, 2), "layers twice as slow")
    assert closed(double, 2) < closed(one, 2)
    pipeline = {"search_space": "pp", "max_pp_deg": 4}
    fast, slow = search(eight, 8, 4, **pipeline), search(changed(eight, "p2p_bandwidth", 0.02), 8, 4, **pipeline)
    assert 0 < slow < fast, f"slower messages: {slow}, {fast}"
    data = search(eight, 8, 1, search_space="dp")
    slow = search(changed(eight, "allreduce_bandwidth", 0.1), 8, 1, search_space="dp")
    assert 0 < slow < data, f"slower all-reduces: {slow}, {data}"
    three = search(eight, 8, 2, search_space="3d")
    assert three > 0, "2 x 2 x 2 is not found"
    print(f"exports: Galvatron: one GPU {closed(one, 1):.2f} samples/s as the closed form; of eight {data:.2f}, as 2 x 2 x 2 {three:.2f}")
