"""Replaces functions of a framework and puts them back: each place is looked at before anything is replaced."""

from __future__ import annotations

import functools
import importlib
import inspect
from typing import Any, Callable, Dict, List, MutableMapping, Tuple

from .errors import HookError

#: Given the function that stood there, the one to put in its place.
Wrap = Callable[[Callable[..., Any]], Callable[..., Any]]


def imported(name: str) -> Any:
    """A framework's module; an error in one line where it cannot be imported."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise HookError(
            f"{name} cannot be imported: {error}", f"install {name.partition('.')[0]} beside bubblebench"
        ) from error


def argument(of: Callable[..., Any], name: str, args: Tuple[Any, ...], kwargs: Dict[str, Any]) -> Any:
    """The argument of that name in a call of a function, by place or by name; ``None`` where it is not given."""
    try:
        return inspect.signature(of).bind_partial(*args, **kwargs).arguments.get(name)
    except TypeError:
        # The call's own error is the function's.
        return None


class Patches:
    """The places that one hook replaces in one framework.

    :param framework: Name and version, for errors: ``torch 2.15.0``.
    """

    def __init__(self, framework: str) -> None:
        self.framework = framework
        self._planned: List[Tuple[Any, Any, Callable[..., Any], Wrap]] = []
        self._set: List[Tuple[Any, Any, Callable[..., Any], Callable[..., Any]]] = []

    def plan(self, owner: Any, name: Any, parameters: Tuple[str, ...], wrap: Wrap) -> None:
        """Means to replace ``owner.name``, or ``owner[name]`` of a dictionary, a function with at least these parameters.

        Nothing is replaced before :meth:`apply`.
        """
        label = f"{_name(owner)}.{_name(name)}"
        found = _get(owner, name)
        if not callable(found):
            raise self.missing(label)
        try:
            known = inspect.signature(found).parameters
        except (TypeError, ValueError):
            raise self.missing(label) from None
        absent = [parameter for parameter in parameters if parameter not in known]
        if absent:
            raise self.missing(f"parameter `{absent[0]}` of {label}")
        self._planned.append((owner, name, found, wrap))

    def missing(self, what: str) -> HookError:
        """The error for a version of the framework that lacks a place."""
        return HookError(
            f"{self.framework} has no {what}, where the hook would wait with it",
            "take a version that docs/python.md names, or open and close bubblebench.gate.Main by hand",
        )

    def apply(self) -> None:
        """Replaces all that was planned."""
        for owner, name, found, wrap in self._planned:
            ours = functools.wraps(found)(wrap(found))
            _put(owner, name, ours)
            self._set.append((owner, name, found, ours))
        self._planned.clear()

    def restore(self) -> None:
        """Puts everything back. A place that somebody else has replaced since stays theirs."""
        while self._set:
            owner, name, found, ours = self._set.pop()
            if _get(owner, name) is ours:
                _put(owner, name, found)


def _get(owner: Any, name: Any) -> Any:
    return owner.get(name) if isinstance(owner, MutableMapping) else vars(owner).get(name)


def _put(owner: Any, name: Any, value: Any) -> None:
    if isinstance(owner, MutableMapping):
        owner[name] = value
    else:
        setattr(owner, name, value)


def _name(of: Any) -> str:
    return "_INSTRUCTION_MAP" if isinstance(of, MutableMapping) else getattr(of, "__name__", str(of))
