"""One thread for the model: it always takes the newest request, and whoever is in a hurry never waits for it."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from typing import Any, Generic, TypeVar

Request = TypeVar("Request")
Result = TypeVar("Result")
Value = TypeVar("Value")


class InferenceWorker(Generic[Request, Result]):
    """Runs `infer` on its own thread, on the newest request only: one that has not begun is replaced by the next.

    Everything that touches the model goes through this thread, so the model needs no lock.

    Args:
        infer: called on the model thread; None means that nobody needs a result any more.
        deliver: called on the model thread with the request and its finished future, a result or an exception.
    """

    def __init__(
        self, infer: Callable[[Request], Result | None], deliver: Callable[[Request, Future[Result]], None]
    ) -> None:
        self._infer = infer
        self._deliver = deliver
        self._condition = threading.Condition()
        self._newest: Request | None = None
        self._calls: deque[tuple[Callable[[], Any], Future[Any]]] = deque()
        self._closed = False
        self._replaced = 0
        self._busy_since_s: float | None = None
        self._thread = threading.Thread(target=self._run, name="model", daemon=True)
        self._thread.start()

    @property
    def replaced(self) -> int:
        """Requests that were replaced by a newer one before they began: frames that the model was too slow for."""
        return self._replaced

    @property
    def waiting(self) -> int:
        """Requests and calls that have not begun."""
        with self._condition:
            return len(self._calls) + (self._newest is not None)

    @property
    def busy_s(self) -> float:
        """For how long the thread has been at what it is doing, by the monotonic clock; 0 if it has nothing to do."""
        since_s = self._busy_since_s
        return 0.0 if since_s is None else time.monotonic() - since_s

    def submit(self, request: Request) -> None:
        """Puts a request into the slot of the newest one; returns at once."""
        with self._condition:
            self._replaced += self._newest is not None
            self._newest = request
            self._condition.notify()

    def call(self, function: Callable[[], Value]) -> Future[Value]:
        """Runs `function` on the model thread before the next request: for what changes the model between two steps."""
        future: Future[Value] = Future()
        with self._condition:
            if self._closed:
                future.set_exception(RuntimeError("the model thread has ended"))
            else:
                self._calls.append((function, future))
                self._condition.notify()
        return future

    def close(self, timeout_s: float = 5.0) -> bool:
        """Ends the thread after what it is doing; False if it is still busy after `timeout_s`."""
        with self._condition:
            self._closed = True
            self._newest = None
            self._condition.notify()
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while True:
            with self._condition:
                self._busy_since_s = None
                self._condition.wait_for(lambda: self._calls or self._newest is not None or self._closed)
                call = self._calls.popleft() if self._calls else None
                request = None
                if call is None:
                    if self._closed:
                        return
                    request, self._newest = self._newest, None
                self._busy_since_s = time.monotonic()
            if call is not None:
                _settle(call[1], call[0])
            elif request is not None:
                future: Future[Result] = Future()
                _settle(future, partial(self._infer, request))
                if future.exception() is not None or future.result() is not None:
                    self._deliver(request, future)


def _settle(future: Future[Any], function: Callable[[], Any]) -> None:
    """Puts the function's result, or what it raises, into the future."""
    try:
        future.set_result(function())
    except Exception as error:
        future.set_exception(error)
