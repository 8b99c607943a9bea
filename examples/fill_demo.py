#!/usr/bin/env python3
"""A GPT pipeline that trains on two processor cores, and a small model that trains in its bubbles.

    pip install ./python torch
    python examples/fill_demo.py --schedule 1f1b --pairs 60

Two ranks (gloo, one core each) train a GPT of two stages with ``torch.distributed.pipelining``. A hook, the two lines
marked below, learns where each rank waits, and opens a gate there. Beside each rank a process of its own trains a small
model behind that gate. Filled iterations are compared with empty ones, in random order, and empty ones with others as if those
were filled (A/A): what differs there is noise. Each comes twice in a row and its second is measured, so that none pays for what
the one before has left in the caches.

What is printed: the bubbles of each rank, how much of them the small model worked in, by how much the big model's
iterations became longer, with 95 % intervals, and when the small model's last operation of a bubble ended, against the
close that was expected and against the bubble's true end.
"""

from __future__ import annotations

import argparse
import bisect
import ctypes
import importlib.metadata
import json
import math
import os
import platform
import random
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence, Tuple

RANKS = 2
HIDDEN, LAYERS, HEADS, SEQUENCE, MICRO_BATCH, WORDS = 256, 2, 4, 128, 2, 512
LEARN = 12  # iterations before the first that is compared
KINDS = ("empty", "again", "filled")
WINDOW = 64  # iterations that the hook's learned lengths are of: the empty ones among them are compared with those


def arguments(words: Optional[List[str]] = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").split("\n\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument(
        "--pairs", type=int, default=60, help="triples of an empty, another empty and a filled iteration (each twice)"
    )
    parser.add_argument("--seconds", type=float, default=300.0, help="begin no other triple after so long")
    parser.add_argument("--schedule", choices=("1f1b", "gpipe"), default="1f1b")
    parser.add_argument("--micro-batches", type=int, default=4)
    parser.add_argument("--nice", type=int, default=19, help="priority of the small model's process, 19 the lowest")
    parser.add_argument(
        "--quantile",
        type=float,
        default=0.1,
        help="the hook's dial: share of past bubbles that were shorter than what it opens for",
    )
    parser.add_argument(
        "--json", metavar="FILE", help="write the numbers there too; - prints them in place of the table"
    )
    parser.add_argument("--figure", metavar="FILE", help="draw one filled iteration there, as SVG")
    parser.add_argument("--role", choices=("rank", "side"), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(words)
    if options.pairs < 1:
        parser.error("--pairs: give one or more")
    for name in ("json", "figure"):
        path = getattr(options, name)
        if path not in (None, "-") and not Path(path).resolve().parent.is_dir():
            parser.error(f"--{name} {path}: there is no such folder")
    return options


# ---------------------------------------------------------------------------------------------------------------------
# The big model: one rank.


def train_big(options: argparse.Namespace, rank: int) -> None:
    import torch
    import torch.distributed as dist
    from torch import nn
    from torch.distributed.pipelining import PipelineStage, Schedule1F1B, ScheduleGPipe

    import bubblebench.hooks

    hook = bubblebench.hooks.torch_pipelining(  # the two lines of a training script: the import and this call
        gate=str(options.folder / "gate-{rank}"), quantile=options.quantile, keep=10**6
    )

    torch.set_num_threads(1)
    torch.manual_seed(rank)
    dist.init_process_group("gloo")

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.before, self.between = nn.LayerNorm(HIDDEN), nn.LayerNorm(HIDDEN)
            self.qkv, self.out = nn.Linear(HIDDEN, 3 * HIDDEN), nn.Linear(HIDDEN, HIDDEN)
            self.mlp = nn.Sequential(nn.Linear(HIDDEN, 4 * HIDDEN), nn.GELU(), nn.Linear(4 * HIDDEN, HIDDEN))

        def forward(self, x: Any) -> Any:
            b, s, h = x.shape
            q, k, v = (t.view(b, s, HEADS, h // HEADS).transpose(1, 2) for t in self.qkv(self.before(x)).split(h, 2))
            seen = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
            x = x + self.out(seen.transpose(1, 2).reshape(b, s, h))
            return x + self.mlp(self.between(x))

    blocks = [Block() for _ in range(LAYERS)]
    model = (
        nn.Sequential(nn.Embedding(WORDS, HIDDEN), *blocks)
        if rank == 0
        else nn.Sequential(*blocks, nn.Linear(HIDDEN, WORDS))
    )
    optimizer = torch.optim.AdamW(model.parameters())

    def loss(output: Any, target: Any) -> Any:
        return nn.functional.cross_entropy(output.reshape(-1, WORDS), target.reshape(-1))

    schedule_of = {"1f1b": Schedule1F1B, "gpipe": ScheduleGPipe}[options.schedule]
    stage = PipelineStage(model, rank, RANKS, torch.device("cpu"))
    schedule = schedule_of(stage, options.micro_batches, loss_fn=loss)
    words = torch.randint(
        0, WORDS, (options.micro_batches * MICRO_BATCH, SEQUENCE), generator=torch.Generator().manual_seed(1)
    )

    def step() -> int:
        """One iteration, from all ranks' common beginning on; its length in nanoseconds."""
        dist.barrier()
        began = time.monotonic_ns()
        optimizer.zero_grad()
        if rank == 0:
            schedule.step(words)
        else:
            schedule.step(target=words.roll(-1, 1), losses=[])
        optimizer.step()
        return time.monotonic_ns() - began

    from bubblebench.gate import status

    while status(options.folder / f"gate-{rank}")["side_pid"] is None:
        time.sleep(0.05)
    hook.filling = False
    for _ in range(LEARN):
        step()
    took: Dict[str, List[int]] = {kind: [] for kind in KINDS}
    order, turn, ran = random.Random(7), list(KINDS), [len(hook.iterations())]
    which: List[str] = []
    limit = time.monotonic() + options.seconds
    for _ in range(options.pairs):
        go_on = torch.tensor([time.monotonic() < limit])
        dist.broadcast(go_on, 0)
        if not go_on.item():
            break
        order.shuffle(turn)
        for kind in turn:
            hook.filling = kind == "filled"
            step()
            took[kind].append(step())
            which += [f"before {kind}", kind]
    iterations = hook.iterations()[ran[0] :]
    result = {
        "iteration_ns": took,
        "bubbles": [vars(row) for row in hook.bubbles()],
        "iterations": {
            kind: [[i.start_ns, i.end_ns, i.waits] for i, w in zip(iterations, which) if w == kind]
            for kind in (*KINDS, "before filled")
        },
        "openings": [tuple(opening) for opening in hook.openings()],
        "gate": status(options.folder / f"gate-{rank}"),
    }
    (options.folder / f"rank-{rank}.json").write_text(json.dumps(result), encoding="utf-8")
    hook.remove()
    dist.barrier()
    dist.destroy_process_group()


# ---------------------------------------------------------------------------------------------------------------------
# The small model, in its own process.


def train_small(options: argparse.Namespace, rank: int) -> None:
    import torch
    from torch import nn

    from bubblebench.side import fill

    torch.manual_seed(rank)
    model = nn.Sequential(nn.Linear(256, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 10))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    x, y = torch.randn(32, 256), torch.randint(0, 10, (32,))

    def step() -> None:
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()

    report = fill(step, options.folder / f"gate-{rank}", model=model, nice=options.nice, trace=1 << 21)
    result = {
        **vars(report),
        "segments": [s._asdict() for s in report.segments],
        "trace": [tuple(r) for r in report.trace],
    }
    (options.folder / f"side-{rank}.json").write_text(json.dumps(result), encoding="utf-8")


# ---------------------------------------------------------------------------------------------------------------------
# What came of it.


def median_interval(values: Sequence[float]) -> Dict[str, float]:
    """The median with its 95 % interval, by the ranks of the sorted values."""
    ordered, n = sorted(values), len(values)
    half = 0.98 * math.sqrt(n)
    low, high = max(0, math.floor(n / 2 - half)), min(n - 1, math.ceil(n / 2 + half))
    return {"median": statistics.median(ordered), "low": ordered[low], "high": ordered[high]}


def quantile(values: Sequence[float], share: float) -> Optional[float]:
    """The value below which this share lies."""
    return sorted(values)[min(len(values) - 1, int(share * len(values)))] if values else None


def overrun(openings: Sequence[Sequence[int]], trace: Sequence[Sequence[int]]) -> Dict[str, Any]:
    """When the last segment of each opening ended, and how much of the openings' bubbles segments lay in."""
    opened = [opening[1] for opening in openings]
    last: Dict[int, Sequence[int]] = {}
    inside = late_starts = 0
    for segment in trace:
        start, end, busy, _, preempted = segment
        index = bisect.bisect_right(opened, start) - 1
        if index >= 0:
            last[index] = segment
            # Without the time that something else had its core.
            inside += max(0, min(end - start, openings[index][3] - start, busy))
            late_starts += not preempted and start > openings[index][2]
    # The gate lets nothing start behind the expected close: what did had lost its core between the answer and its start.
    kept = {i: s for i, s in last.items() if not s[4] and s[0] <= openings[i][2]}
    expected = [segment[1] - openings[index][2] for index, segment in kept.items()]
    true_end = [segment[1] - openings[index][3] for index, segment in kept.items()]
    # A piece in flight as a bubble ends loses its core to the big model, and ends in a later bubble.
    late = [segment[1] - openings[index][3] for index, segment in last.items()]
    return {
        "inside_ns": inside,
        "openings_worked_in": len(last),
        "lost_core": len(last) - len(kept),
        "ended_late": sum(by > 0 for by in late),
        "late_starts": late_starts,
        "expected_p50_ns": quantile(expected, 0.5),
        "expected_p99_ns": quantile(expected, 0.99),
        "true_end_p50_ns": quantile(true_end, 0.5),
        "true_end_p99_ns": quantile(true_end, 0.99),
        "true_end_with_lost_cores_p99_ns": quantile(late, 0.99),
    }


def verdict(slower: Dict[str, float], same: Dict[str, float]) -> str:
    """What the interval says beside that of empty iterations, by the rule of the suite's filled stages (docs/corun.md)."""
    if slower["low"] > max(0.0, same["high"]):
        return "slower"
    slower_width, same_width = (of["high"] - of["low"] for of in (slower, same))
    # Noise that is wide itself excuses nothing.
    most = max(1.0, same["high"]) if same_width <= 2.0 else 1.0
    return "no slowdown seen" if slower_width <= 2.0 and slower["high"] <= most else "cannot be told"


def machine() -> Dict[str, Any]:
    """What it ran on."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "cpu": names[0] if names else platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "torch": importlib.metadata.version("torch"),
        "load_1min": round(os.getloadavg()[0], 2),
    }


def evaluate(ranks: List[Dict[str, Any]], sides: List[Dict[str, Any]], options: argparse.Namespace) -> Dict[str, Any]:
    """All numbers: of the iterations, the slowest rank's length counts."""
    longest = {kind: [max(lengths) for lengths in zip(*(r["iteration_ns"][kind] for r in ranks))] for kind in KINDS}
    empty, again, filled = (longest[kind] for kind in KINDS)
    slower = median_interval([100 * (f / e - 1) for f, e in zip(filled, empty)])
    same = median_interval([100 * (a / e - 1) for a, e in zip(again, empty)])
    rows = []
    for rank, side in zip(ranks, sides):
        ended = overrun(rank["openings"], side["trace"])
        lengths = {
            kind: [sum(end - start for _, start, end in waits) for _, _, waits in rank["iterations"][kind]]
            for kind in rank["iterations"]
        }
        filled_ns = max(1, sum(lengths["filled"]) + sum(lengths["before filled"]))
        rows.append(
            {
                "bubble_ns": statistics.median(lengths["empty"]),
                "bubble_share": statistics.median(
                    b / t for b, t in zip(lengths["empty"], rank["iteration_ns"]["empty"])
                ),
                "positions": sum(row["opened"] > 0 for row in rank["bubbles"]),
                "open_percent": 100
                * sum(min(o[2], o[3]) - o[1] for o in rank["openings"])
                / filled_ns,
                "used_percent": 100 * ended["inside_ns"] / filled_ns,
                "side_steps": side["steps"] - side["warmup_steps"],
                "side_operations": side["operations"],
                "self_stops": rank["gate"]["self_stops"],
                "openings": rank["gate"]["openings"],
                **ended,
                "bubbles": [
                    {
                        **row,
                        "passive_median_ns": statistics.median(
                            waits[row["position"]][2] - waits[row["position"]][1]
                            for _, _, waits in rank["iterations"]["empty"][-WINDOW // (2 * len(KINDS)) :]
                        ),
                    }
                    for row in rank["bubbles"]
                ],
                "segments": side["segments"],
            }
        )
    return {
        "machine": machine(),
        "schedule": options.schedule,
        "micro_batches": options.micro_batches,
        "nice": options.nice,
        "quantile": options.quantile,
        "pairs": len(empty),
        "iteration_ns": statistics.median(empty),
        "slowdown_percent": slower,
        "again_percent": same,
        "verdict": verdict(slower, same),
        "ranks": rows,
    }


def table(rows: Sequence[Sequence[str]]) -> str:
    """The rows with their columns below each other, the first to the left."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ("  ".join(text.rjust(width) for text, width in zip(row[1:], widths[1:])) for row in rows)
    return "\n".join(f"  {row[0]:{widths[0]}}  {line}".rstrip() for row, line in zip(rows, lines))


def show(result: Dict[str, Any]) -> None:
    """The tables."""

    def ms(value: Optional[float]) -> str:
        return "" if value is None else f"{value / 1e6:.2f} ms"

    def us(value: Optional[float]) -> str:
        return "" if value is None else f"{value / 1e3:+.0f}"

    def change(of: Dict[str, float]) -> str:
        return f"{of['median']:+6.2f} %   [{of['low']:+.2f}, {of['high']:+.2f}]"

    print(f"{result['schedule']}, {result['micro_batches']} micro-batches, small models at nice {result['nice']}")
    print(f"iteration {ms(result['iteration_ns'])}, {result['pairs']} pairs: {result['verdict']}")
    print(f"  filled against empty        {change(result['slowdown_percent'])}")
    print(f"  empty against empty (A/A)   {change(result['again_percent'])}")

    bubbles = [["", "wait", "kind", "empty iterations", "learned", "opened for", "times"]]
    sides = [["", "bubbles", "open", "used", "steps", "operations", "self-stops"]]
    ends = [["", "p50", "p99", "p50", "p99", "openings", "lost core", "late"]]
    for number, rank in enumerate(result["ranks"]):
        for row in rank["bubbles"]:
            lengths = [ms(row["passive_median_ns"]), ms(row["median_ns"]), ms(row["expected_ns"]) or row["state"]]
            if row["passive_median_ns"] >= 100_000:
                bubbles.append([f"rank {number}", str(row["position"]), row["kind"], *lengths, str(row["opened"])])
        shares = [f"{rank[share]:.0f} %" for share in ("open_percent", "used_percent")]
        counts = [str(rank[count]) for count in ("side_steps", "side_operations", "self_stops")]
        sides.append([f"rank {number}", ms(rank["bubble_ns"]), *shares, *counts])
        expected = [us(rank[f"expected_{share}_ns"]) for share in ("p50", "p99")]
        true_end = [us(rank[f"true_end_{share}_ns"]) for share in ("p50", "p99")]
        counts = [str(rank[count]) for count in ("openings_worked_in", "lost_core", "ended_late")]
        ends.append([f"rank {number}", *expected, *true_end, *counts])
    print(f"\nbubbles of 0.1 ms and more (medians)\n{table(bubbles)}")
    print(f"\nan iteration's bubbles; of them: gate open, small model computing\n{table(sides)}")
    print("\nend of the small model's last piece in each opening, in µs after the expected close and")
    print("after the bubble's true end, where it kept its core; openings in all, those in which it")
    print("lost its core, and those in which it ended behind the bubble: the big model had the core")
    print(table(ends))


def figure(ranks: Sequence[Dict[str, Any]], sides: Sequence[Dict[str, Any]]) -> str:
    """The filled iteration of median length as an SVG: what each rank and the small model beside it did, and when."""
    spans = [
        (min(start for start, _, _ in of), max(end for _, end, _ in of))
        for of in zip(*(rank["iterations"]["filled"] for rank in ranks))
    ]
    chosen = sorted(range(len(spans)), key=lambda i: spans[i][1] - spans[i][0])[len(spans) // 2]
    begin, end = spans[chosen]
    left, top, width, row, gap = 112, 40, 540, 22, 4
    scale = width / (end - begin)

    def bar(start: float, stop: float, y: float, kind: str, height: float = row) -> str:
        x, size = left + (start - begin) * scale, max(0.0, (stop - start) * scale)
        return f'<rect class="{kind}" x="{x:.2f}" y="{y:.1f}" width="{size:.2f}" height="{height:.1f}"/>'

    parts, y = [], float(top)
    for number, (rank, side) in enumerate(zip(ranks, sides)):
        start, stop, waits = rank["iterations"]["filled"][chosen]
        parts.append(f'<text x="8" y="{y + 15:.0f}">rank {number}: GPT</text>')
        at = start
        for _, waiting, ready in waits:
            parts.append(bar(at, waiting, y, "big"))
            at = ready
        parts.append(bar(at, stop, y, "big"))
        for _, opened, expected, true_end in rank["openings"]:
            if begin <= opened < end:
                parts.append(bar(opened, min(expected, true_end), y + row + 1, "open", 3))
        y += row + gap + 2
        parts.append(f'<text x="8" y="{y + 15:.0f}">small model {number}</text>')
        parts += [bar(ran[0], ran[1], y, "small") for ran in side["trace"] if begin <= ran[0] < end]
        y += row + 5 * gap
    milliseconds = (end - begin) / 1e6
    tick = next(t for t in (5, 10, 20, 50, 100, 200, 500, 1000, 10**6) if milliseconds / t <= 12)
    grid = []
    for value in range(0, int(milliseconds) + 1, tick):
        x = left + value * 1e6 * scale
        grid.append(f'<path d="M{x:.1f} {top - 4}V{y - 8:.0f}"/>')
        grid.append(f'<text class="tick" x="{x:.1f}" y="{y + 6:.0f}">{value}</text>')
    parts.append(f'<text class="tick" x="{left + width / 2:.0f}" y="{y + 22:.0f}">milliseconds</text>')
    legend = (("big", "computing"), ("open", "gate open"), ("small", "small model training"))
    for place, (kind, text) in enumerate(legend):
        x = left + 130 * place
        parts.append(f'<rect class="{kind}" x="{x}" y="12" width="14" height="10"/>')
        parts.append(f'<text x="{x + 20}" y="21">{text}</text>')
    title = "One iteration of a GPT pipeline with a small model training in its bubbles"
    style = (
        "text{font:12px system-ui,sans-serif;fill:#1f2933}.tick{text-anchor:middle}path{stroke:#d5dbe1}"
        ".big{fill:#3b6ea5}.open{fill:#7a9c4f}.small{fill:#d9822b}"
    )
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {left + width + 20} {y + 30:.0f}" role="img">',
            f"<title>{title}</title><style>{style}</style>",
            '<rect width="100%" height="100%" style="fill:#fff"/>',
            *grid,
            *parts,
            "</svg>",
        ]
    )


def run(options: argparse.Namespace) -> Dict[str, Any]:
    """Starts two ranks and two sides, and waits for them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=shared if shared.is_dir() else None) as folder:
        running: List[Tuple[str, "subprocess.Popen[bytes]"]] = []
        try:
            for rank in range(RANKS):
                for role in ("rank", "side"):
                    variables = {
                        **os.environ,
                        "RANK": str(rank),
                        "WORLD_SIZE": str(RANKS),
                        "MASTER_ADDR": "127.0.0.1",
                        "MASTER_PORT": port,
                    }
                    variables.update(GLOO_SOCKET_IFNAME="lo", OMP_NUM_THREADS="1", CUDA_VISIBLE_DEVICES="")
                    command = [sys.executable, __file__, *sys.argv[1:], "--role", role, "--folder", folder]
                    running.append((f"{role} {rank}", subprocess.Popen(command, env=variables)))
            limit = time.monotonic() + options.seconds + 300
            while any(process.poll() is None for _, process in running):
                for name, process in running:
                    if process.poll():
                        sys.exit(f"fill_demo: {name} ended with {process.returncode}")
                if time.monotonic() > limit:
                    sys.exit(f"fill_demo: it is not over {options.seconds + 300:.0f} s after it began")
                time.sleep(0.1)
        finally:
            for _, process in running:
                if process.poll() is None:
                    process.kill()
                    process.wait()
        read = [
            [json.loads((Path(folder) / f"{role}-{rank}.json").read_text()) for rank in range(RANKS)]
            for role in ("rank", "side")
        ]
        result = evaluate(read[0], read[1], options)
        if options.figure:
            Path(options.figure).write_text(figure(read[0], read[1]) + "\n", encoding="utf-8")
        return result


def main() -> None:
    options = arguments()
    if options.role is not None:
        rank = int(os.environ["RANK"])
        # A stage's device is its core, for the big model and for the small one beside it.
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[rank % len(cores)]})
        ctypes.CDLL(None).prctl(29, 1000, 0, 0, 0)  # sleepers wake within 1 µs of their time, not 50
        (train_big if options.role == "rank" else train_small)(options, rank)
        return
    # So that what is running is ended, and its folder removed.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("fill_demo: ended by SIGTERM"))
    result = run(options)
    if options.json == "-":
        print(json.dumps(result, indent=1))
    else:
        show(result)
        if options.json:
            Path(options.json).write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
