"""The error of the side."""

from __future__ import annotations

from bubblebench.errors import OneLine


class SideError(OneLine, RuntimeError):
    """A side that cannot work, or cannot save what it has learned. Its text is one line: what is wrong, then what to do.

    :param what: What is wrong.
    :param cure: What to do about it.
    """
