"""The log of a run: one JSON record a line, and the same numbers for TensorBoard."""

from __future__ import annotations

import json
import os
import time
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
            from tensorboardX.event_file_writer import EventsWriter
            from tensorboardX.proto.event_pb2 import Event, SessionLog
        except ImportError as error:
            raise ConfigError("training needs the package tensorboardX: pip install 'deer_ros[train]'") from error
        self._path = folder / "log.jsonl"
        lines = self._path.read_text().split("\n")[:-1] if self._path.exists() else []
        kept = [line for line in lines if json.loads(line)["total_steps"] <= steps_done]
        partial = folder / f".log.jsonl.{os.getpid()}"
        partial.write_text("".join(f"{line}\n" for line in kept))
        os.replace(partial, self._path)
        board = folder / "tensorboard"
        board.mkdir(exist_ok=True)
        # Not a SummaryWriter: its queue keeps events back for up to two minutes, and a killed run would lose them.
        self._board = EventsWriter(str(board / "events"), f".{phase}.{os.getpid()}")
        self._to_board(Event(step=steps_done + 1, session_log=SessionLog(status=SessionLog.START)))

    def __enter__(self) -> TrainingLog:
        return self

    def __exit__(self, *_: object) -> None:
        self._board.close()

    def write(self, record: dict[str, Any]) -> None:
        """Adds a record: 'total_steps', any of `SCALARS`, and 'losses' by head."""
        from tensorboardX.proto.event_pb2 import Event
        from tensorboardX.proto.summary_pb2 import Summary

        with open(self._path, "a") as file:
            file.write(json.dumps(record) + "\n")
        scalars = {name: record[name] for name in SCALARS if name in record}
        scalars |= {f"losses/{name}": value for name, value in record.get("losses", {}).items()}
        values = [Summary.Value(tag=name, simple_value=value) for name, value in scalars.items()]
        self._to_board(Event(step=record["total_steps"], summary=Summary(value=values)))

    def _to_board(self, event: Any) -> None:
        event.wall_time = time.time()
        self._board.write_event(event)
        self._board.flush()
