#!/usr/bin/env python3
"""One GPT layer in JAX and in bubblebench on the same CPU, side by side.

The same layer on both sides: x -> layernorm -> qkv -> causal attention -> projection -> +x -> layernorm -> 4h GELU
(tanh) -> h -> +, f32, with biases; gradients with respect to the input and to every weight. The two take turns, round by
round, so that both see the same machine; the ratio is taken within each round.

    python3 -m venv ~/jax && ~/jax/bin/pip install "jax[cpu]"
    cargo build --release
    ~/jax/bin/python benches/peers/jax_layer.py target/release/bubblebench h1024-a16-s512-b1 h512-a8-s256-b1

Shapes are those of `bubblebench measure gpt-layer --preset full` (hidden, heads, sequence, micro-batch). Prints a
Markdown table; with --fail-above R exits 1 where forward_backward takes more than R times JAX's time.
"""

import argparse
import json
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import jax
import jax.numpy as jnp

PHASES = ("forward", "forward_backward")
# JAX offers two ways to write the attention; the faster one on this machine is compared.
ATTENTIONS = ("explicit", "dot_product_attention")


class Shape:
    def __init__(self, text):
        match = re.fullmatch(r"h(\d+)-a(\d+)-s(\d+)-b(\d+)", text)
        if not match:
            raise argparse.ArgumentTypeError(f"`{text}` is not a shape; write it like h1024-a16-s512-b1")
        self.text = text
        self.hidden, self.heads, self.sequence, self.batch = map(int, match.groups())
        if self.hidden % self.heads:
            raise argparse.ArgumentTypeError(f"`{text}`: hidden is not divisible by heads")

    def case(self, phase):
        return f"gpt/{self.text}-t1-f32/{phase}"

    def flop(self, phase):
        """Products and the lower triangle of the attention; backward counts its five attention products."""
        h, rows = self.hidden, self.batch * self.sequence
        products = 24 * rows * h * h
        triangle = self.batch * self.sequence * (self.sequence + 1) * h
        return products + 2 * triangle if phase == "forward" else 3 * products + 7 * triangle


def parameters(shape, key):
    h = shape.hidden
    sizes = {
        "gamma1": (h,), "beta1": (h,), "qkv": (h, 3 * h), "qkv_bias": (3 * h,),
        "projection": (h, h), "projection_bias": (h,), "gamma2": (h,), "beta2": (h,),
        "fc1": (h, 4 * h), "fc1_bias": (4 * h,), "fc2": (4 * h, h), "fc2_bias": (h,),
    }
    keys = jax.random.split(key, len(sizes))
    return {name: 0.02 * jax.random.normal(k, size) for k, (name, size) in zip(keys, sizes.items())}


def layernorm(x, gamma, beta):
    mean = x.mean(-1, keepdims=True)
    variance = ((x - mean) ** 2).mean(-1, keepdims=True)
    return (x - mean) * jax.lax.rsqrt(variance + 1e-5) * gamma + beta


def attention(kind, q, k, v):
    """q, k, v: batch, sequence, heads, head size."""
    if kind == "dot_product_attention":
        return jax.nn.dot_product_attention(q, k, v, is_causal=True)
    sequence = q.shape[1]
    scores = jnp.einsum("bqhd,bkhd->bhqk", q, k) / q.shape[-1] ** 0.5
    visible = jnp.tril(jnp.ones((sequence, sequence), bool))
    weights = jax.nn.softmax(jnp.where(visible, scores, -jnp.inf), axis=-1)
    return jnp.einsum("bhqk,bkhd->bqhd", weights, v)


def layer(shape, kind):
    split = (shape.batch, shape.sequence, shape.heads, shape.hidden // shape.heads)

    def forward(p, x):
        normal = layernorm(x, p["gamma1"], p["beta1"])
        q, k, v = (part.reshape(split) for part in jnp.split(normal @ p["qkv"] + p["qkv_bias"], 3, axis=-1))
        attended = attention(kind, q, k, v).reshape(x.shape)
        x = x + attended @ p["projection"] + p["projection_bias"]
        normal = layernorm(x, p["gamma2"], p["beta2"])
        inner = jax.nn.gelu(normal @ p["fc1"] + p["fc1_bias"], approximate=True)
        return x + inner @ p["fc2"] + p["fc2_bias"]

    def forward_backward(p, x, dy):
        y, gradient = jax.vjp(forward, p, x)
        return y, gradient(dy)

    return {"forward": jax.jit(forward), "forward_backward": jax.jit(forward_backward)}


class Jax:
    """One shape, compiled and warm."""

    def __init__(self, shape):
        keys = jax.random.split(jax.random.key(0), 3)
        size = (shape.batch, shape.sequence, shape.hidden)
        p, x, dy = parameters(shape, keys[0]), jax.random.normal(keys[1], size), jax.random.normal(keys[2], size)
        arguments = {"forward": (p, x), "forward_backward": (p, x, dy)}
        self.calls = {}
        self.kind = {}
        for phase in PHASES:
            calls = {kind: (layer(shape, kind)[phase], arguments[phase]) for kind in ATTENTIONS}
            for call, given in calls.values():
                jax.block_until_ready(call(*given))
            times = {kind: self.time(call, given, 0.5) for kind, (call, given) in calls.items()}
            self.kind[phase] = min(times, key=times.get)
            self.calls[phase] = calls[self.kind[phase]]

    @staticmethod
    def time(call, given, seconds):
        """Median nanoseconds of one call, over at least `seconds` and 10 calls."""
        samples, end = [], time.perf_counter() + seconds
        while len(samples) < 10 or time.perf_counter() < end:
            start = time.perf_counter_ns()
            jax.block_until_ready(call(*given))
            samples.append(time.perf_counter_ns() - start)
        return statistics.median(samples)

    def round(self):
        return {phase: self.time(*self.calls[phase], 1.0) for phase in PHASES}


def bubblebench_round(binary, shape):
    """Median nanoseconds per phase from one fresh run of the layer's cases."""
    with tempfile.TemporaryDirectory() as folder:
        # The text matches `…/forward` and `…/forward_backward`.
        command = [binary, "measure", "gpt-layer", "--device", "host", "--preset", "full", "--results", folder]
        done = subprocess.run([*command, shape.case("forward")], capture_output=True, text=True)
        found = {}
        measurements = Path(folder) / "measurements.jsonl"
        for line in measurements.read_text().splitlines() if measurements.exists() else []:
            record = json.loads(line)
            if record.get("median_ns"):
                found[record["id"]] = record["median_ns"]
    missing = [shape.case(phase) for phase in PHASES if shape.case(phase) not in found]
    if missing:
        said = done.stderr.strip().splitlines()[-1:]
        sys.exit(f"bubblebench gave no time for {missing[0]}: {''.join(said)}\nShapes are those of the full preset.")
    return {phase: found[shape.case(phase)] for phase in PHASES}


def compare(binary, shape, rounds):
    """Per phase: lists of (jax, bubblebench) nanoseconds, one pair a round; who goes first alternates."""
    peer = Jax(shape)
    pairs = {phase: [] for phase in PHASES}
    for index in range(rounds):
        if index % 2:
            ours, theirs = bubblebench_round(binary, shape), peer.round()
        else:
            theirs, ours = peer.round(), bubblebench_round(binary, shape)
        for phase in PHASES:
            pairs[phase].append((theirs[phase], ours[phase]))
    return pairs, peer.kind


def row(shape, phase, pairs, kind):
    theirs, ours = (statistics.median(side) for side in zip(*pairs))
    ratios = sorted(mine / other for other, mine in pairs)
    ratio = statistics.median(ratios)
    rate = lambda ns: shape.flop(phase) / ns
    text = (
        f"| {shape.text} | {phase} | {theirs / 1e6:.2f} | {rate(theirs):.0f} | {ours / 1e6:.2f} | {rate(ours):.0f} "
        f"| {ratio:.2f} ({ratios[0]:.2f}–{ratios[-1]:.2f}) | {kind} |"
    )
    return text, ratio


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binary", help="path of the bubblebench program (release build)")
    parser.add_argument("shapes", nargs="*", type=Shape, default=[Shape("h1024-a16-s512-b1")])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--fail-above", type=float, metavar="R")
    args = parser.parse_args()

    print(f"JAX {jax.__version__}, {jax.devices()[0].platform}; {args.rounds} rounds; ratio = bubblebench / JAX\n")
    print("| shape | phase | JAX ms | GFLOP/s | bubblebench ms | GFLOP/s | ratio (range) | JAX attention |")
    print("|---|---|--:|--:|--:|--:|--:|---|")
    slow = False
    for shape in args.shapes:
        pairs, kinds = compare(args.binary, shape, args.rounds)
        for phase in PHASES:
            text, ratio = row(shape, phase, pairs[phase], kinds[phase])
            print(text, flush=True)
            slow |= phase == "forward_backward" and args.fail_above is not None and ratio > args.fail_above
    sys.exit(1 if slow else 0)


if __name__ == "__main__":
    main()
