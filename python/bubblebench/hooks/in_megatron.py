"""Megatron-core: its schedules wait in ``P2PCommunicator._communicate``, or in what that returns where they overlap."""

from __future__ import annotations

from typing import Any, Callable, Optional

from .cuda import drives_streams
from .hook import Gate, Hook, hooked_iteration, hooked_wait
from .learning import Settings
from .patch import Patches, imported

#: The functions that ``get_forward_backward_func`` chooses from.
_SCHEDULES = (
    "forward_backward_no_pipelining",
    "forward_backward_pipelining_with_interleaving",
    "forward_backward_pipelining_without_interleaving",
)


class _Request:
    """A request whose wait belongs to the hook."""

    def __init__(self, request: Any, kind: str) -> None:
        self._request = request
        self._kind = kind

    def wait(self, *args: Any, **kwargs: Any) -> Any:
        """Waits for the request."""
        return hooked_wait(self._kind, self._request.wait, *args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._request, name)


def install(gate: Gate, settings: Settings, keep: int) -> Hook:
    """Sets the hook; see :func:`bubblebench.hooks.megatron`."""
    dist = imported("torch.distributed")
    patches = Patches(f"megatron-core {getattr(imported('megatron.core'), '__version__', '?')}")
    try:
        from megatron.core.pipeline_parallel import schedules
        from megatron.core.pipeline_parallel.p2p_communication import P2PCommunicator
    except ImportError:
        raise patches.missing("pipeline_parallel.p2p_communication.P2PCommunicator") from None
    communicator: Any = P2PCommunicator

    def communicate(original: Callable[..., Any]) -> Callable[..., Any]:
        def _communicate(self: Any, *args: Any, **kwargs: Any) -> Any:
            kind = "recv" if kwargs.get("recv_prev") or kwargs.get("recv_next") else "send"
            if kwargs.get("wait_on_reqs", True):
                return hooked_wait(kind, original, self, *args, **kwargs)
            previous, following, requests = original(self, *args, **kwargs)
            if isinstance(requests, dict):
                wrapped: Any = {name: _Request(r, name.split("_")[0]) for name, r in requests.items()}
            else:
                wrapped = [_Request(request, kind) for request in requests or ()]
            return previous, following, wrapped

        return _communicate

    def iteration(original: Callable[..., Any]) -> Callable[..., Any]:
        def forward_backward(*args: Any, **kwargs: Any) -> Any:
            forward_only = bool(kwargs.get("forward_only", False))
            micro_batches: Optional[int] = kwargs.get("num_microbatches")
            name = original.__name__
            label = f"{name}, {micro_batches} micro-batches" + (", forward only" if forward_only else "")
            where, key = "cuda" if drives_streams(dist) else "cpu", (name, micro_batches, forward_only)
            return hooked_iteration(where, key, label, original, *args, **kwargs)

        return forward_backward

    patches.plan(communicator, "_communicate", ("self", "recv_prev", "recv_next", "wait_on_reqs"), communicate)
    for name in _SCHEDULES:
        patches.plan(schedules, name, ("forward_step_func", "num_microbatches", "forward_only"), iteration)
    return Hook(patches, gate, settings, keep)
