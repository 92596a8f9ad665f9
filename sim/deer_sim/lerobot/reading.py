"""Reads datasets in LeRobot's format, versions 3.0 and 2.1, episode by episode."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from deer_policies.errors import ConfigError, listed
from deer_sim.lerobot.format import INFO_PATH, OLDER_VERSION, TASK_INDEX, TASKS_PATH, VERSION, require_pyarrow
from deer_sim.recording import VideoReader


@dataclass(frozen=True)
class Entry:
    """Where an episode is.

    Attributes:
        index: its number.
        length: steps.
        data: Parquet file with its rows.
        videos: file and first frame by camera.
        extras: what the index says beside, such as 'calvin/task'.
    """

    index: int
    length: int
    data: Path
    videos: Mapping[str, tuple[Path, int]] = field(default_factory=dict)
    extras: Mapping[str, Any] = field(default_factory=dict)


class LeRobotFolder:
    """A dataset on this machine.

    Attributes:
        folder: with `meta/` and `data/`.
        features: dtype and shape by name, as `meta/info.json` says.
        rate_hz: frames a second.
        tasks: instructions by number.
        entries: the episodes.
    """

    def __init__(self, folder: Path) -> None:
        """Reads what is under `meta/`. Raises ConfigError if it is missing, damaged or of another version."""
        require_pyarrow()
        self.folder = Path(folder)
        try:
            self._info = json.loads((self.folder / INFO_PATH).read_text())
            version = self._info["codebase_version"]
            self.features: dict[str, dict[str, Any]] = self._info["features"]
            self.rate_hz = float(self._info["fps"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ConfigError(
                f"{self.folder} is not a dataset in LeRobot's format: {error!r}; name the folder that holds {INFO_PATH}"
            ) from error
        if version not in (VERSION, OLDER_VERSION):
            raise ConfigError(
                f"{self.folder} has version {version} of LeRobot's format; {VERSION} and {OLDER_VERSION} are read: "
                "convert it with LeRobot's own scripts"
            )
        self._videos = [name for name, feature in self.features.items() if feature["dtype"] == "video"]
        try:
            self.tasks, self.entries = self._index() if version == VERSION else self._older_index()
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ConfigError(f"{self.folder}/meta is damaged: {error!r}; download it again") from error
        self._table: tuple[Path, Any] | None = None
        self._readers: dict[str, VideoReader] = {}

    def _index(self) -> tuple[dict[int, str], list[Entry]]:
        import pyarrow.parquet as pq

        tasks = pq.read_table(self.folder / TASKS_PATH).to_pydict()
        texts = next(values for name, values in tasks.items() if name != TASK_INDEX)
        entries = []
        for path in sorted((self.folder / "meta/episodes").glob("*/*.parquet")):
            names = [name for name in pq.read_schema(path).names if not name.startswith("stats/")]
            for row in pq.read_table(path, columns=names).to_pylist():
                data = self.folder / self._info["data_path"].format(**_place(row, "data"))
                videos = {
                    name: (
                        self.folder / self._info["video_path"].format(video_key=name, **_place(row, f"videos/{name}")),
                        round(row[f"videos/{name}/from_timestamp"] * self.rate_hz),
                    )
                    for name in self._videos
                }
                extras = {name: value for name, value in row.items() if name.startswith("calvin/")}
                entries.append(Entry(row["episode_index"], row["length"], data, videos, extras))
        return dict(zip(tasks[TASK_INDEX], texts, strict=True)), entries

    def _older_index(self) -> tuple[dict[int, str], list[Entry]]:
        tasks = {row["task_index"]: row["task"] for row in _lines(self.folder / "meta/tasks.jsonl")}
        entries = []
        for row in _lines(self.folder / "meta/episodes.jsonl"):
            index = row["episode_index"]
            place = {"episode_index": index, "episode_chunk": index // self._info["chunks_size"]}
            videos = {
                name: (self.folder / self._info["video_path"].format(video_key=name, **place), 0)
                for name in self._videos
            }
            data = self.folder / self._info["data_path"].format(**place)
            entries.append(Entry(index, row["length"], data, videos))
        return tasks, entries

    def require(self, name: str, *shape: int) -> None:
        """Raises ConfigError if there is no feature of that name, or of another shape than the one given."""
        if name not in self.features:
            raise ConfigError(f"{self.folder} has no feature {name!r}; it has {', '.join(self.features)}")
        found = tuple(self.features[name]["shape"])
        if shape and found != shape:
            raise ConfigError(f"{self.folder}: feature {name!r} has shape {found}; it must be {shape}")

    def values(self, entry: Entry, name: str) -> np.ndarray:
        """A feature that is no image, (steps, dim), in its own dtype. Raises ConfigError for damaged data."""
        column = self._rows(entry).column(name).to_pylist()
        return np.array(column, dtype=self.features[name]["dtype"]).reshape(entry.length, -1)

    def images(self, entry: Entry, name: str) -> list[np.ndarray]:
        """A camera's images, each (height, width, 3) uint8. Raises ConfigError for damaged data."""
        if name in self._videos:
            path, first = entry.videos[name]
            reader = self._readers.get(name)
            if reader is None or reader.path != path:
                if reader is not None:
                    reader.close()
                reader = self._readers[name] = VideoReader(path)
            return reader.read(first, entry.length)
        from PIL import Image

        found = []
        for step, image in enumerate(self._rows(entry).column(name).to_pylist()):
            try:
                found.append(np.asarray(Image.open(io.BytesIO(image["bytes"])).convert("RGB")))
            except (OSError, TypeError, KeyError, ValueError) as error:
                raise ConfigError(
                    f"{entry.data}: image {name!r} of step {step} of episode {entry.index} can't be read: {error}; "
                    "download this file again"
                ) from error
        return found

    def _rows(self, entry: Entry) -> Any:
        """The rows of an episode; the last file that was read is kept, since many episodes share one."""
        import pyarrow as pa
        import pyarrow.compute as pc
        import pyarrow.parquet as pq

        if self._table is None or self._table[0] != entry.data:
            try:
                self._table = (entry.data, pq.read_table(entry.data))
            except (OSError, pa.ArrowInvalid) as error:
                raise ConfigError(f"{entry.data} can't be read: {error}; download this file again") from error
        table = self._table[1]
        rows = table.filter(pc.field("episode_index") == entry.index)
        if rows.num_rows != entry.length:
            raise ConfigError(
                f"{entry.data} has {rows.num_rows} rows of episode {entry.index}, which has {entry.length} steps; "
                "download this file and meta/ again"
            )
        missing = [
            name for name, kind in self.features.items() if kind["dtype"] != "video" and name not in rows.column_names
        ]
        if missing:
            raise ConfigError(f"{entry.data} lacks the columns {listed(missing)}; download this file again")
        return rows

    def close(self) -> None:
        """Closes the videos."""
        for reader in self._readers.values():
            reader.close()


def _place(row: Mapping[str, Any], prefix: str) -> dict[str, int]:
    return {name: row[f"{prefix}/{name}"] for name in ("chunk_index", "file_index")}


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    return (json.loads(line) for line in path.read_text().splitlines() if line.strip())
