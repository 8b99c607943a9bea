#!/usr/bin/env python3
"""bubblebench's measurements beside PyTorch's of the same machine, and both beside the targets: Markdown.

    python3 benches/peers/against.py results/nvidia-h200 --peers results/nvidia-h200/peers.json

Reads measurements.jsonl (ours) and the file torch_gpu.py wrote. A row whose peer or whose own figure is missing shows `–`:
nothing is guessed. Layer: time ratio ours / torch.compile, at most 1.00 wanted. Attention: TFLOP/s (causal, half the
square). Streaming kernels: bytes that must move once, over time, as a share of the copy bandwidth measured there.
"""

import argparse
import json
import re
import sys
from pathlib import Path

NONE = "–"


def ours(folder):
    """Cases by name: those with a time, and those without."""
    timed, without = {}, {}
    for line in (Path(folder) / "measurements.jsonl").read_text().splitlines():
        row = json.loads(line)
        if row.get("kind") != "end":
            (timed if row.get("median_ns") else without)[row["id"]] = row
    return timed, without


def number(value, digits=3):
    return NONE if value is None else f"{value:.{digits}f}"


def table(title, header, rows):
    if not rows:
        return
    print(f"\n### {title}\n")
    print("| " + " | ".join(header) + " |")
    print("|" + "---|" * len(header))
    for row in rows:
        print("| " + " | ".join(row) + " |")


def milliseconds(rows, name):
    row = rows.get(name)
    return None if row is None else row["median_ns"] / 1e6


def warm(cell):
    return cell["warm_ms"] if isinstance(cell, dict) and "warm_ms" in cell else None


def ratio(a, b):
    return None if a is None or b is None else a / b


def shapes(rows, peers, case):
    """The peers' shapes with what they measured; without peers ours."""
    mine = (re.fullmatch(rf"gpt/(h\d+-a\d+-s\d+-b\d+)-t1-bf16/{case}", name) for name in rows)
    return peers or {found[1]: {} for found in mine if found}


def layers(rows, peers):
    out = []
    for key, peer in shapes(rows, peers.get("layer"), "forward_backward").items():
        name = f"gpt/{key}-t1-bf16"
        for phase in ("forward", "forward_backward"):
            stream, graph = milliseconds(rows, f"{name}/{phase}"), milliseconds(rows, f"{name}/{phase}/graph")
            compiled, eager = (peer.get(how, {}) for how in ("compiled", "eager"))
            replay = warm(compiled.get("forward_backward_graph")) if phase == "forward_backward" else None
            best = min((v for v in (stream, graph) if v is not None), default=None)
            theirs = min((v for v in (warm(compiled.get(phase)), replay) if v is not None), default=None)
            got = ratio(best, theirs)
            met = NONE if got is None else ("yes" if got <= 1.0 else "no")
            cells = (stream, graph, warm(eager.get(phase)), warm(compiled.get(phase)), replay)
            out.append([f"`{key}`", phase, *map(number, cells), number(got, 2), met])
    header = ["layer", "phase", "ours ms", "ours graph", "eager", "compiled", "compiled graph", "ours / theirs", "≤ 1.00"]
    table("GPT layer", header, out)


# TFLOP/s wanted at head size 128, 8k: FlashAttention-2, then cuDNN.
ATTENTION = {"forward": (333, 529), "backward": (310, 450)}


def attention(rows, peers, wgmma):
    out = []
    for key, peer in shapes(rows, peers.get("attention"), "op/attention/forward").items():
        first, second, third, fourth = (int(part) for part in re.findall(r"\d+", key))
        # The peers' names begin with the head size, ours with the hidden size and the heads.
        size, sequence, batch, heads = (first, second, third, fourth)
        if key.startswith("h"):
            size, sequence, batch, heads = (first // second, third, fourth, second)
        name = f"gpt/h{size * heads}-a{heads}-s{sequence}-b{batch}-t1-bf16/op/attention"
        for phase, case, where in (("forward", "forward", rows), ("forward", "forward", wgmma), ("backward", "backward_input", rows)):
            row = where.get(f"{name}/{case}")
            if row is None and where is wgmma:
                continue
            mine = None if row is None else row["flop"] / row["median_ns"] / 1e3
            flash, cudnn = (
                peer[b].get(f"{phase}_tflop_per_s_warm") if isinstance(peer.get(b), dict) else None for b in ("flash", "cudnn")
            )
            best = max((b for b in (flash, cudnn) if b), default=None)
            wanted = ""
            if size == 128 and sequence == 8192 and mine is not None:
                wanted = ", ".join(f"{goal}: {'met' if mine >= goal else 'missed'}" for goal in ATTENTION[phase])
            cells = [number(mine, 0), number(flash, 0), number(cudnn, 0), number(ratio(mine, best), 2)]
            path = f"{phase}, wgmma" if where is wgmma else phase
            out.append([f"d{size} s{sequence} b{batch} a{heads}", path, *cells, wanted])
    table("Causal attention, TFLOP/s", ["shape", "phase", "ours", "flash", "cuDNN", "ours / best", "targets"], out)


# Our case, the peer's name for it, share of copy bandwidth wanted.
STREAMING = [
    (("op/ln1/forward",), "layernorm_forward", 0.90),
    (("op/ln1/backward_input",), None, 0.75),
    (("op/ln1/backward_weight",), None, 0.75),
    # The peer's backward is both in one.
    (("op/ln1/backward_input", "op/ln1/backward_weight"), "layernorm_backward", 0.75),
    (("op/residual1/forward",), "residual_add", 0.90),
]
GELU = [(("op/gelu/forward",), "gelu_forward", 0.90), (("op/gelu/backward_input",), "gelu_backward", 0.90)]
# Case, the peer's name, its field for the rate, share wanted.
ENDS = [
    (
        "gpt/h1024-a16-s2048-b4-t1-bf16/op/cross_entropy/forward_backward",
        ("cross_entropy_forward_backward", "gb_per_s_warm_minimum_traffic"),
        0.85,
    ),
    ("gpt/h4096-a32-s2048-b4-t1-bf16/op/adamw/update", ("adamw_fused_fp32", "gb_per_s_warm"), 0.90),
]


def bandwidth(name, rate, copy, peer, field, wanted):
    share = ratio(rate, copy)
    met = NONE if share is None else f"{wanted:.0%}: {'met' if share >= wanted else 'missed'}"
    theirs = peer.get(field) if isinstance(peer, dict) else None
    return [name, number(rate, 0), number(theirs, 0), number(share, 2), met]


def drift(peers, again):
    """How far PyTorch's own figures moved between the beginning and the end."""
    out = []
    for key, peer in peers.get("layer", {}).items():
        for how in ("eager", "compiled"):
            first, last = (warm(p.get("layer", {}).get(key, {}).get(how, {}).get("forward_backward")) for p in (peers, again))
            if first and last:
                out.append([f"`{key}`", how, number(first), number(last), number(last / first, 3)])
    table("Drift: PyTorch's forward + backward, before and after ours, ms", ["layer", "how", "before", "after", "after / before"], out)


def streaming(rows, peers):
    copy = peers.get("ceilings", {}).get("copy_gb_per_s")
    widths = {4096: 32, 1024: 16, 12288: 96}
    names = []
    for width, heads in widths.items():
        peer = peers.get("kernels", {}).get(f"rows8192-h{width}", {})
        shape = f"gpt/h{width}-a{heads}-s2048-b4-t1-bf16"
        inner = f"gpt/h{width // 4}-a{width // 256}-s2048-b4-t1-bf16"
        for root, cases in ((shape, STREAMING), (inner, GELU)):
            names += [([f"{root}/{case}" for case in group], peer.get(theirs), wanted) for group, theirs, wanted in cases]
    out = []
    for group, peer, wanted in names:
        for suffix, field in (("", "gb_per_s_warm"), ("/cold", "gb_per_s_cold")):
            found = [rows.get(name + suffix) for name in group]
            if None in found:
                continue
            # Both backward parts are counted as the peer's one is: x, dy and dx once. Ours move a residual's gradient as
            # well, and x and dy twice.
            traffic = found[0]["bytes"] * (1.0 if len(found) == 1 else 0.75)
            rate = traffic / sum(row["median_ns"] for row in found)
            out.append(bandwidth(" + ".join(f"`{name + suffix}`" for name in group), rate, copy, peer, field, wanted))
    for name, (peer, field), wanted in ENDS:
        if name in rows:
            rate = rows[name]["bytes"] / rows[name]["median_ns"]
            out.append(bandwidth(f"`{name}`", rate, copy, peers.get("kernels", {}).get(peer), field, wanted))
    table("Streaming kernels, GB/s of unavoidable traffic", ["case", "ours", "PyTorch", "of copy", "target"], out)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results")
    parser.add_argument("--peers", required=True)
    parser.add_argument("--again", help="the same, measured once more afterwards")
    parser.add_argument("--wgmma", help="our results with BUBBLEBENCH_WGMMA=1")
    args = parser.parse_args()
    try:
        rows, without = ours(args.results)
    except OSError as error:
        rows, without = {}, {}
        print(f"none of our measurements: {error}", file=sys.stderr)
    try:
        peers = json.loads(Path(args.peers).read_text())
    except OSError as error:
        peers = {}
        print(f"no peers yet ({error.strerror}: {args.peers}): benches/peers/torch_gpu.py measures them")
    machine, ceilings = peers.get("machine", {}), peers.get("ceilings", {})
    best = ceilings.get("matmul_bf16_8192", {}).get("tflop_per_s_warm")
    if machine:
        print(f"{machine.get('gpu', machine.get('cpu'))}, PyTorch {machine.get('torch')}, cuDNN {machine.get('cudnn')};")
        print(f"copy {number(ceilings.get('copy_gb_per_s'), 0)} GB/s, bf16 matmul {number(best, 0)} TFLOP/s")
    wgmma = ours(args.wgmma)[0] if args.wgmma and (Path(args.wgmma) / "measurements.jsonl").exists() else {}
    layers(rows, peers)
    attention(rows, peers, wgmma)
    streaming(rows, peers)
    if args.again and Path(args.again).exists():
        drift(peers, json.loads(Path(args.again).read_text()))
    print(f"\n{len(rows)} of our cases have a time, {len(without)} have none:")
    for name, row in without.items():
        print(f"- `{name}`: {', '.join(row.get('flags', []))} {row.get('params', {}).get('reason', '')}")


if __name__ == "__main__":
    main()
