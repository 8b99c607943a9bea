"""Values of a JSON object, each asked for by its key and held against its type; what nobody asks for is unknown."""

from __future__ import annotations

from typing import Any, Callable, Dict, Optional, Tuple, TypeVar

from .shape import MOST

T = TypeVar("T")


class Mistake(Exception):
    """What does not follow the format, and where."""


class Object:
    """A JSON object whose keys are asked for one by one; those left over are unknown."""

    def __init__(self, value: Any, place: str) -> None:
        if not isinstance(value, dict):
            raise Mistake(f"{place} is no object")
        self.place = place
        self._left: Dict[str, Any] = dict(value)

    def at(self, key: str) -> str:
        """Where a key stands."""
        return f"{self.place}.{key}" if self.place else key

    def take(self, key: str, read: "Callable[[Any, str], T]") -> T:
        """The value of a key that must be there."""
        if key not in self._left:
            raise Mistake(f"missing field `{self.at(key)}`")
        return read(self._left.pop(key), self.at(key))

    def optional(self, key: str, read: "Callable[[Any, str], T]") -> Optional[T]:
        """The value of a key that may be absent or null."""
        value = self._left.pop(key, None)
        return None if value is None else read(value, self.at(key))

    def default(self, key: str, read: "Callable[[Any, str], T]", value: T) -> T:
        """The value of a key that may be absent, but not null."""
        return self.take(key, read) if key in self._left else value

    def close(self) -> None:
        """Refuses what nobody asked for."""
        for key in self._left:
            raise Mistake(f"unknown field `{self.at(key)}`")


def text(value: Any, place: str) -> str:
    """A text."""
    if not isinstance(value, str):
        raise Mistake(f"{place} is no text")
    return value


def truth(value: Any, place: str) -> bool:
    """True or false."""
    if not isinstance(value, bool):
        raise Mistake(f"{place} is neither true nor false")
    return value


def count(value: Any, place: str) -> int:
    """A whole number of 64 bits, not negative."""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MOST:
        raise Mistake(f"{place} is no count")
    return value


def number(value: Any, place: str) -> float:
    """A number."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise Mistake(f"{place} is no number")
    return float(value)


def choice(names: Tuple[str, ...]) -> Callable[[Any, str], str]:
    """One of these names."""

    def read(value: Any, place: str) -> str:
        if value not in names:
            raise Mistake(f"{place} is none of {', '.join(names)}")
        return str(value)

    return read


def list_of(read: "Callable[[Any, str], T]") -> "Callable[[Any, str], Tuple[T, ...]]":
    """A list of values of one form."""

    def all_of(value: Any, place: str) -> Tuple[T, ...]:
        if not isinstance(value, list):
            raise Mistake(f"{place} is no list")
        return tuple(read(item, f"{place}[{index}]") for index, item in enumerate(value))

    return all_of


def table_of(read: "Callable[[Any, str], T]") -> "Callable[[Any, str], Dict[str, T]]":
    """Values of one form by name."""

    def all_of(value: Any, place: str) -> Dict[str, T]:
        if not isinstance(value, dict):
            raise Mistake(f"{place} is no object")
        return {key: read(item, f"{place}.{key}") for key, item in value.items()}

    return all_of
