"""Files of released models, local or on Hugging Face, read as plain tensors: nothing in them is ever run."""

from __future__ import annotations

import hashlib
import json
import re
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

from deer_policies.errors import CheckpointError

_HUB = re.compile(r"(?P<repository>[\w.-]+/[\w.-]+)(?::(?P<file>.+))?")
_SHARDED = (
    ("model.safetensors.index.json", "model.safetensors"),
    ("pytorch_model.bin.index.json", "pytorch_model.bin"),
)
"""Index and single file of a Hugging Face model folder, the better format first."""


@dataclass
class ReleaseFiles:
    """Finds files, and keeps account of what was read.

    Attributes:
        read: SHA-256 and size in bytes of each file that was read, by the part of the policy that it was read for.
    """

    read: dict[str, list[dict[str, Any]]] = field(default_factory=dict)

    def tensors(self, part: str, source: str) -> dict[str, Any]:
        """Content of one file of tensors, memory-mapped, so that what is not used is never read.

        Args:
            part: which part of the policy it is for: 'release', 'clip' or 'mpt'.
            source: path, or 'repository:file' on Hugging Face.

        Returns:
            what the file holds: tensors by name, or for a training checkpoint whatever was saved beside them.
        """
        return self._content(part, self.file(source))

    def model_folder(self, part: str, source: str, wanted: Callable[[str], bool]) -> dict[str, torch.Tensor]:
        """Tensors of a Hugging Face model folder, in one file or in shards with an index.

        Args:
            part: see `tensors`.
            source: path of the folder, or its repository on Hugging Face.
            wanted: whether a tensor of this name is needed; shards without any are neither fetched nor opened.

        Raises:
            CheckpointError: if there are no weights in the folder, or a shard is missing.
        """
        unreachable: list[_UnreachableError] = []

        def probed(name: str) -> Path | None:
            try:
                return self._in_folder(source, name, cached_only=bool(unreachable))
            except _UnreachableError as error:
                unreachable.append(error)
                return None

        for index_name, single_name in _SHARDED:
            index = probed(index_name)
            if index is not None:
                shards = sorted({shard for name, shard in _weight_map(index).items() if wanted(name)})
                paths = [self._in_folder(source, shard) for shard in shards]
                if None in paths:
                    raise CheckpointError(f"{source} lacks {shards[paths.index(None)]}, which {index_name} names")
            else:
                paths = [probed(single_name)]
            found = {name: tensor for path in paths if path for name, tensor in self._content(part, path).items()}
            if found:
                return {name: tensor for name, tensor in found.items() if wanted(name)}
        names = ", ".join(name for pair in _SHARDED for name in pair)
        nothing = CheckpointError(f"{source} holds no weights; a folder with one of {names} is needed")
        raise unreachable[0] if unreachable else nothing

    def text(self, part: str, source: str, default: str) -> str:
        """A text file: its path, or its folder or Hugging Face repository, where it has the name `default`."""
        folder_or_repository = Path(source).is_dir() or (not Path(source).exists() and ":" not in source)
        path = self._in_folder(source, default) if folder_or_repository else self.file(source)
        if path is None:
            raise CheckpointError(f"{source} holds no {default}; give the path of one")
        self._account(part, path)
        return path.read_text(encoding="utf-8")

    def file(self, source: str) -> Path:
        """The file of a path or of 'repository:file' on Hugging Face, fetched if need be."""
        if Path(source).is_file():
            return Path(source)
        hub = _HUB.fullmatch(source)
        if hub is None or hub["file"] is None:
            raise CheckpointError(
                f"there is no file {source}; give the path of a file, or REPOSITORY:FILE of Hugging Face, "
                "for example openflamingo/OpenFlamingo-3B-vitl-mpt1b-langinstruct:checkpoint.pt"
            )
        path = _fetched(hub["repository"], hub["file"])
        if path is None:
            raise CheckpointError(f"{hub['repository']} on Hugging Face has no file {hub['file']}")
        return path

    def _in_folder(self, source: str, name: str, cached_only: bool = False) -> Path | None:
        if Path(source).is_dir():
            path = Path(source) / name
            return path if path.is_file() else None
        hub = _HUB.fullmatch(source)
        if hub is None or hub["file"] is not None:
            raise CheckpointError(
                f"there is no folder {source}; give its path, or the name of a Hugging Face repository"
            )
        return _fetched(hub["repository"], name, cached_only)

    def _content(self, part: str, path: Path) -> dict[str, Any]:
        self._account(part, path)
        content = _safetensors(path) if path.suffix == ".safetensors" else _torch_file(path)
        if not isinstance(content, Mapping):
            raise CheckpointError(f"{path} holds a {type(content).__name__}; a file of named tensors is needed")
        return dict(content)

    def _account(self, part: str, path: Path) -> None:
        with open(path, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        self.read.setdefault(part, []).append({"sha256": digest, "bytes": path.stat().st_size})


class _UnreachableError(CheckpointError):
    """Hugging Face can't be reached and the file is not in the cache."""


def _fetched(repository: str, name: str, cached_only: bool = False) -> Path | None:
    """A file of a Hugging Face repository, from the local cache or downloaded; None if the repository lacks it."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import LocalEntryNotFoundError, RemoteEntryNotFoundError

    try:
        return Path(hf_hub_download(repository, name, local_files_only=cached_only))
    except RemoteEntryNotFoundError:
        return None
    except LocalEntryNotFoundError as error:
        raise _UnreachableError(
            f"there is no file or folder {repository} here, and Hugging Face can't be reached for {name} of the "
            "repository of that name: go online, or download it elsewhere and give its local path instead"
        ) from error
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{name} of {repository} can't be had from Hugging Face ({_first_line(error)}): check the name, or "
            "download it with a browser and give its local path instead"
        ) from error


def _weight_map(index: Path) -> dict[str, str]:
    try:
        mapping = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        if all(Path(shard).name == shard for shard in mapping.values()):
            return mapping
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{index} can't be read ({error}); get it again") from error
    raise CheckpointError(f"{index} names files outside of its folder; get it again")


def _safetensors(path: Path) -> dict[str, torch.Tensor]:
    try:
        return safetensors.torch.load_file(path)
    except (safetensors.SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} can't be read ({_first_line(error)}); it is damaged: get it again") from error


def _torch_file(path: Path) -> Any:
    try:
        # Files from before PyTorch 1.6 are no archives and can't be mapped.
        return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except Exception as error:  # the unpickler lets any kind through
        raise CheckpointError(
            f"{path} can't be read as plain tensors ({_first_line(error)}); a file that needs code to be read "
            "(a whole module, a TorchScript archive such as OpenAI's own ViT-L-14.pt) is refused: save its state_dict"
        ) from error


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
