"""The memory of this process: whether an error says that it ran out, what can be given back, and how much is in use.

torch is asked only where it is loaded already; nothing here loads it.
"""

from __future__ import annotations

import gc
import sys
from pathlib import Path

MIB = 2.0**20
_STATUS = Path("/proc/self/status")
_SIGNS = (
    "can't allocate memory",  # torch's allocator on a CPU: a plain RuntimeError
    "std::bad_alloc",
    "CUDA out of memory",
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
)
"""What RuntimeErrors say that come of a lack of memory and have no type of their own."""


def ran_out_of_memory(error: BaseException) -> bool:
    """Whether there was too little memory, on the CPU or on the GPU."""
    if isinstance(error, MemoryError):
        return True
    if not isinstance(error, RuntimeError):
        return False
    of_torch = getattr(sys.modules.get("torch"), "OutOfMemoryError", ())
    return isinstance(error, of_torch) or any(sign in str(error) for sign in _SIGNS)


def give_back() -> None:
    """Gives back what nobody uses: cycles of young dead objects, and blocks that torch keeps for later on the GPU.

    A search through the old objects too would stop every thread for some tenths of a second.
    """
    gc.collect(1)
    if _gpu_in_use():
        sys.modules["torch"].cuda.empty_cache()


def resident_mib() -> float | None:
    """Memory of this process that is in RAM, in MiB; None where the system doesn't tell."""
    try:
        lines = _STATUS.read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) / 1024.0 for line in lines if line.startswith("VmRSS:")), None)


def gpu_mib() -> float | None:
    """Memory of the GPU that torch has taken in this process, in MiB; None if it uses none."""
    return sys.modules["torch"].cuda.memory_reserved() / MIB if _gpu_in_use() else None


def _gpu_in_use() -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and bool(torch.cuda.is_initialized())
