"""The checkpoint of a side: a reader sees the old file or the whole new one, and what is in the way is told before the training."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Dict, Sequence, Union

from bubblebench.files import replaced, temporary_of

from .errors import SideError


class Checkpoint:
    """A file that a side's state goes to once it has stopped.

    :param path: Where; a link's target is written, and the link stays.
    :param resume: Go on from what is there, if anything is.
    :raises SideError: where nothing can be written there, now, or something is there that is not to be gone on from.
    """

    def __init__(self, path: "Union[str, os.PathLike[str]]", resume: bool) -> None:
        self._path = Path(os.path.realpath(path))
        if self._path.exists() and not self._path.is_file():
            raise SideError(f"the checkpoint {path} is a folder or a device", "give the path of a file")
        self._resume = resume
        if self._path.exists() and not resume:
            raise SideError(
                f"the checkpoint {path} is there, and a new training does not write over it",
                "give resume=True to go on from it, or another path",
            )
        probe = temporary_of(self._path)
        try:
            probe.touch()
        except OSError as error:
            raise SideError(f"no checkpoint can be written to {path}: {error.strerror}", "choose another path") from error
        probe.unlink(missing_ok=True)

    def load(self, torch: Any, model: Any, optimizers: Sequence[Any]) -> int:
        """Puts what was saved into the model and the optimizers; the steps that it had, 0 where there is none."""
        if not self._resume or not self._path.exists():
            return 0
        try:
            saved = torch.load(self._path, map_location="cpu", weights_only=True)
            states, steps = list(saved["optimizers"]), int(saved["steps"])
            weights = saved["model"]
        except Exception as error:
            text = " ".join(str(error).split())
            raise SideError(f"{self._path} is no checkpoint of a side: {text[:200]}", "give the file that fill saved") from error
        if len(states) != len(optimizers):
            raise SideError(
                f"{self._path} has the states of {len(states)} optimizers, and {len(optimizers)} were given",
                "give all of them as optimizers=[…], in the order in which they were saved",
            )
        try:
            model.load_state_dict(weights)
            for optimizer, state in zip(optimizers, states):
                optimizer.load_state_dict(state)
        except (RuntimeError, ValueError, KeyError) as error:
            text = " ".join(str(error).split())
            raise SideError(f"{self._path} is of another model: {text[:200]}", "give the model that it was saved of") from error
        return steps

    def save(self, torch: Any, state: Dict[str, Any]) -> None:
        """Writes it, whole or not at all."""
        try:
            with replaced(self._path) as file:
                torch.save(state, file)
        except (OSError, RuntimeError) as error:
            # torch tells a full disk as an error of its own, by offsets.
            text = getattr(error, "strerror", None) or " ".join(str(error).split())
            raise SideError(
                f"the checkpoint {self._path} could not be saved: {text}", "look whether its disk is full"
            ) from error
