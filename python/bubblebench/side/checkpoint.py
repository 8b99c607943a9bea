"""The checkpoint of a side: a reader sees the old file or the whole new one, and what is in the way is told before the training."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Dict, Union

from .errors import SideError


class Checkpoint:
    """A file that a side's state goes to once it has stopped.

    :param path: Where; a link's target is written, and the link stays.
    :raises SideError: where nothing can be written there, now.
    """

    def __init__(self, path: "Union[str, os.PathLike[str]]") -> None:
        self._path = Path(os.path.realpath(path))
        if self._path.exists() and not self._path.is_file():
            raise SideError(f"the checkpoint {path} is a folder or a device", "give the path of a file")
        try:
            with open(self._temporary(), "wb"):
                pass
        except OSError as error:
            raise SideError(f"no checkpoint can be written to {path}: {error.strerror}", "choose another path") from error
        self._temporary().unlink(missing_ok=True)

    def save(self, torch: Any, state: Dict[str, Any]) -> None:
        """Writes it, whole or not at all."""
        try:
            with open(self._temporary(), "wb") as file:
                torch.save(state, file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(self._temporary(), self._path)
        except (OSError, RuntimeError) as error:
            # torch tells a full disk as an error of its own, by offsets.
            text = getattr(error, "strerror", None) or " ".join(str(error).split())
            raise SideError(
                f"the checkpoint {self._path} could not be saved: {text}", "look whether its disk is full"
            ) from error
        finally:
            self._temporary().unlink(missing_ok=True)

    def _temporary(self) -> Path:
        return self._path.with_name(f".{self._path.name}.{os.getpid()}")
