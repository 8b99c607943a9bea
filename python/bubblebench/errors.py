"""Errors in one line each: what is wrong, then what to do."""

from __future__ import annotations

from typing import Any, Tuple


class OneLine(Exception):
    """An error whose text is one line: what is wrong, then what to do.

    :param what: What was asked or given, and why it cannot be done or used.
    :param cure: What can be done or given instead.
    """

    def __init__(self, what: str, cure: str) -> None:
        self.what = " ".join(what.split())
        self.cure = " ".join(cure.split())
        super().__init__(f"{self.what}; {self.cure}")

    def __reduce__(self) -> Tuple[Any, ...]:
        return (type(self), (self.what, self.cure))
