"""DeepSpeed's pipeline engine, Megatron-DeepSpeed's too: its instructions go through ``PipelineEngine._INSTRUCTION_MAP``."""

from __future__ import annotations

from typing import Any, Callable

from .hook import Gate, Hook, hooked_iteration, hooked_wait
from .learning import Settings
from .patch import Patches, Wrap, argument, imported

#: The instructions that wait, and what for.
_WAITS = {
    "RecvActivation": "recv",
    "RecvGrad": "recv",
    "SendActivation": "send",
    "SendGrad": "send",
    "ReduceGrads": "reduce",
    "ReduceTiedGrads": "reduce",
}


def install(gate: Gate, settings: Settings, keep: int) -> Hook:
    """Sets the hook; see :func:`bubblebench.hooks.deepspeed`."""
    patches = Patches(f"deepspeed {getattr(imported('deepspeed'), '__version__', '?')}")
    try:
        from deepspeed.runtime.pipe import engine as module
        from deepspeed.runtime.pipe import schedule
    except ImportError:
        raise patches.missing("deepspeed.runtime.pipe") from None
    engine: Any = getattr(module, "PipelineEngine", None)
    if engine is None:
        raise patches.missing("PipelineEngine")
    instructions = vars(engine).get("_INSTRUCTION_MAP")
    if not isinstance(instructions, dict):
        raise patches.missing("PipelineEngine._INSTRUCTION_MAP")

    def wait(kind: str) -> Wrap:
        def wrap(original: Callable[..., Any]) -> Callable[..., Any]:
            def instruction(self: Any, *args: Any, **kwargs: Any) -> Any:
                return hooked_wait(kind, original, self, *args, **kwargs)

            return instruction

        return wrap

    def batch(phase: str) -> Wrap:
        def wrap(original: Callable[..., Any]) -> Callable[..., Any]:
            def run_batch(self: Any, *args: Any, **kwargs: Any) -> Any:
                # A device, or its name.
                device = getattr(self, "device", None)
                where = str(getattr(device, "type", None) or device or "cpu").partition(":")[0]
                # Evaluation may be of other micro-batches than training, and says so by argument only.
                given = argument(original, "num_micro_batches", (self, *args), kwargs)
                micro_batches = given or getattr(self, "micro_batches", 0)
                label = f"{phase}, {micro_batches} micro-batches"
                return hooked_iteration(where, (phase, micro_batches), label, original, self, *args, **kwargs)

            return run_batch

        return wrap

    for name, kind in _WAITS.items():
        command = getattr(schedule, name, None)
        if command is None:
            raise patches.missing(f"instruction {name}")
        patches.plan(instructions, command, ("self",), wait(kind))
    for phase in ("train_batch", "eval_batch"):
        patches.plan(engine, phase, ("self", "data_iter"), batch(phase))
    return Hook(patches, gate, settings, keep)
