"""``bubblebench.bubbles/1`` of a live run: what ``bubblebench plan --bubbles FILE`` reads in place of a profile.

The host's waits are the bubbles; the time between them counts as computing. A rank writes a file of one device, and
:func:`merge_bubbles` makes one file of several, a device a stage.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, List, Sequence, Tuple, Union

from bubblebench.files import replaced

from .errors import HookError

#: Name and version of the format.
SCHEMA = "bubblebench.bubbles/1"
#: Shorter bubbles are in the totals only, as with ``bubblebench bubbles --min-gap``.
MIN_GAP_NS = 10_000
#: An iteration begins with its first wait if no more than this share of it was computed before.
_NOTHING = 0.01

PathOrText = Union[str, "os.PathLike[str]"]


@dataclass(frozen=True)
class Iteration:
    """An iteration as it was seen; times are nanoseconds of ``time.monotonic_ns()``."""

    #: Its number among those of its program.
    number: int
    start_ns: int
    end_ns: int
    #: Kind, start and end of each wait, in order.
    waits: Tuple[Tuple[str, int, int], ...]


def device(number: int, iterations: Sequence[Iteration]) -> Dict[str, Any]:
    """The record's entry of one device."""
    window = sum(i.end_ns - i.start_ns for i in iterations)
    absent = sum(end - start for i in iterations for _, start, end in i.waits)
    return {
        "device": number,
        "iterations": len(iterations),
        "window_ns": window,
        "compute_ns": window - absent,
        "communication_ns": absent,
        "absent_ns": absent,
        "bubble_ratio": absent / window if window else 0.0,
        "bubbles": [bubble for iteration in iterations for bubble in _bubbles(iteration)],
    }


def _bubbles(iteration: Iteration) -> List[Dict[str, Any]]:
    """The waits of one iteration. The edge of the iteration stands beside a bubble if nothing was computed between."""
    nothing = _NOTHING * (iteration.end_ns - iteration.start_ns)
    rows = []
    for kind, start, end in iteration.waits:
        if end - start < MIN_GAP_NS:
            continue
        rows.append(
            {
                "iteration": iteration.number,
                "start_ns": start,
                "end_ns": end,
                "class": "communication" if kind == "reduce" else "dependency",
                "previous_kernel": None if start - iteration.start_ns <= nothing else f"computing before a {kind}",
                "next_kernel": None if iteration.end_ns - end <= nothing else f"computing behind a {kind}",
            }
        )
    return rows


def write(path: PathOrText, source: str, devices: Sequence[Dict[str, Any]]) -> None:
    """Writes a record; a reader sees the old file or the whole new one. An error in one line where it cannot be."""
    target = Path(path)
    record = {"schema": SCHEMA, "source": source, "devices": list(devices)}
    try:
        with replaced(target) as file:
            file.write(json.dumps(record, indent=1).encode() + b"\n")
    except OSError as error:
        raise HookError(f"the bubbles cannot be written to {target}: {error.strerror}", "choose another path") from error


def merge_bubbles(paths: Sequence[PathOrText], out: PathOrText) -> None:
    """Makes one file of those that ranks wrote: one rank of each stage, in the order of the pipeline.

    Only iterations that every rank has are kept.

    :param paths: Files of ``hook.write_bubbles``.
    :param out: The file to write, for ``bubblebench plan --bubbles``.
    """
    devices: List[Dict[str, Any]] = []
    sources: List[str] = []
    for path in paths:
        source, found = _read(path)
        if source in sources:
            raise HookError(f"{path} is of {source}, and so was another", "give one file of each stage")
        sources.append(source)
        devices.extend(found)
        if not any(entry["bubbles"] for entry in found):
            raise HookError(f"{path} lists no bubble", f"a stage that waits less than {MIN_GAP_NS} ns has none to fill")
    if not devices:
        raise HookError("there is no file to merge", "give one of each stage, in the order of the pipeline")
    shared = set.intersection(*({b["iteration"] for b in d["bubbles"]} for d in devices))
    if not shared:
        raise HookError(
            "the files share no iteration", "let every rank write its own in the same run, after the same step"
        )
    for number, entry in enumerate(devices):
        _keep(entry, shared)
        entry["device"] = number
    write(out, ", ".join(sources), devices)


def _read(path: PathOrText) -> Tuple[str, List[Dict[str, Any]]]:
    """Source and devices of one file."""
    cure = "give the files that hook.write_bubbles wrote"
    try:
        record = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise HookError(f"{path} cannot be read: {error}", cure) from error
    if not isinstance(record, dict) or record.get("schema") != SCHEMA:
        raise HookError(f"{path} is no {SCHEMA}", cure)
    try:
        devices = [dict(entry) for entry in record["devices"]]
        for entry in devices:
            for name in ("iterations", "window_ns", "absent_ns", "communication_ns"):
                if not isinstance(entry[name], int) or entry[name] < 0:
                    raise ValueError(name)
            for bubble in entry["bubbles"]:
                if not isinstance(bubble["iteration"], int) or not 0 <= bubble["start_ns"] <= bubble["end_ns"]:
                    raise ValueError("bubbles")
        return str(record["source"]), devices
    except (KeyError, TypeError, ValueError) as error:
        raise HookError(f"{path} is damaged: {type(error).__name__} at {error}", cure) from error


def _keep(entry: Dict[str, Any], shared: "set[int]") -> None:
    """Leaves the shared iterations; the totals shrink in proportion, and hold the bubbles that are listed."""
    had = int(entry["iterations"])
    entry["bubbles"] = [b for b in entry["bubbles"] if b["iteration"] in shared]
    kept = min(len(shared), had)
    listed = sum(b["end_ns"] - b["start_ns"] for b in entry["bubbles"])
    window, absent = (int(entry[name]) * kept // had for name in ("window_ns", "absent_ns"))
    absent = max(absent, listed)
    window = max(window, absent)
    entry.update(
        iterations=kept,
        window_ns=window,
        absent_ns=absent,
        compute_ns=window - absent,
        communication_ns=min(int(entry["communication_ns"]) * kept // had, window),
        bubble_ratio=absent / window if window else 0.0,
    )
