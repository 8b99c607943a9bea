#!/usr/bin/env python3
"""What a user would pick instead, measured on this machine: PyTorch's GPT layer, its attention back ends, its small
kernels, and the machine's own ceilings and facts. Writes one JSON file, section by section: what finished is kept.

    python3 benches/peers/torch_gpu.py --out peers.json                 # a GPU, within --budget seconds
    python3 benches/peers/torch_gpu.py --device cpu --tiny --out x.json # tries the script where there is no GPU

Times are medians in milliseconds. "cold" flushes the L2 before every call and times the call alone with events; "warm" runs calls
back to back and divides. Inputs are random. Shapes are written h a s b: hidden, heads, sequence, micro-batch.
"""

import argparse, json, os, platform, shutil, statistics, subprocess, sys, time

import torch
import torch.nn.functional as F

ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
ap.add_argument("--out", default="peers.json")
ap.add_argument("--device", default="cuda")
ap.add_argument(
    "--budget", type=float, default=420, help="seconds; sections that would start later are skipped and named"
)
ap.add_argument("--only", default="", help="comma-separated section names")
ap.add_argument("--tiny", action="store_true")
args = ap.parse_args()
DEV, GPU, T0 = torch.device(args.device), args.device.startswith("cuda"), time.time()
torch.manual_seed(1)
result = {"schema": "bubblebench.peers/1", "skipped": [], "failed": {}}


def save():
    tmp = args.out + ".part"
    with open(tmp, "w") as f:
        json.dump(result, f, indent=1)
    os.replace(tmp, args.out)


def sync():
    if GPU:
        torch.cuda.synchronize()


_flush = None


def flush_l2():
    """Writes a buffer of twice the L2 (or 64 MB on a CPU)."""
    global _flush
    if _flush is None:
        size = 2 * torch.cuda.get_device_properties(DEV).L2_cache_size if GPU else 64 << 20
        _flush = torch.empty(max(size, 64 << 20), dtype=torch.int8, device=DEV)
    _flush.zero_()


def once(fn):
    if not GPU:
        t = time.perf_counter()
        fn()
        return (time.perf_counter() - t) * 1e3
    a, b = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    a.record()
    fn()
    b.record()
    b.synchronize()
    return a.elapsed_time(b)


def measure(fn, seconds=0.35, least=7, most=300):
    """{cold_ms, warm_ms, cold_p10, cold_p90, n}: warmed up first; sample counts chosen for about `seconds` each."""
    for _ in range(3):
        fn()
    sync()
    guess = max(once(fn), 1e-3)
    n = max(least, min(most, int(seconds * 1e3 / guess)))
    for _ in range(min(n, 10)):
        fn()
    cold = []
    for _ in range(n):
        flush_l2()
        if GPU:
            torch.cuda._sleep(200_000)  # hides the launch latency: the GPU is busy while the host enqueues
        cold.append(once(fn))
    sync()
    warm = []
    for _ in range(3):
        if GPU:
            torch.cuda._sleep(200_000)
        warm.append(once(lambda: [fn() for _ in range(n)]) / n)
    cold.sort()
    return {
        "cold_ms": statistics.median(cold),
        "warm_ms": statistics.median(warm),
        "cold_p10": cold[len(cold) // 10],
        "cold_p90": cold[(9 * len(cold)) // 10],
        "n": n,
    }


def machine():
    r = {
        "torch": torch.__version__,
        "python": platform.python_version(),
        "cpu": platform.processor() or platform.machine(),
        "cuda": torch.version.cuda,
    }
    if GPU:
        p = torch.cuda.get_device_properties(DEV)
        r.update(
            gpu=p.name,
            sms=p.multi_processor_count,
            l2_bytes=p.L2_cache_size,
            memory_bytes=p.total_memory,
            capability=f"{p.major}.{p.minor}",
            cudnn=torch.backends.cudnn.version(),
            nccl=".".join(map(str, torch.cuda.nccl.version())),
        )
        q = "driver_version,clocks.sm,clocks.max.sm,clocks.mem,power.limit,temperature.gpu,clocks_event_reasons.active"
        try:
            r["nvidia_smi"] = dict(
                zip(
                    q.split(","),
                    subprocess.check_output(["nvidia-smi", f"--query-gpu={q}", "--format=csv,noheader"], text=True)
                    .strip()
                    .split(", "),
                )
            )
        except Exception as e:
            r["nvidia_smi"] = str(e)[:100]
    return r


def ceilings():
    n = (1 << 20) if args.tiny else (2 << 30)
    x = torch.randint(-128, 127, (n,), dtype=torch.int8, device=DEV)
    y = torch.empty_like(x)
    c = measure(lambda: y.copy_(x))
    out = {"copy_gb_per_s": 2 * n / c["warm_ms"] / 1e6, "copy": c}
    del x, y
    for d in ((256,) if args.tiny else (4096, 8192)):
        a, b = (torch.randn(d, d, device=DEV, dtype=torch.bfloat16) for _ in range(2))
        m = measure(lambda: a @ b)
        out[f"matmul_bf16_{d}"] = {**m, "tflop_per_s_warm": 2 * d**3 / m["warm_ms"] / 1e9}
    return out


class Layer(torch.nn.Module):
    """Pre-norm GPT block with biases, causal attention, tanh GELU, no dropout."""

    def __init__(self, h, a):
        super().__init__()
        self.a = a
        self.n1, self.n2 = torch.nn.LayerNorm(h), torch.nn.LayerNorm(h)
        self.qkv, self.o = torch.nn.Linear(h, 3 * h), torch.nn.Linear(h, h)
        self.f1, self.f2 = torch.nn.Linear(h, 4 * h), torch.nn.Linear(4 * h, h)

    def forward(self, x):
        b, s, h = x.shape
        q, k, v = self.qkv(self.n1(x)).view(b, s, 3, self.a, h // self.a).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(b, s, h)
        x = x + self.o(y)
        return x + self.f2(F.gelu(self.f1(self.n2(x)), approximate="tanh"))


SHAPES = (
    [(64, 4, 32, 2)]
    if args.tiny
    else [
        (4096, 32, 2048, 4),
        (2304, 24, 1024, 6),
        (1024, 16, 2048, 4),
        (12288, 96, 2048, 1),
        (2048, 16, 2048, 4),
        (6144, 48, 2048, 2),
        (8192, 64, 2048, 1),
    ]
)


def layer():
    out = {}
    for h, a, s, b in SHAPES:
        flop = b * s * (24 * h * h + 2 * s * h)  # causal: half of 4·s·h
        row = {"forward_flop": flop}
        for name in ("eager", "compiled"):
            if time.time() - T0 > args.budget:
                result["skipped"].append(f"layer {h} {name}")
                continue
            torch._dynamo.reset()
            net = Layer(h, a).to(DEV, torch.bfloat16)
            f = net if name == "eager" else torch.compile(net)
            x = torch.randn(b, s, h, device=DEV, dtype=torch.bfloat16, requires_grad=True)
            g = torch.randn_like(x)

            def both():
                for p in net.parameters():
                    p.grad = None
                x.grad = None
                f(x).backward(g)

            def forward():
                with torch.enable_grad():
                    f(x)

            fw, fb = measure(forward), measure(both)
            row[name] = {
                "forward": fw,
                "forward_backward": fb,
                "tflop_per_s_forward_backward_warm": 3 * flop / fb["warm_ms"] / 1e9,
            }
            if GPU:
                try:  # whole step as one graph: no launch gaps at all
                    st = torch.cuda.Stream()
                    st.wait_stream(torch.cuda.current_stream())
                    with torch.cuda.stream(st):
                        for _ in range(3):
                            both()
                    torch.cuda.current_stream().wait_stream(st)
                    gr = torch.cuda.CUDAGraph()
                    with torch.cuda.graph(gr):
                        both()
                    row[name]["forward_backward_graph"] = measure(gr.replay)
                except Exception as e:
                    row[name]["forward_backward_graph"] = str(e)[:120]
            del net, f, x, g
        out[f"h{h}-a{a}-s{s}-b{b}"] = row
        result["layer"] = out
        save()
    return out


def attention():
    from torch.nn.attention import SDPBackend, sdpa_kernel

    backends = (
        {
            "cudnn": SDPBackend.CUDNN_ATTENTION,
            "flash": SDPBackend.FLASH_ATTENTION,
            "efficient": SDPBackend.EFFICIENT_ATTENTION,
        }
        if GPU
        else {"math": SDPBackend.MATH}
    )
    out = {}
    for d in ((16,) if args.tiny else (128, 64)):
        for s in ((32,) if args.tiny else (8192, 2048, 1024, 4096, 512, 16384)):
            b, heads = max(1, (64 if args.tiny else 16384) // s), max(1, (64 if args.tiny else 2048) // d)
            q, k, v = (
                torch.randn(b, heads, s, d, device=DEV, dtype=torch.bfloat16, requires_grad=True) for _ in range(3)
            )
            g = torch.randn_like(q)
            flop = 4 * b * heads * s * s * d / 2
            row = {"default_choice": int(torch._fused_sdp_choice(q, k, v, is_causal=True))}
            for name, be in backends.items():
                if time.time() - T0 > args.budget:
                    result["skipped"].append(f"attention d{d} s{s} {name}")
                    continue
                try:
                    with sdpa_kernel(be):
                        fw = measure(lambda: F.scaled_dot_product_attention(q, k, v, is_causal=True), 0.15)
                        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
                        bw = measure(lambda: torch.autograd.grad(y, (q, k, v), g, retain_graph=True), 0.15)
                    row[name] = {
                        "forward": fw,
                        "backward": bw,
                        "forward_tflop_per_s_warm": flop / fw["warm_ms"] / 1e9,
                        "backward_tflop_per_s_warm": 2.5 * flop / bw["warm_ms"] / 1e9,
                    }
                except Exception as e:
                    row[name] = str(e).split("\n")[0][:120]
            out[f"d{d}-s{s}-b{b}-heads{heads}-causal"] = row
            result["attention"] = out
            save()
    return out


def kernels():
    out, bf = {}, torch.bfloat16
    for rows, h in ([(64, 64)] if args.tiny else [(8192, 4096), (8192, 1024), (8192, 12288)]):
        x, dy = torch.randn(rows, h, device=DEV, dtype=bf, requires_grad=True), torch.randn(
            rows, h, device=DEV, dtype=bf
        )
        w, b = torch.randn(h, device=DEV, dtype=bf, requires_grad=True), torch.randn(
            h, device=DEV, dtype=bf, requires_grad=True
        )
        by = rows * h * 2

        def rate(m, passes):
            return {
                **m,
                "gb_per_s_warm": passes * by / m["warm_ms"] / 1e6,
                "gb_per_s_cold": passes * by / m["cold_ms"] / 1e6,
            }

        ln = lambda: F.layer_norm(x, (h,), w, b)
        y = ln()
        ge = lambda: F.gelu(x, approximate="tanh")
        z = ge()
        r = {
            "layernorm_forward": rate(measure(ln), 2),
            "layernorm_backward": rate(measure(lambda: torch.autograd.grad(y, (x, w, b), dy, retain_graph=True)), 3),
            "gelu_forward": rate(measure(ge), 2),
            "gelu_backward": rate(measure(lambda: torch.autograd.grad(z, x, dy, retain_graph=True)), 3),
            "residual_add": rate(measure(lambda: x.detach() + dy), 3),
        }
        try:
            cl = torch.compile(ln)
            yc = cl()
            r["layernorm_forward_compiled"] = rate(measure(cl), 2)
            r["layernorm_backward_compiled"] = rate(
                measure(lambda: torch.autograd.grad(yc, (x, w, b), dy, retain_graph=True)), 3
            )
        except Exception as e:
            r["layernorm_compiled"] = str(e)[:100]
        out[f"rows{rows}-h{h}"] = r
        result["kernels"] = out
        save()
    n, v = (64, 512) if args.tiny else (8192, 51200)
    logits, t = torch.randn(n, v, device=DEV, dtype=bf, requires_grad=True), torch.randint(0, v, (n,), device=DEV)
    ce = lambda: F.cross_entropy(logits.float(), t)
    m = measure(lambda: torch.autograd.grad(ce(), logits))
    out["cross_entropy_forward_backward"] = {**m, "gb_per_s_warm_minimum_traffic": 3 * n * v * 2 / m["warm_ms"] / 1e6}
    p = torch.nn.Parameter(torch.randn((1 << 14) if args.tiny else (1 << 28), device=DEV))
    p.grad = torch.randn_like(p)
    opt = torch.optim.AdamW([p], fused=True)
    opt.step()
    m = measure(opt.step)
    out["adamw_fused_fp32"] = {**m, "gb_per_s_warm": 28 * p.numel() / m["warm_ms"] / 1e6}
    return out


def facts():
    """Answers that decide designs: timer tick, stream memory operations, SM partitions, MPS, GPM, priorities."""
    r = {
        "mps_control": shutil.which("nvidia-cuda-mps-control"),
        "ncu": shutil.which("ncu"),
        "nsys": shutil.which("nsys"),
        "compute_sanitizer": shutil.which("compute-sanitizer"),
    }
    if not GPU:
        return r
    r["priority_range"] = (
        list(torch.cuda.Stream.priority_range()) if hasattr(torch.cuda.Stream, "priority_range") else None
    )
    try:
        import cupy

        k = cupy.RawKernel(
            r"""extern "C" __global__ void tick(unsigned long long* o, int n) { for (int i = 0; i < n; i++) { unsigned long long t; asm volatile("mov.u64 %0, %globaltimer;" : "=l"(t)); o[i] = t; } }""",
            "tick",
        )
        o = cupy.zeros(200000, dtype=cupy.uint64)
        k((1,), (1,), (o, 200000))
        d = cupy.diff(o).get()
        d = d[d > 0]
        r["globaltimer_tick_ns"] = {"min": int(d.min()), "median": float(statistics.median(d.tolist()))}
    except Exception as e:
        r["globaltimer_tick_ns"] = str(e)[:150]
    try:
        from cuda.bindings import driver as cu

        def ok(t):
            if int(t[0]) != 0:
                raise RuntimeError(str(t[0]))
            return t[1] if len(t) == 2 else t[1:]

        torch.zeros(1, device=DEV)
        dev = ok(cu.cuDeviceGet(0))
        A = cu.CUdevice_attribute
        for name in (
            "CU_DEVICE_ATTRIBUTE_CAN_USE_STREAM_WAIT_VALUE_NOR",
            "CU_DEVICE_ATTRIBUTE_CAN_USE_64_BIT_STREAM_MEM_OPS",
            "CU_DEVICE_ATTRIBUTE_MAX_PERSISTING_L2_CACHE_SIZE",
            "CU_DEVICE_ATTRIBUTE_CLOCK_RATE",
            "CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN",
        ):
            try:
                r[name] = ok(cu.cuDeviceGetAttribute(getattr(A, name), dev))
            except Exception as e:
                r[name] = str(e)[:80]
        res = ok(cu.cuDeviceGetDevResource(dev, cu.CUdevResourceType.CU_DEV_RESOURCE_TYPE_SM))
        r["green_sm_total"] = res.sm.smCount
        r["green_splits"] = {}
        for want in (1, 8, 16, 32, 64, 100):
            try:
                got, n, rest = cu.cuDevSmResourceSplitByCount(1, res, 0, want)[1:]
                r["green_splits"][want] = {"got": got[0].sm.smCount, "groups": int(n), "rest": rest.sm.smCount}
            except Exception as e:
                r["green_splits"][want] = str(e)[:80]
    except Exception as e:
        r["driver_bindings"] = str(e)[:150]
    try:
        import pynvml as nv

        nv.nvmlInit()
        hd = nv.nvmlDeviceGetHandleByIndex(0)
        r["gpm_supported"] = int(nv.nvmlGpmQueryDeviceSupport(hd).isSupportedDevice)
    except Exception as e:
        r["gpm_supported"] = str(e)[:100]
    return r


def streams():
    """How PyTorch users share the SMs today: a layer beside a small model on plain and on low-priority streams, alone and together interleaved."""
    h, a, s, b = (64, 4, 32, 2) if args.tiny else (4096, 32, 2048, 4)
    if not GPU:
        return {"note": "GPU only"}
    net = Layer(h, a).to(DEV, torch.bfloat16)
    x = torch.randn(b, s, h, device=DEV, dtype=torch.bfloat16)
    small = Layer(512, 8).to(DEV, torch.bfloat16)
    xs = torch.randn(2, 512, 512, device=DEV, dtype=torch.bfloat16, requires_grad=True)

    def step():
        for p in small.parameters():
            p.grad = None
        small(xs).sum().backward()

    out = {}
    for mode, pr in (("plain", 0), ("low_priority_side", 0)):
        side = torch.cuda.Stream(priority=0)
        main = torch.cuda.Stream(priority=-1 if mode != "plain" else 0)
        alone, both, done = [], [], []
        with torch.no_grad(), torch.cuda.stream(main):
            for _ in range(5):
                net(x)
        sync()
        for i in range(40):
            e = [torch.cuda.Event(enable_timing=True) for _ in range(4)]
            with torch.cuda.stream(main), torch.no_grad():
                torch.cuda._sleep(2_000_000)
                e[0].record()
                net(x)
                e[1].record()
            sync()
            alone.append(e[0].elapsed_time(e[1]))
            gate = torch.cuda.Event()
            with torch.cuda.stream(main):
                torch.cuda._sleep(40_000_000)
                gate.record()
            with torch.cuda.stream(side):
                side.wait_event(gate)
                e[2].record()
                for _ in range(12):
                    step()
                e[3].record()
            with torch.cuda.stream(main), torch.no_grad():
                e[0].record()
                net(x)
                e[1].record()
            sync()
            both.append(e[0].elapsed_time(e[1]))
            done.append(e[2].elapsed_time(e[3]))
        out[mode] = {
            "main_alone_ms": statistics.median(alone),
            "main_together_ms": statistics.median(both),
            "slowdown": statistics.median(both) / statistics.median(alone),
            "side_span_ms": statistics.median(done),
        }
    return out


SECTIONS = {
    "machine": machine,
    "facts": facts,
    "ceilings": ceilings,
    "kernels": kernels,
    "attention": attention,
    "layer": layer,
    "streams": streams,
}
chosen = [s for s in args.only.split(",") if s] or list(SECTIONS)
for name in chosen:
    if time.time() - T0 > args.budget:
        result["skipped"].append(name)
        continue
    began = time.time()
    try:
        result[name] = SECTIONS[name]()
    except Exception as e:
        result["failed"][name] = f"{type(e).__name__}: {e}"[:300]
    result.setdefault("seconds", {})[name] = round(time.time() - began, 1)
    save()
    print(
        f"{name}: {result['seconds'][name]} s"
        + (f"  FAILED {result['failed'][name]}" if name in result["failed"] else ""),
        flush=True,
    )
for k, row in result.get("layer", {}).items():
    for how in ("eager", "compiled"):
        if how in row:
            print(
                f"layer {k} {how}: forward {row[how]['forward']['warm_ms']:.3f} ms, forward+backward {row[how]['forward_backward']['warm_ms']:.3f} ms, {row[how]['tflop_per_s_forward_backward_warm']:.0f} TFLOP/s"
            )
print("wrote", args.out)
