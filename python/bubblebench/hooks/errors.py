"""The error of the hooks."""

from __future__ import annotations

from bubblebench.errors import OneLine


class HookError(OneLine, RuntimeError):
    """A hook that cannot be set, or cannot do what it is for. Its text is one line: what is wrong, then what to do.

    :param what: What is wrong.
    :param cure: What to do about it.
    """
