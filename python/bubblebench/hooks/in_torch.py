"""``torch.distributed.pipelining``: all of its schedules wait in ``schedules._wait_batch_p2p``."""

from __future__ import annotations

from typing import Any, Callable, Dict, List

from .hook import Gate, Hook, hooked_iteration, hooked_wait
from .learning import Settings
from .patch import Patches, imported


def install(gate: Gate, settings: Settings, keep: int) -> Hook:
    """Sets the hook; see :func:`bubblebench.hooks.torch_pipelining`."""
    torch = imported("torch")
    dist = imported("torch.distributed")
    patches = Patches(f"torch {torch.__version__}")
    try:
        from torch.distributed.pipelining import schedules
    except ImportError:
        raise patches.missing("torch.distributed.pipelining") from None
    module: Any = schedules
    kinds: Dict[int, str] = {}

    def batch(original: Callable[..., Any]) -> Callable[..., Any]:
        def _batch_p2p(p2p_ops: List[Any], *args: Any, **kwargs: Any) -> Any:
            works = original(p2p_ops, *args, **kwargs)
            # Whether a batch receives is known here, and waited for there.
            kinds[id(works)] = "recv" if any(op.op is dist.irecv for op in p2p_ops) else "send"
            return works

        return _batch_p2p

    def wait(original: Callable[..., Any]) -> Callable[..., Any]:
        def _wait_batch_p2p(work: Any, *args: Any, **kwargs: Any) -> Any:
            if not work:
                return original(work, *args, **kwargs)
            return hooked_wait(kinds.pop(id(work), "recv"), original, work, *args, **kwargs)

        return _wait_batch_p2p

    def step(original: Callable[..., Any]) -> Callable[..., Any]:
        def step(self: Any, *args: Any, **kwargs: Any) -> Any:
            stages = getattr(self, "_stages", None) or [getattr(self, "_stage", None)]
            device = getattr(stages[0], "device", None)
            kinds.clear()
            name = type(self).__name__
            micro_batches = getattr(self, "_n_microbatches", 0)
            backward = bool(getattr(self, "_has_backward", True))
            label = f"{name}, {micro_batches} micro-batches" + ("" if backward else ", forward only")
            key, where = (name, micro_batches, backward), getattr(device, "type", "cpu")
            return hooked_iteration(where, key, label, original, self, *args, **kwargs)

        return step

    patches.plan(module, "_batch_p2p", ("p2p_ops",), batch)
    patches.plan(module, "_wait_batch_p2p", ("work",), wait)
    for name in ("PipelineScheduleSingle", "PipelineScheduleMulti"):
        owner = getattr(module, name, None)
        if owner is None:
            raise patches.missing(name)
        patches.plan(owner, "step", ("self", "target", "losses"), step)
    return Hook(patches, gate, settings, keep)
