"""Files that a reader sees as they were, or whole as they are now."""

from __future__ import annotations

import os
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Iterator


def temporary_of(path: Path) -> Path:
    """Where this process writes what is to stand at ``path``, in the same folder."""
    return path.with_name(f".{path.name}.{os.getpid()}")


@contextmanager
def replaced(path: Path) -> Iterator[IO[bytes]]:
    """A file to write, which takes the place of that at ``path`` once it is whole and on the disk; nothing is left of it else."""
    temporary = temporary_of(path)
    try:
        with open(temporary, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
