"""Keeps fetched weights in a folder of the user's, and gives them out only if their content is what it should be."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from deer_policies.errors import CheckpointError, ConfigError
from deer_policies.model_store.manifest import Model, ModelFile, load_manifest
from deer_policies.model_store.registries import PART, SourceError, Told, obtain

FOLDER_VARIABLE = "DEER_MODELS"
"""Environment variable with the folder of the store."""


def default_folder() -> Path:
    """What the environment says, else the user's cache."""
    if given := os.environ.get(FOLDER_VARIABLE):
        return Path(given)
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "deer_ros" / "models"


class ModelStore:
    """Weights by name.

    Args:
        folder: where they are kept; None: `default_folder`.
        models: what there is; None: the packaged manifest.
    """

    def __init__(self, folder: Path | None = None, models: Mapping[str, Model] | None = None) -> None:
        self.folder = default_folder() if folder is None else folder
        self.models = load_manifest() if models is None else models

    def model(self, name: str) -> Model:
        """The model of that name. Raises ConfigError if there is none."""
        if name not in self.models:
            raise ConfigError(f"model {name!r} is unknown; there are {', '.join(sorted(self.models))}")
        return self.models[name]

    def missing(self, name: str) -> list[ModelFile]:
        """Files of a model that are not here, or not with the right content."""
        model = self.model(name)
        return [file for file in model.files if not _is(self.folder / name / file.name, file)]

    def path(self, name: str) -> Path:
        """The folder of a model whose files are all here and right.

        Raises:
            CheckpointError: if one isn't, with the command that gets it.
        """
        if missing := self.missing(name):
            there = any((self.folder / name / file.name).exists() for file in missing)
            raise CheckpointError(
                f"the weights of {name} are {'damaged' if there else 'not on this machine'} "
                f"({missing[0].name} in {self.folder / name}); get them with: deer models fetch {name}"
            )
        return self.folder / name

    def fetch(self, name: str, told: Told = lambda what, have, total: None) -> Path:
        """Gets what is missing of a model, from the first source that has it with the right content.

        Raises:
            CheckpointError: if no source had a file; those that had another content are named.
        """
        model = self.model(name)
        downloads = self.folder / "downloads"
        for file in self.missing(name):
            self._fetch(model, file, downloads, told)
        shutil.rmtree(downloads, ignore_errors=True)
        return self.path(name)

    def _fetch(self, model: Model, file: ModelFile, downloads: Path, told: Told) -> None:
        target = self.folder / model.name / file.name
        target.parent.mkdir(parents=True, exist_ok=True)
        fresh = target.with_name(f"{target.name}.new")
        failures = []
        for source in model.sources:
            if not source.parts(file.name):
                continue
            try:
                obtain(source, file.name, fresh, downloads, told)
            except SourceError as error:
                failures.append(str(error))
                continue
            if _is(fresh, file):
                fresh.replace(target)
                return
            fresh.unlink()
            failures.append(f"{source} holds another content")
        # What was whole and yet of no use is fetched anew the next time; what broke off goes on.
        for path in downloads.glob("*"):
            if path.suffix != PART:
                path.unlink()
        raise CheckpointError(
            f"{file.name} of {model.name} could not be fetched: {'; '.join(failures) or 'no source carries it'}; "
            f"look at the network, or put a file with SHA-256 {file.sha256} at {target}"
        )


def _is(path: Path, file: ModelFile) -> bool:
    """Whether a file is there with its content."""
    if not path.is_file() or path.stat().st_size != file.size_bytes:
        return False
    with path.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest() == file.sha256
