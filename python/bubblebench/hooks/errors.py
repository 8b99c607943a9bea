"""The error of this package, in one line: what is wrong, then what to do."""

from __future__ import annotations

from typing import Tuple, Type


class HookError(RuntimeError):
    """A hook that cannot be set, or cannot do what it is for. Its text is one line.

    :param what: What is wrong.
    :param cure: What to do about it.
    """

    def __init__(self, what: str, cure: str) -> None:
        self.what = " ".join(what.split())
        self.cure = " ".join(cure.split())
        super().__init__(f"{self.what}; {self.cure}")

    def __reduce__(self) -> "Tuple[Type[HookError], Tuple[str, str]]":
        return (HookError, (self.what, self.cure))
