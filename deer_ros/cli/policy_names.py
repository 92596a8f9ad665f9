"""Names of policies on the command line: a bundled checkpoint, a checkpoint's path, or a preset without weights."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from deer_policies.deer.config import DeerConfig


def checkpoint_or_preset(name: str) -> Path | DeerConfig:
    """The file of a checkpoint, or the configuration of a preset; what is bundled comes before a preset of its name.

    Raises:
        CheckpointError: for anything else, with the names there are.
    """
    from deer_policies.deer.checkpoint import find
    from deer_policies.deer.presets import PRESETS, preset
    from deer_policies.errors import CheckpointError

    try:
        return find(name)
    except CheckpointError as error:
        if name in PRESETS:
            return preset(name)
        raise CheckpointError(f"{error}; or a preset: {', '.join(PRESETS)}") from error
