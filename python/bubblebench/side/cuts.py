"""Where a PyTorch training step can be cut: as a module's forward begins, as its backward begins, before the optimizer.

What ``torch.compile`` has compiled is not cut: ``torch.compile(module)`` is one piece forward and one backward, which can be
cut before; of ``module.compile()`` the hooks are compiled too, and of a compiled step everything.
"""

from __future__ import annotations

from typing import Any, Callable, Iterator, List, Tuple

#: Called at every cut with what begins there.
Cut = Callable[[str], None]


class Cuts:
    """The hooks on one model, and on every optimizer of the process.

    :param model: The model whose modules are cut at; ``None``: only optimizers are.
    :param cut: Called at every cut. Where it raises, the step ends with that.
    """

    def __init__(self, model: Any, cut: Cut) -> None:
        import torch
        from torch.optim.optimizer import register_optimizer_step_pre_hook

        #: The optimizers that have made a step.
        self.optimizers: List[Any] = []
        # While a step is compiled its hooks are traced: they are to leave nothing in the graph.
        compiling = self._compiling = getattr(getattr(torch, "compiler", None), "is_compiling", lambda: False)
        self._cut: Cut = lambda label: None if compiling() else cut(label)
        self._handles: List[Any] = []
        for name, module in _pieces("", model) if model is not None else ():
            self._handles.append(module.register_forward_pre_hook(self._forward(name)))
            self._handles.append(module.register_forward_hook(self._backward(name)))
        self._handles.append(register_optimizer_step_pre_hook(self._optimizer))

    def remove(self) -> None:
        """Takes all hooks away."""
        while self._handles:
            self._handles.pop().remove()

    def _forward(self, name: str) -> Callable[..., None]:
        label, cut = f"forward of {name}", self._cut

        def before(module: Any, inputs: Any) -> None:
            cut(label)

        return before

    def _backward(self, name: str) -> Callable[..., None]:
        label, cut, compiling = f"backward of {name}", self._cut, self._compiling

        def gradient(_: Any) -> None:
            cut(label)

        def behind(module: Any, inputs: Any, output: Any) -> None:
            if compiling():
                return
            # A hook on the output and not on the module's backward: that one forbids what follows to work in place.
            tensor = _first_tensor(output)
            if tensor is not None and tensor.requires_grad:
                tensor.register_hook(gradient)

        return behind

    def _optimizer(self, optimizer: Any, args: Any, kwargs: Any) -> None:
        if not any(known is optimizer for known in self.optimizers):
            self.optimizers.append(optimizer)
        self._cut(f"step of {type(optimizer).__name__}")


def _pieces(name: str, module: Any) -> Iterator[Tuple[str, Any]]:
    """The modules that calls go through one by one, in the order of their names."""
    yield name or type(module).__name__, module
    if hasattr(module, "_orig_mod") or getattr(module, "_compiled_call_impl", None) is not None:
        return
    for child_name, child in module.named_children():
        yield from _pieces(f"{name}.{child_name}" if name else child_name, child)


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
