"""Finds the bubbles of a pipeline-parallel training run, learns how long they are, and opens a gate in them.

Two lines in the training script, before the first step::

    import bubblebench.hooks
    hook = bubblebench.hooks.torch_pipelining(gate="/dev/shm/rank-{rank}")   # or deepspeed(…), megatron(…)

Each rank makes its own gate; ``{rank}`` stands for its number. :func:`bubblebench.side.fill` trains a small model behind
it, in a process of its own. Without ``gate`` the hook records and opens nothing.

A bubble is the time that the rank waits for a peer. It is known again by its position within the iteration: the gate opens
for the ``quantile`` of that position's past lengths, after ``learn`` iterations that only learn. Where the length jumps
(behind a checkpoint, in an evaluation, with other shapes) it stays closed until the new length is known. The hook says
:class:`HookError`, in one line, where a framework no longer has the place it would wait at.

On a GPU NCCL's waits only order a stream. There events of the stream tell their lengths, and the stream itself opens and closes
the gate, by writes in its order; a driver without these is a :class:`HookError` where a gate is asked for.
"""

from __future__ import annotations

from .errors import HookError
from .hook import Gate, GateEnd, Hook, Opening, refuse_second
from .learning import Bubble, Settings
from .record import Iteration, merge_bubbles

__all__ = [
    "Bubble",
    "Gate",
    "GateEnd",
    "Hook",
    "HookError",
    "Iteration",
    "Opening",
    "deepspeed",
    "megatron",
    "merge_bubbles",
    "torch_pipelining",
]


def torch_pipelining(
    gate: Gate = None, *, quantile: float = 0.1, learn: int = 5, min_ns: int = 500_000, keep: int = 100
) -> Hook:
    """Hooks ``torch.distributed.pipelining``: every schedule of it, an iteration being a schedule's ``step``.

    :param gate: Path of the gate to make, with ``{rank}`` for this process's rank; a ``bubblebench.gate.Main``; or ``None``.
    :param quantile: The dial between use and slowdown: the share of past bubbles that were shorter than what is opened for.
    :param learn: Iterations that only learn, at least 2.
    :param min_ns: Shorter bubbles stay closed.
    :param keep: Iterations that ``iterations()``, ``openings()`` and ``write_bubbles()`` look back on.
    """
    refuse_second()
    from .in_torch import install

    return install(gate, Settings(quantile=quantile, learn=learn, min_ns=min_ns), keep)


def deepspeed(
    gate: Gate = None, *, quantile: float = 0.1, learn: int = 5, min_ns: int = 500_000, keep: int = 100
) -> Hook:
    """Hooks DeepSpeed's pipeline engine: an iteration is a ``train_batch`` or ``eval_batch``.

    The parameters are those of :func:`torch_pipelining`.
    """
    refuse_second()
    from .in_deepspeed import install

    return install(gate, Settings(quantile=quantile, learn=learn, min_ns=min_ns), keep)


def megatron(
    gate: Gate = None, *, quantile: float = 0.1, learn: int = 5, min_ns: int = 500_000, keep: int = 100
) -> Hook:
    """Hooks Megatron-core: an iteration is a call of what ``get_forward_backward_func()`` returns.

    Set it before that function is asked for. The parameters are those of :func:`torch_pipelining`.
    """
    refuse_second()
    from .in_megatron import install

    return install(gate, Settings(quantile=quantile, learn=learn, min_ns=min_ns), keep)
