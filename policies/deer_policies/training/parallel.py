"""Data-parallel training: what the processes of one run share; a single process takes the same path and waits for none.

Started by `torchrun`, every process holds the whole model and plays its own share of the streams. Gradients are added
up after each backward pass, so that all copies stay equal.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from deer_policies.errors import ConfigError

CPU = torch.device("cpu")
PARENT_CHECK_S = 0.2
LONGEST_WAIT = timedelta(days=7)
"""The other processes wait while the first one makes episodes; torchrun ends them all if one dies."""


@dataclass(frozen=True)
class Processes:
    """The processes of a run, seen from one of them.

    Attributes:
        rank: of this process, from 0; the first one makes the data and writes the files.
        count: how many there are.
        device: where this process trains.
    """

    rank: int = 0
    count: int = 1
    device: torch.device = CPU

    @property
    def first(self) -> bool:
        """Whether this is the one that writes."""
        return self.rank == 0

    def share(self, batch: int) -> int:
        """Streams that each process plays. Raises ConfigError if they can't be shared out evenly."""
        if batch % self.count:
            raise ConfigError(f"a batch of {batch} can't be shared by {self.count} processes; change one of the two")
        return batch // self.count

    def sums(self, values: Iterable[float]) -> list[float]:
        """Each value added up over the processes; all get the same numbers."""
        values = list(values)
        if self.count == 1:
            return values
        total = torch.tensor(values, dtype=torch.float64, device=self.device)
        dist.all_reduce(total)
        return total.tolist()

    def sum_gradients(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        """Adds up the gradients over the processes, in place."""
        if self.count == 1:
            return
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        for work in [dist.all_reduce(gradient, async_op=True) for gradient in gradients]:
            work.wait()

    def copy_from_first(self, module: torch.nn.Module) -> None:
        """Gives every process the weights of the first one."""
        if self.count > 1:
            for tensor in module.state_dict().values():
                dist.broadcast(tensor, 0)

    def gather(self, value: Any) -> list[Any]:
        """The value of every process, in order, for the first one; the others get an empty list."""
        if self.count == 1:
            return [value]
        values: list[Any] | None = [None] * self.count if self.first else None
        dist.gather_object(value, values)
        return values or []

    def wait(self) -> None:
        """Returns when all processes have come here."""
        self.sums([0.0])


def best_device() -> str:
    """'cuda' where there is a GPU, else 'cpu'."""
    return "cuda" if torch.cuda.is_available() else "cpu"


@contextmanager
def joined(device: str) -> Iterator[Processes]:
    """Joins the processes that `torchrun` has started, over NCCL on GPUs and gloo on CPUs; without it, this one alone.

    Args:
        device: 'cpu' or 'cuda'; each process takes the GPU of its local rank.

    Raises:
        ConfigError: if there is no GPU for this process.
    """
    local = int(os.environ.get("LOCAL_RANK", "0"))
    place = torch.device(device, local) if device == "cuda" else torch.device(device)
    if place.type == "cuda":
        if local >= torch.cuda.device_count():
            raise ConfigError(
                f"process {local} on this machine wants a GPU of its own and PyTorch sees {torch.cuda.device_count()}; "
                "start fewer processes, or train on the cpu"
            )
        torch.cuda.set_device(place)
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        yield Processes(device=place)
        return
    threading.Thread(target=_stop_without, args=(os.getppid(),), daemon=True).start()
    dist.init_process_group("nccl" if place.type == "cuda" else "gloo", timeout=LONGEST_WAIT)
    try:
        yield Processes(dist.get_rank(), count, place)
    finally:
        dist.destroy_process_group()


def _stop_without(parent: int) -> None:
    """Asks this process to end once `torchrun`, its parent, is gone; a killed one does not end its processes itself."""
    while os.getppid() == parent:
        time.sleep(PARENT_CHECK_S)
    os.kill(os.getpid(), signal.SIGTERM)
