"""The two index files of CALVIN's layout that are pickled dictionaries, read by an unpickler that runs no code.

It knows arrays and plain values, and refuses everything else, so that a file from elsewhere can't do harm.
"""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np

from deer_policies.errors import ConfigError

_NUMPY_NAMES = {
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy.core.multiarray", "scalar"),
    ("numpy._core.multiarray", "scalar"),
    ("numpy.core.numeric", "_frombuffer"),
    ("numpy._core.numeric", "_frombuffer"),
}


def _latin_bytes(text: str, encoding: str) -> bytes:
    """Pickles of protocol 2, which older NumPy wrote, hold the bytes of an array as text."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"it asks for the codec {encoding!r}")
    return text.encode("latin1")


class _PlainUnpickler(pickle.Unpickler):
    """Builds arrays and plain values, and refuses everything else."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("_codecs", "encode"):
            return _latin_bytes
        if (module, name) not in _NUMPY_NAMES:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is no plain value")
        return super().find_class(module, name)


def read_dictionary(path: Path) -> dict[str, Any]:
    """Reads a dictionary that NumPy has pickled into a .npy file, without running any code of the file.

    Raises:
        ConfigError: if the file is missing, damaged, or holds anything but plain values and arrays.
    """
    try:
        with open(path, "rb") as file:
            version = np.lib.format.read_magic(file)
            read_header = (
                np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            )
            shape, _, dtype = read_header(file)
            if shape != () or not dtype.hasobject:
                raise ConfigError(f"{path} holds an array of shape {shape}; it must hold one dictionary")
            value = _PlainUnpickler(file).load().item()
    except ConfigError:
        raise
    # A damaged pickle can raise anything.
    except Exception as error:
        raise ConfigError(
            f"{path} can't be read as a dictionary: {error}; download this file again, from a source that you trust"
        ) from error
    if not isinstance(value, dict):
        raise ConfigError(f"{path} holds a {type(value).__name__}; it must hold one dictionary")
    return value


def dictionary_bytes(value: dict[str, Any]) -> bytes:
    """The content of a .npy file that holds a dictionary."""
    content = io.BytesIO()
    np.save(content, np.asarray(value), allow_pickle=True)
    return content.getvalue()
