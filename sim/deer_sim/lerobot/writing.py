"""Writes episodes in LeRobot's format, file by file."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from deer_sim.lerobot.format import (
    CHUNK_FILES,
    DATA_FILE_MIB,
    DATA_PATH,
    EPISODES_PATH,
    INFO_PATH,
    RATE_HZ,
    STATISTICS_PATH,
    TASK_INDEX,
    TASKS_PATH,
    VERSION,
    VIDEO_FILE_MIB,
    VIDEO_PATH,
)
from deer_sim.lerobot.statistics import Values, image_statistics, merged, vector_statistics
from deer_sim.recording import VideoWriter

EPISODES_AT_ONCE = 100
VIDEO_FRAMES = 10_000
"""Frames after which the next video file begins."""
KEYFRAME_EVERY = 2
"""As LeRobot's own videos, for reading in any order."""


def png(image: np.ndarray) -> bytes:
    """An image (height, width, 3) uint8 as a PNG file."""
    from PIL import Image

    content = io.BytesIO()
    Image.fromarray(image).save(content, "PNG")
    return content.getvalue()


class LeRobotWriter:
    """Writes one dataset; a context manager, at whose end the files are complete."""

    def __init__(self, folder: Path, features: Mapping[str, Mapping[str, Any]]) -> None:
        """Args:
        folder: new or empty.
        features: of every frame, in LeRobot's terms.
        """
        self.frames = self.episodes = 0
        self._folder = folder
        self._features = features
        self._videos = [name for name, feature in features.items() if feature["dtype"] == "video"]
        self._tasks: dict[str, int] = {}
        self._data: Any = None
        self._data_file = self._video_file = -1
        self._films: dict[str, VideoWriter] = {}
        self._rows: list[dict[str, Any]] = []
        self._index: Any = None
        self._statistics: dict[str, list[Values]] = {}

    def add(
        self, values: Mapping[str, np.ndarray], images: Mapping[str, Sequence[np.ndarray]], task: str, **extras: str
    ) -> None:
        """Appends an episode.

        Args:
            values: (steps, dim) of each feature that is no image and no counter.
            images: the frames (height, width, 3) uint8 of each camera.
            task: the instruction.
            extras: further entries of the episode's index, by name.
        """
        steps = len(next(iter(images.values())))
        number = self._tasks.setdefault(task, len(self._tasks))
        counters = {
            "timestamp": np.arange(steps) / RATE_HZ,
            "frame_index": np.arange(steps),
            "episode_index": np.full(steps, self.episodes),
            "index": np.arange(self.frames, self.frames + steps),
            TASK_INDEX: np.full(steps, number),
        }
        columns = {**values, **{name: column[:, None] for name, column in counters.items()}}
        row: dict[str, Any] = {"episode_index": self.episodes, "tasks": [task], "length": steps, **extras}
        row |= self._write_data(columns, images) | self._write_videos(images, steps)
        row |= {"dataset_from_index": self.frames, "dataset_to_index": self.frames + steps}
        found = {name: vector_statistics(column) for name, column in columns.items()}
        found |= {name: image_statistics(frames) for name, frames in images.items()}
        for name, part in found.items():
            self._statistics.setdefault(name, []).append(part)
            row |= {f"stats/{name}/{kind}": value.tolist() for kind, value in part.items()}
        self._rows.append({**row, "meta/episodes/chunk_index": 0, "meta/episodes/file_index": 0})
        if len(self._rows) >= EPISODES_AT_ONCE:
            self._write_rows()
        self.frames += steps
        self.episodes += 1

    def _write_data(
        self, columns: Mapping[str, np.ndarray], images: Mapping[str, Sequence[np.ndarray]]
    ) -> dict[str, int]:
        import pyarrow as pa
        import pyarrow.parquet as pq

        arrays = {}
        for name, feature in self._features.items():
            if feature["dtype"] == "image":
                entries = [{"bytes": png(image), "path": f"frame-{i:06d}.png"} for i, image in enumerate(images[name])]
                arrays[name] = pa.array(entries, pa.struct({"bytes": pa.binary(), "path": pa.string()}))
            elif feature["dtype"] != "video":
                kind = pa.from_numpy_dtype(np.dtype(feature["dtype"]))
                flat = pa.array(columns[name].astype(feature["dtype"]).reshape(-1), kind)
                size = feature["shape"][0]
                arrays[name] = flat if size == 1 else pa.FixedSizeListArray.from_arrays(flat, size)
        table = pa.table(arrays)
        if self._data is None:
            self._data_file += 1
            path = self._folder / DATA_PATH.format(**_place("", self._data_file))
            path.parent.mkdir(parents=True, exist_ok=True)
            self._data = pq.ParquetWriter(path, table.schema, compression="snappy")
            self._data_bytes = 0
        self._data.write_table(table)
        self._data_bytes += table.nbytes
        if self._data_bytes > DATA_FILE_MIB * 2**20:
            self._data.close()
            self._data = None
        return _place("data/", self._data_file)

    def _write_videos(self, images: Mapping[str, Sequence[np.ndarray]], steps: int) -> dict[str, Any]:
        if not self._videos:
            return {}
        if not self._films or next(iter(self._films.values())).frames + steps > VIDEO_FRAMES:
            self._close_films()
            self._video_file += 1
            for name in self._videos:
                height, width, _ = self._features[name]["shape"]
                path = self._folder / VIDEO_PATH.format(video_key=name, **_place("", self._video_file))
                self._films[name] = VideoWriter(path, width, height, RATE_HZ, KEYFRAME_EVERY)
        row: dict[str, Any] = {}
        for name, film in self._films.items():
            row |= _place(f"videos/{name}/", self._video_file)
            row[f"videos/{name}/from_timestamp"] = film.frames / RATE_HZ
            for image in images[name]:
                film.add(image)
            row[f"videos/{name}/to_timestamp"] = film.frames / RATE_HZ
        return row

    def _write_rows(self) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        table = pa.Table.from_pylist(self._rows, self._index.schema if self._index else None)
        if self._index is None:
            path = self._folder / EPISODES_PATH
            path.parent.mkdir(parents=True, exist_ok=True)
            self._index = pq.ParquetWriter(path, table.schema, compression="snappy")
        self._index.write_table(table)
        self._rows = []

    def _close_films(self) -> None:
        for film in self._films.values():
            film.close()
        self._films = {}

    def _write_info(self) -> None:
        import pyarrow.parquet as pq

        info = {
            "codebase_version": VERSION,
            "robot_type": "panda",
            "total_episodes": self.episodes,
            "total_frames": self.frames,
            "total_tasks": len(self._tasks),
            "chunks_size": CHUNK_FILES,
            "data_files_size_in_mb": DATA_FILE_MIB,
            "video_files_size_in_mb": VIDEO_FILE_MIB,
            "fps": RATE_HZ,
            "splits": {"train": f"0:{self.episodes}"},
            "data_path": DATA_PATH,
            "video_path": VIDEO_PATH if self._videos else None,
            "features": self._features,
        }
        statistics = {
            name: {kind: value.tolist() for kind, value in merged(parts).items()}
            for name, parts in self._statistics.items()
        }
        pq.write_table(_tasks_table(list(self._tasks)), self._folder / TASKS_PATH)
        (self._folder / STATISTICS_PATH).write_text(json.dumps(statistics, indent=1))
        (self._folder / INFO_PATH).write_text(json.dumps(info, indent=1))

    def __enter__(self) -> LeRobotWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        self._close_films()
        if self._rows and kind is None:
            self._write_rows()
        for writer in (self._data, self._index):
            if writer is not None:
                writer.close()
        if kind is None:
            self._write_info()


def _place(prefix: str, file: int) -> dict[str, int]:
    """Folder and number of a file, counted from the first one."""
    return {f"{prefix}chunk_index": file // CHUNK_FILES, f"{prefix}file_index": file % CHUNK_FILES}


def _tasks_table(tasks: Sequence[str]) -> Any:
    """Instructions by number; LeRobot reads this file with pandas, and the instructions are the frame's index."""
    import pyarrow as pa

    index = "__index_level_0__"
    columns = [("task_index", "task_index", "int64", "int64"), (None, index, "unicode", "object")]
    pandas = {
        "index_columns": [index],
        "column_indexes": [],
        "columns": [
            {"name": name, "field_name": field, "pandas_type": kind, "numpy_type": numpy, "metadata": None}
            for name, field, kind, numpy in columns
        ],
        "pandas_version": "2.0.0",
    }
    table = pa.table({"task_index": pa.array(range(len(tasks)), pa.int64()), index: pa.array(tasks, pa.string())})
    return table.replace_schema_metadata({"pandas": json.dumps(pandas)})
