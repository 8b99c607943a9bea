"""One rank of a small GPT that two ranks train on the CPU with gloo, in one of the three frameworks; run by the tests.

``rank.py FRAMEWORK MODE STEPS FOLDER``: MODE is ``plain``, ``passive`` (a hook without a gate), ``filled`` (a side program
is waited for at ``FOLDER/gate-RANK``), or ``broken`` (rank 1 leaves in the last step, and rank 0's wait fails with the gate
open). What came of it goes to ``FOLDER/MODE-RANK.json``.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import importlib
import json
import os
import sys
import time
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, Optional, Tuple

os.environ["DS_ACCELERATOR"] = "cpu"
import torch
import torch.distributed as dist
from torch import nn

from bubblebench import hooks
from bubblebench.gate import status

RANK, RANKS = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
HIDDEN, SEQUENCE, MICRO_BATCH, MICRO_BATCHES, WORDS = 128, 64, 2, 4, 96
#: Under any schedule, on any machine, each rank has bubbles: rank 1 takes so much longer for a block's forward, and rank 0 makes
#: such a pause behind a step.
SLOWER_S, PAUSE_S = 0.002, 0.02

#: A training step, and the module whose weights it changes.
Step = Tuple[Callable[[], Any], nn.Module]


class Block(nn.Module):
    """A GPT's layer."""

    def __init__(self) -> None:
        super().__init__()
        self.before, self.between = nn.LayerNorm(HIDDEN), nn.LayerNorm(HIDDEN)
        self.qkv, self.out = nn.Linear(HIDDEN, 3 * HIDDEN), nn.Linear(HIDDEN, HIDDEN)
        self.mlp = nn.Sequential(nn.Linear(HIDDEN, 4 * HIDDEN), nn.GELU(), nn.Linear(4 * HIDDEN, HIDDEN))

    def forward(self, x: Any) -> Any:
        """Causal attention and the MLP."""
        if RANK == 1:
            time.sleep(SLOWER_S)
        batch, words, _ = x.shape
        q, k, v = (t.view(batch, words, 4, -1).transpose(1, 2) for t in self.qkv(self.before(x)).split(HIDDEN, 2))
        seen = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(seen.transpose(1, 2).reshape(batch, words, HIDDEN))
        return x + self.mlp(self.between(x))


class Stage(nn.Module):
    """Blocks of one pipeline stage, behind the embedding or before the head."""

    def __init__(self, first: bool, last: bool) -> None:
        super().__init__()
        self.embedding = nn.Embedding(WORDS, HIDDEN) if first else nn.Identity()
        self.blocks = nn.Sequential(Block(), Block())
        self.head = nn.Linear(HIDDEN, WORDS) if last else nn.Identity()

    def forward(self, x: Any) -> Any:
        """From words or activations to activations or words."""
        return self.head(self.blocks(self.embedding(x)))


def loss_of(output: Any, target: Any) -> Any:
    """Cross-entropy over all words."""
    return nn.functional.cross_entropy(output.reshape(-1, WORDS), target.reshape(-1))


def words(count: int) -> Any:
    """The same batch on every rank."""
    generator = torch.Generator().manual_seed(11)
    return torch.randint(0, WORDS, (count, SEQUENCE), generator=generator)


def in_torch(schedule: str) -> Step:
    """``torch.distributed.pipelining``."""
    from torch.distributed import pipelining

    dist.init_process_group("gloo")
    kind = {
        "1f1b": pipelining.Schedule1F1B,
        "gpipe": pipelining.ScheduleGPipe,
        "interleaved": pipelining.ScheduleInterleaved1F1B,
        "zbv": pipelining.ScheduleZBVZeroBubble,
    }[schedule]
    # The numbers of this rank's stages: chunks go round, or there and back.
    numbers = {"interleaved": [RANK, RANK + RANKS], "zbv": [RANK, 2 * RANKS - 1 - RANK]}.get(schedule, [RANK])
    count = RANKS * len(numbers)
    parts = [Stage(number == 0, number == count - 1) for number in numbers]
    stages = [pipelining.PipelineStage(p, n, count, torch.device("cpu")) for p, n in zip(parts, numbers)]
    runner: Any = kind(stages if len(stages) > 1 else stages[0], MICRO_BATCHES, loss_fn=loss_of)
    module = nn.ModuleList(parts)
    optimizer = torch.optim.AdamW(module.parameters())
    batch = words(MICRO_BATCHES * MICRO_BATCH)

    def step() -> None:
        optimizer.zero_grad()
        arguments: Tuple[Any, ...] = (batch,) if 0 in numbers else ()
        if count - 1 in numbers:
            runner.step(*arguments, target=batch.roll(-1, 1), losses=[])
        else:
            runner.step(*arguments)
        optimizer.step()

    return step, module


def in_deepspeed() -> Step:
    """DeepSpeed's pipeline engine."""
    import deepspeed
    from deepspeed.pipe import LayerSpec, PipelineModule

    # Else it compiles a collective through shared memory, for a minute, that nothing here uses.
    backend: Any = importlib.import_module("deepspeed.comm.torch")
    backend.build_shm_op = lambda: None
    deepspeed.init_distributed("gloo")
    layers = [
        LayerSpec(nn.Embedding, WORDS, HIDDEN),
        *(LayerSpec(Block) for _ in range(4)),
        LayerSpec(nn.Linear, HIDDEN, WORDS),
    ]
    net = PipelineModule(layers=layers, num_stages=RANKS, loss_fn=loss_of, partition_method="uniform")
    config = {
        "train_micro_batch_size_per_gpu": MICRO_BATCH,
        "gradient_accumulation_steps": MICRO_BATCHES,
        "optimizer": {"type": "SGD", "params": {"lr": 1e-3}},
        "steps_per_print": 10**9,
    }
    engine, _, _, _ = deepspeed.initialize(model=net, model_parameters=list(net.parameters()), config=config)

    def batches() -> Iterator[Any]:
        batch = words(MICRO_BATCH)
        while True:
            yield batch, batch.roll(-1, 1)

    data = batches()
    return lambda: engine.train_batch(data_iter=data), net


def in_megatron(overlap: bool) -> Step:
    """Megatron-core's schedules, with stand-ins for the three calls that want a GPU."""
    cuda: Any = torch.cuda
    cuda.current_device = lambda: torch.device("cpu")
    cuda.synchronize = lambda *_: None
    zeros = torch.zeros

    def zeros_here(*args: Any, **kwargs: Any) -> Any:
        return zeros(*args, **{**kwargs, **({"device": "cpu"} if kwargs.get("device") == "cuda" else {})})

    torch.zeros = zeros_here
    from megatron.core import parallel_state
    from megatron.core.enums import ModelType
    from megatron.core.model_parallel_config import ModelParallelConfig
    from megatron.core.pipeline_parallel import get_forward_backward_func

    dist.init_process_group("gloo")
    chunks = 2 if overlap else 1
    parallel_state.initialize_model_parallel(1, RANKS, virtual_pipeline_model_parallel_size=chunks if overlap else None)
    config = ModelParallelConfig(
        pipeline_model_parallel_size=RANKS,
        virtual_pipeline_model_parallel_size=chunks if overlap else None,
        pipeline_dtype=torch.float32,
        batch_p2p_comm=False,
        overlap_p2p_comm=overlap,
    )
    config.deallocate_pipeline_outputs = False
    config.hidden_size = HIDDEN
    config.fine_grained_activation_offloading = None

    class Part(nn.Module):
        """Blocks as Megatron's schedules handle them."""

        def __init__(self) -> None:
            super().__init__()
            self.blocks = nn.Sequential(Block(), Block())
            self.config, self.model_type, self.xattn, self.given = config, ModelType.encoder_or_decoder, False, None

        def set_input_tensor(self, given: Any) -> None:
            """What the stage before sent."""
            self.given = given[0] if isinstance(given, list) else given

        def forward(self, x: Any) -> Any:
            """Blocks on (sequence, batch, hidden)."""
            return self.blocks((x if self.given is None else self.given).transpose(0, 1)).transpose(0, 1).contiguous()

    parts = [Part() for _ in range(chunks)]
    module = nn.ModuleList(parts)
    optimizer = torch.optim.SGD(module.parameters(), lr=1e-3)
    generator = torch.Generator().manual_seed(11)
    batch = torch.randn(SEQUENCE, MICRO_BATCH, HIDDEN, generator=generator)

    def forward_step(_: Any, model: Any) -> Any:
        return model(batch), lambda y: (y.pow(2).mean(), {"loss": y.detach().mean()})

    def step() -> None:
        optimizer.zero_grad()
        get_forward_backward_func()(
            forward_step_func=forward_step,
            data_iterator=[None] * chunks if overlap else None,
            model=parts if overlap else parts[0],
            num_microbatches=MICRO_BATCHES,
            seq_length=SEQUENCE,
            micro_batch_size=MICRO_BATCH,
            forward_only=False,
        )
        optimizer.step()

    return step, module


def training(framework: str) -> Step:
    """The step of a framework's name."""
    torch.set_num_threads(1)
    torch.manual_seed(RANK)
    kind, _, variant = framework.partition("-")
    if kind == "torch":
        return in_torch(variant)
    return in_deepspeed() if kind == "deepspeed" else in_megatron(variant == "overlap")


def hook_of(framework: str, gate: Optional[str], settings: Dict[str, Any]) -> hooks.Hook:
    """What a user writes."""
    kind = framework.partition("-")[0]
    if kind == "torch":
        return hooks.torch_pipelining(gate=gate, **settings)
    return hooks.deepspeed(gate=gate, **settings) if kind == "deepspeed" else hooks.megatron(gate=gate, **settings)


def weights_of(module: nn.Module) -> str:
    """A hash over all bits of all weights."""
    digest = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        digest.update(name.encode() + value.detach().contiguous().numpy().tobytes())
    return digest.hexdigest()


def last_step(step: Callable[[], Any], path: Path, seen: Dict[str, Any]) -> None:
    """Rank 1 leaves without a word; rank 0 finds out in a wait."""
    if RANK == 1:
        time.sleep(0.5)
        os._exit(0)
    before = status(path)["openings"]
    try:
        step()
    except RuntimeError as error:
        seen["error"] = str(error)
    after = status(path)
    seen.update(opened=after["openings"] - before, open=after["open"])


def main() -> None:
    """Trains, and writes what came of it."""
    framework, mode, steps, folder = sys.argv[1], sys.argv[2], int(sys.argv[3]), Path(sys.argv[4])
    ctypes.CDLL(None).prctl(29, 1000, 0, 0, 0)
    step, module = training(framework)
    result: Dict[str, Any] = {}
    path = folder / f"gate-{RANK}"
    with contextlib.ExitStack() as stack:
        hook: Optional[hooks.Hook] = None
        if mode != "plain":
            gate = None if mode == "passive" else str(folder / "gate-{rank}")
            # The wait that breaks is one that is opened, whatever its length.
            settings = {"quantile": 0.0, "min_ns": 0} if mode == "broken" else {}
            hook = stack.enter_context(hook_of(framework, gate, settings))
        if mode == "filled":
            while status(path)["side_pid"] is None:
                time.sleep(0.02)
        dist.barrier()
        for _ in range(steps):
            step()
            if RANK == 0:
                time.sleep(PAUSE_S)
        if mode == "broken":
            last_step(step, path, result)
        result["weights"] = weights_of(module)
        if hook is not None:
            hook.write_bubbles(folder / f"bubbles-{mode}-{RANK}.json")
            result.update(bubbles=[vars(row) for row in hook.bubbles()], openings=[tuple(o) for o in hook.openings()])
            if mode == "filled":
                result["gate"] = status(path)
    (folder / f"{mode}-{RANK}.json").write_text(json.dumps(result), encoding="utf-8")
    # Nobody is left to take leave of.
    if mode == "broken":
        os._exit(0)
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
