"""The log of a run: one JSON record a line, and the same numbers for TensorBoard."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from deer_policies.errors import ConfigError

SCALARS = ("loss", "validation_loss", "learning_rate", "gradient_norm", "updates_per_s")


class TrainingLog:
    """Writes `log.jsonl` and `tensorboard/` in a folder; use it in a `with` block."""

    def __init__(self, folder: Path, steps_done: int, phase: str) -> None:
        """Args:
        folder: of the run.
        steps_done: updates of the state that training goes on from; records of later ones, which a killed run has left,
            are dropped.
        phase: part of the name of TensorBoard's file.

        Raises:
            ConfigError: if the writer of TensorBoard's files is not installed.
        """
        try:
            from tensorboardX import SummaryWriter
        except ImportError as error:
            raise ConfigError("training needs the package tensorboardX: pip install 'deer_ros[train]'") from error
        self._path = folder / "log.jsonl"
        lines = self._path.read_text().split("\n")[:-1] if self._path.exists() else []
        kept = [line for line in lines if json.loads(line)["total_steps"] <= steps_done]
        partial = folder / f".log.jsonl.{os.getpid()}"
        partial.write_text("".join(f"{line}\n" for line in kept))
        os.replace(partial, self._path)
        self._board = SummaryWriter(
            str(folder / "tensorboard"), purge_step=steps_done + 1, filename_suffix=f".{phase}.{os.getpid()}"
        )

    def __enter__(self) -> TrainingLog:
        return self

    def __exit__(self, *_: object) -> None:
        self._board.close()

    def write(self, record: dict[str, Any]) -> None:
        """Adds a record: 'total_steps', any of `SCALARS`, and 'losses' by head."""
        with open(self._path, "a") as file:
            file.write(json.dumps(record) + "\n")
        scalars = {name: record[name] for name in SCALARS if name in record}
        scalars |= {f"losses/{name}": value for name, value in record.get("losses", {}).items()}
        for name, value in scalars.items():
            self._board.add_scalar(name, value, record["total_steps"])
        self._board.flush()
