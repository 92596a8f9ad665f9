"""Safetensors files: written whole or not at all, equal content as equal bytes; read without holding them in memory."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

import safetensors
import torch
from safetensors.torch import save_file

from deer_policies.errors import CheckpointError

MAPPED_BYTES = 2**26
"""Of a file that may be mapped into memory before it is unmapped: what was read counts as the process's until then."""
HASHED_BYTES = 2**20
"""Of a file that are read at once to be hashed."""


def write_tensors(path: Path, tensors: dict[str, torch.Tensor], metadata: dict[str, str]) -> None:
    """Writes a file; its folder is made. A run that is killed leaves what was there before."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        save_file(tensors, unfinished, metadata)
        _sort_metadata(unfinished)
        unfinished.chmod(0o644)
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def _sort_metadata(path: Path) -> None:
    """In the header, in place; the library writes them in an order of chance."""
    with open(path, "r+b") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        ordered = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
        assert len(ordered) <= length, "the tensors begin after the header"
        file.seek(8)
        file.write(ordered.ljust(length))


def read_tensors(path: Path, shapes: Mapping[str, torch.Size]) -> Iterator[tuple[str, torch.Tensor]]:
    """The tensors of these names, one after the other; each is to be copied before the next is asked for.

    Raises:
        CheckpointError: if one has another shape.
    """
    left = list(shapes)
    while left:
        mapped = 0
        with safetensors.safe_open(path, "pt") as file:
            while left and mapped < MAPPED_BYTES:
                name = left.pop(0)
                tensor = file.get_tensor(name)
                if tensor.shape != shapes[name]:
                    raise CheckpointError(
                        f"{path}: tensor {name} has shape {tuple(tensor.shape)}; the configuration says "
                        f"{tuple(shapes[name])}"
                    )
                mapped += tensor.numel() * tensor.element_size()
                yield name, tensor
                del tensor


def content_sha256(path: Path, metadata_apart: Collection[str], tensors_apart: str) -> str:
    """Hash of what a file holds, whatever the order in which it holds it.

    Args:
        path: of the file.
        metadata_apart: entries of its metadata that do not count.
        tensors_apart: beginning of the names of tensors that do not count.
    """
    with open(path, "rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        begin = file.tell()
        metadata = header.pop("__metadata__", {})
        counted = {name: text for name, text in metadata.items() if name not in metadata_apart}
        digest = hashlib.sha256(json.dumps(counted, sort_keys=True).encode())
        for name, described in sorted(header.items()):
            if name.startswith(tensors_apart):
                continue
            digest.update(json.dumps([name, described["dtype"], described["shape"]]).encode())
            start, end = described["data_offsets"]
            file.seek(begin + start)
            for offset in range(start, end, HASHED_BYTES):
                digest.update(file.read(min(HASHED_BYTES, end - offset)))
    return digest.hexdigest()
