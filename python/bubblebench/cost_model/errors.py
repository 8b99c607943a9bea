"""Errors in one sentence each: what is wrong, then what to do. Wrong names are answered with the nearest right one."""

from __future__ import annotations

from typing import Iterable, List, Optional

from bubblebench.errors import OneLine


class CostModelError(OneLine, ValueError):
    """A file, or a question, that cannot be used. Its text is one line: what is wrong, then what to do.

    :param what: What was given, and why it cannot be used.
    :param cure: What can be given instead.
    """


def _osa_distance(a: str, b: str) -> int:
    """Slips between two words: a letter left out, doubled, mistaken, or two in each other's place."""
    before: List[int] = []
    last = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        row = [i]
        for j, y in enumerate(b, 1):
            least = min(last[j] + 1, row[j - 1] + 1, last[j - 1] + (x != y))
            if i > 1 and j > 1 and x == b[j - 2] and a[i - 2] == y:
                least = min(least, before[j - 2] + 1)
            row.append(least)
        before, last = last, row
    return last[-1]


def nearest(given: str, known: Iterable[str]) -> Optional[str]:
    """The known name closest to ``given``, if it is close enough to be a slip of the finger."""
    word = given[:64].lower()
    letters = sorted(word)
    ranked = [(_osa_distance(word, name.lower()), letters != sorted(name.lower()), name) for name in known]
    if not ranked:
        return None
    distance, _, name = min(ranked)
    return name if distance <= max(1, len(name) // 3) else None


def some_of(names: Iterable[str], most: int) -> str:
    """At most so many of the names, and how many more there are."""
    listed = list(names)
    shown = ", ".join(listed[:most])
    return shown if len(listed) <= most else f"{shown}, and {len(listed) - most} more"


def cure(given: str, known: Iterable[str]) -> str:
    """"did you mean …?" in front of the list of all names."""
    names = list(dict.fromkeys(known))
    listed = f"known {'is' if len(names) == 1 else 'are'} {', '.join(names)}"
    near = nearest(given, names)
    return listed if near is None else f"did you mean `{near}`? {listed}"


def counted(count: int, noun: str) -> str:
    """A count with what it counts: ``1 rank``, ``2 ranks``."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
