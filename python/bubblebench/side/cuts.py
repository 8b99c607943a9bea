"""Where a PyTorch training step can be cut: as a module's forward begins, as its backward begins, before the optimizer.

What ``torch.compile`` has compiled is not cut: ``torch.compile(module)`` is one piece forward and one backward, which can be
cut before; of ``module.compile()`` the hooks are compiled too, and of a compiled step everything. Nor are modules of
TorchScript.
"""

from __future__ import annotations

import os
import weakref
from typing import Any, Callable, Iterator, List, Optional, Tuple

#: Called at every cut with what begins there.
Cut = Callable[[str], None]


class _At:
    """A hook that cuts. In a child process, in a copy of the module and behind the end of the filling it does nothing."""

    def __init__(self, cuts: "Optional[Cuts]", label: str) -> None:
        self._cuts, self._label = cuts, label

    def cut(self) -> None:
        """Cuts here."""
        if self._cuts is not None:
            self._cuts.at(self._label)

    def __deepcopy__(self, _: Any) -> "_At":
        return type(self)(None, self._label)

    def __reduce__(self) -> Tuple[Any, ...]:
        return (type(self), (None, self._label))


class _Forward(_At):
    """Before a module's forward."""

    def __call__(self, module: Any, inputs: Any) -> None:
        self.cut()


class _Gradient(_At):
    """Before what a gradient is handed on to."""

    def __call__(self, gradient: Any) -> None:
        self.cut()


class _Behind(_At):
    """Behind a module's forward: its backward begins with the gradient of what it returns.

    A hook on the output and not on the module's backward: that one forbids what follows to work in place.
    """

    def __call__(self, module: Any, inputs: Any, output: Any) -> None:
        if self._cuts is None or not self._cuts.is_active():
            return
        tensor = _first_tensor(output)
        # What no operation has made outlives the step, as a parameter that is returned as it is.
        if tensor is not None and tensor.requires_grad and tensor.grad_fn is not None:
            tensor.register_hook(_Gradient(self._cuts, self._label))


class Cuts:
    """The hooks on one model, and on every optimizer of the process.

    :param model: The model whose modules are cut at; ``None``: only optimizers are.
    :param cut: Called at every cut. Where it raises, the step ends with that.
    :param changing: Called behind the cut before an optimizer's step: from here on weights change.
    """

    def __init__(self, model: Any, cut: Cut, changing: Callable[[], None]) -> None:
        import torch
        from torch.optim.optimizer import register_optimizer_step_pre_hook

        self._cut, self._changing, self._pid = cut, changing, os.getpid()
        self._script = torch.jit.ScriptModule
        self._optimizers: "List[weakref.ref[Any]]" = []
        # While a step is compiled its hooks are traced: they are to leave nothing in the graph.
        self._compiling = getattr(getattr(torch, "compiler", None), "is_compiling", lambda: False)
        self._is_on = True
        self._handles: List[Any] = []
        try:
            for name, module in self._pieces("", model) if model is not None else ():
                self._handles.append(module.register_forward_pre_hook(_Forward(self, f"forward of {name}")))
                self._handles.append(module.register_forward_hook(_Behind(self, f"backward of {name}")))
            self._handles.append(register_optimizer_step_pre_hook(self._optimizer))
        except BaseException:
            self.remove()
            raise

    def remove(self) -> None:
        """Takes all hooks away. Those on tensors that somebody has kept do nothing any more."""
        self._is_on = False
        while self._handles:
            self._handles.pop().remove()

    def optimizers(self) -> List[Any]:
        """Those that have made a step and still live, in the order of their first."""
        return [optimizer for optimizer in (known() for known in self._optimizers) if optimizer is not None]

    def is_active(self) -> bool:
        """Whether a cut may be made."""
        return self._is_on and not self._compiling() and os.getpid() == self._pid

    def at(self, label: str) -> None:
        """A cut."""
        if self.is_active():
            self._cut(label)

    def _optimizer(self, optimizer: Any, args: Any, kwargs: Any) -> None:
        if not self.is_active():
            return
        if not any(known is optimizer for known in self.optimizers()):
            self._optimizers = [known for known in self._optimizers if known() is not None]
            self._optimizers.append(weakref.ref(optimizer))
        self._cut(f"step of {type(optimizer).__name__}")
        self._changing()

    def _pieces(self, name: str, module: Any) -> Iterator[Tuple[str, Any]]:
        """The modules that calls go through one by one, in the order of their names."""
        if isinstance(module, self._script):
            return
        yield name or type(module).__name__, module
        if hasattr(module, "_orig_mod") or getattr(module, "_compiled_call_impl", None) is not None:
            return
        for child_name, child in module.named_children():
            yield from self._pieces(f"{name}.{child_name}" if name else child_name, child)


def _first_tensor(output: Any) -> Any:
    """The first tensor of an output that has a gradient; ``None`` where there is none."""
    if hasattr(output, "register_hook"):
        return output
    if isinstance(output, dict):
        output = list(output.values())
    if isinstance(output, (list, tuple)):
        for part in output:
            found = _first_tensor(part)
            if found is not None and found.requires_grad:
                return found
    return None
