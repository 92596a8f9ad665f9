"""Reads the next windows from the disk while the network learns from the current ones."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from deer_policies.training.episodes import EpisodeStreams, Windows


class ReadAhead:
    """Streams whose next windows are always being read; they are the same windows, in the same order."""

    def __init__(self, streams: EpisodeStreams) -> None:
        self._streams = streams
        self._state = streams.state()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="read-ahead")
        self._next: Future[tuple[Windows, dict[str, Any]]] | None = None

    def next(self) -> Windows:
        """The next window of every stream."""
        waiting = self._next or self._thread.submit(self._read)
        windows, self._state = waiting.result()
        self._next = self._thread.submit(self._read)
        return windows

    def state(self) -> dict[str, Any]:
        """Where the streams are after the windows that `next` gave last; see `EpisodeStreams.state`."""
        return self._state

    def go_on_from(self, state: dict[str, Any]) -> None:
        """Takes up what `state` gave."""
        if self._next is not None:
            self._next.result()
            self._next = None
        self._streams.go_on_from(state)
        self._state = state

    def _read(self) -> tuple[Windows, dict[str, Any]]:
        windows = self._streams.next()
        return windows, self._streams.state()
