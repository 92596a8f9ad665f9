"""A folder of numbers recorded from the official code: its files, checked, and our model with the recorded weights."""

from __future__ import annotations

import json
import re
import zipfile
import zlib
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import torch
from safetensors.torch import load_file

from deer_policies.deer.backbone import DeerModel, Text
from deer_policies.deer.config import DeerConfig, changed
from deer_policies.deer.official import from_official, official_name
from deer_policies.deer.presets import openflamingo_3b
from deer_policies.errors import CheckpointError, ConfigError

CROSS_HEAD_DIM = 64
"""Size of an attention head in OpenFlamingo's resampler and cross-attention; shapes don't tell it."""
SHOWN_KEYS = 3
NOTES = ("cfg/window", "cfg/llm_name", "cfg/exit_dropout", "cfg/lstm_dropout")
"""Settings that change nothing that is replayed: the arrays tell the window, the names the language model."""
FINAL_NORM = "lang_encoder.transformer.norm_f.weight"
"""MPT-7B's code applies this norm behind the last layer where nothing exits; MPT-1B's `ln_f` is never applied."""


class Recording:
    """Reads a folder with `weights.safetensors`, `io.npz` and, to check them against, `stats.json`.

    Nothing is known beforehand: sizes come from `cfg/...` in `io.npz` and from the shapes of the weights.
    """

    def __init__(self, folder: Path) -> None:
        """Raises ConfigError or CheckpointError, naming the part, if the folder is incomplete or damaged."""
        self.folder = folder
        self._arrays = _read_arrays(folder)
        self._used: set[str] = set()
        self.weights = _read_weights(folder / "weights.safetensors")
        self.config = changed(self._config(), {"compatibility": "official"})
        self.model = self._model(self.config)

    @cached_property
    def default_model(self) -> DeerModel:
        """The same weights without official compatibility."""
        return DeerModel.from_weights(
            changed(self.config, {"compatibility": "default"}), self.model.state_dict()
        ).eval()

    @property
    def exit_layers(self) -> tuple[int, ...]:
        """0-based layer index of each exit."""
        return self.config.language.exit_layers

    def exit_at(self, layer: int | str) -> int:
        """Position of the exit behind a layer. Raises ConfigError if there is none."""
        if int(layer) not in self.exit_layers:
            raise ConfigError(f"{self.folder}: a run exits at layer {layer}; cfg/... gives exits {self.exit_layers}")
        return self.exit_layers.index(int(layer))

    def array(self, key: str) -> np.ndarray:
        """What was recorded under a key. Raises ConfigError if it was not."""
        if key not in self._arrays:
            raise ConfigError(f"{self.folder} is incomplete: io.npz lacks {key!r}; get the folder again")
        self._used.add(key)
        return self._arrays[key]

    def tensor(self, key: str) -> torch.Tensor:
        """The same as a tensor."""
        return torch.from_numpy(self.array(key))

    def setting(self, key: str) -> Any:
        """A recorded single value as a Python value."""
        return self.array(key).item()

    def has(self, key: str) -> bool:
        """Whether anything is recorded under this key or below it."""
        return any(name == key or name.startswith(f"{key}/") for name in self._arrays)

    def below(self, key: str) -> list[str]:
        """The next parts of all keys below this one, numbers in order."""
        parts = {name.split("/")[key.count("/") + 1] for name in self._arrays if name.startswith(f"{key}/")}
        return sorted(parts, key=lambda part: (not part.isdigit(), int(part) if part.isdigit() else 0, part))

    def top(self, pattern: str) -> list[re.Match[str]]:
        """Matches of a regular expression among the first parts of all keys."""
        names = sorted({name.split("/")[0] for name in self._arrays})
        return [match for name in names if (match := re.fullmatch(pattern, name))]

    def unused(self) -> list[str]:
        """Keys that nothing has asked for, N for numbers, and 'first/...' where they are many; settings one by one."""
        names = sorted(set(self._arrays) - self._used - set(NOTES))
        patterns: dict[str, set[str]] = {}
        for name in names:
            patterns.setdefault(name.split("/")[0], set()).add(re.sub(r"\b\d+\b", "N", name))
        return [
            pattern
            for first, found in patterns.items()
            for pattern in (sorted(found) if len(found) <= SHOWN_KEYS or first == "cfg" else [f"{first}/..."])
        ]

    @cached_property
    def images(self) -> torch.Tensor:
        """(steps, views, 3, height, width) as the official preprocessing made them."""
        return torch.stack([self.tensor("rgb"), self.tensor("grip")], dim=1)

    def text(self, samples: int) -> Text:
        """The recorded instructions of a batch of this many, embedded."""
        return self.model.text(self.tensor(f"ids{samples}"), self.tensor(f"mask{samples}").bool())

    @cached_property
    def final_norm(self) -> torch.Tensor | None:
        """(dim,) weight of the norm that follows the last layer where nothing exits, or None for MPT-1B."""
        return self.weights.get(FINAL_NORM)

    def layer_outputs(self, text: Text, media: torch.Tensor) -> torch.Tensor:
        """Hidden states (layers, batch, tokens, dim) behind every layer."""
        x, states = text.embedding, []
        for layer in self.model.layers:
            x = layer(x, text.bias, media)
            states.append(x)
        return torch.stack(states)

    def _config(self) -> DeerConfig:
        sizes = _Sizes(self.folder / "weights.safetensors", self.weights)
        last, all_layers = self.setting("cfg/early_exit_layer"), self.setting("cfg/n_layers")
        layers = last + 1 if last >= 0 else all_layers + last + 1
        self._agrees(
            {
                "img": sizes.vision["image_size"],
                "patch": sizes.vision["patch_size"],
                "vis_width": sizes.vision["dim"],
                "vis_layers": sizes.vision["layers"],
                "d_model": sizes.language["dim"],
                "head_hidden": sizes.head["lstm_hidden"],
                "lstm_layers": sizes.head["lstm_layers"],
                "mlp_hidden_layers": len(sizes.head["mlp_dims"]),
                "cross_attn_every": sizes.language["cross_attention_interval"],
            }
        )
        preprocess: dict[str, Any] = {"image_size": sizes.vision["image_size"]}
        for name, key in (("static_shape", "raw_rgb"), ("gripper_shape", "raw_grip")):
            if self.has(key):
                preprocess[name] = list(self.array(key).shape[1:])
        settings = {
            "name": self.folder.name,
            "preprocess": preprocess,
            "vision": {**sizes.vision, "heads": self.setting("cfg/vis_heads")},
            "resampler": sizes.resampler,
            "language": {
                **sizes.language,
                "layers": layers,
                "heads": self.setting("cfg/n_heads"),
                "exit_interval": self.setting("cfg/exit_interval"),
            },
            "head": sizes.head,
        }
        return changed(openflamingo_3b(), settings)

    def _agrees(self, sizes: Mapping[str, int]) -> None:
        """Raises ConfigError where recorded settings and the shapes of the weights contradict each other."""
        for name, size in sizes.items():
            if self.has(f"cfg/{name}") and self.setting(f"cfg/{name}") != size:
                raise ConfigError(
                    f"{self.folder}: cfg/{name} is {self.setting(f'cfg/{name}')}, the weights say {size}; "
                    "they don't belong together"
                )

    def _model(self, config: DeerConfig) -> DeerModel:
        try:
            return DeerModel.from_weights(config, from_official(self.weights, config)).eval()
        except RuntimeError as error:
            raise CheckpointError(
                f"{self.folder}/weights.safetensors does not fit cfg/...: {error}; get the folder again"
            ) from error


class _Sizes:
    """What the shapes of official weights tell of a configuration, as settings of its parts."""

    def __init__(self, path: Path, weights: Mapping[str, torch.Tensor]) -> None:
        self._path = path
        # The number of exits decides only which auxiliary head is called the last; no size depends on that.
        named = {official_name(name, exits=1): tensor.shape for name, tensor in weights.items()}
        self._shapes = {name: shape for name, shape in named.items() if name is not None}
        width, _, patch, _ = self._of("vision.stem.weight")
        side = round((self._of("vision.position_embedding")[0] - 1) ** 0.5)
        latents, _ = self._of("resampler.latents")
        vocabulary, dim = self._of("embedding.weight")
        crossed = self._numbers(r"layers\.(\d+)\.cross_attention\.to_q\.weight")
        first = crossed[0]
        self.vision = {
            "image_size": side * patch,
            "patch_size": patch,
            "dim": width,
            "layers": len(self._numbers(r"vision\.blocks\.(\d+)\.up\.weight")),
            "mlp_ratio": self._of("vision.blocks.0.up.weight")[0] // width,
        }
        self.resampler = {
            "latents": latents,
            "layers": len(self._numbers(r"resampler\.layers\.(\d+)\.to_q\.weight")),
            "heads": self._of("resampler.layers.0.to_q.weight")[0] // CROSS_HEAD_DIM,
            "head_dim": CROSS_HEAD_DIM,
            "mlp_ratio": self._of("resampler.layers.0.feed_forward.up.weight")[0] // width,
        }
        self.language = {
            "vocabulary": vocabulary,
            "dim": dim,
            "qk_norm": "layers.0.block.q_norm.weight" in self._shapes,
            "interleaved_slopes": "layers.0.block.q_norm.weight" not in self._shapes,
            "cross_attention_interval": first + 1,
            "cross_attention_heads": self._of(f"layers.{first}.cross_attention.to_q.weight")[0] // CROSS_HEAD_DIM,
            "cross_attention_head_dim": CROSS_HEAD_DIM,
            "mlp_ratio": self._of("layers.0.block.up.weight")[0] // dim,
        }
        linear = [n for n in self._numbers(r"head\.pose\.(\d+)\.weight") if len(self._of(f"head.pose.{n}.weight")) == 2]
        self.head: dict[str, Any] = {
            "lstm_hidden": self._of("head.norms.0.weight")[0],
            "lstm_layers": len(self._numbers(r"head\.norms\.(\d+)\.weight")),
            "mlp_dims": [self._of(f"head.pose.{number}.weight")[0] for number in linear[:-1]],
        }

    def _of(self, name: str) -> torch.Size:
        if name not in self._shapes:
            raise CheckpointError(f"{self._path} lacks the tensor that becomes {name}; get the folder again")
        return self._shapes[name]

    def _numbers(self, pattern: str) -> list[int]:
        """The numbers that a pattern's group takes, in order."""
        matches = (re.fullmatch(pattern, name) for name in self._shapes)
        found = sorted({int(match[1]) for match in matches if match})
        if not found:
            raise CheckpointError(f"{self._path} has no tensor like {pattern}; get the folder again")
        return found


def _read_weights(path: Path) -> dict[str, torch.Tensor]:
    if not path.is_file():
        raise ConfigError(f"{path} does not exist; a recording is a folder with weights.safetensors and io.npz")
    try:
        return {name: tensor.float() for name, tensor in load_file(path).items()}
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"{path} can't be read ({error}); it is damaged: get the folder again") from error


def _read_arrays(folder: Path) -> dict[str, np.ndarray]:
    path = folder / "io.npz"
    if not path.is_file():
        raise ConfigError(f"{path} does not exist; a recording is a folder with weights.safetensors and io.npz")
    try:
        with np.load(path) as file:
            arrays = dict(file)
        listed = folder / "stats.json"
        stated = _leaves(json.loads(listed.read_text())) if listed.is_file() else {}
    except (zipfile.BadZipFile, zlib.error, OSError, ValueError, EOFError) as error:
        raise ConfigError(f"{folder} can't be read ({error}); it is damaged: get the folder again") from error
    for key, shape in stated.items():
        if key not in arrays and not any(name.startswith(f"{key}/") for name in arrays):
            raise ConfigError(f"{folder} is incomplete: io.npz lacks {key!r}, which stats.json lists")
        if shape is not None and list(arrays[key].shape) != shape:
            raise ConfigError(f"{folder}: {key!r} has shape {arrays[key].shape}, stats.json says {shape}: damaged")
    return arrays


def _leaves(values: Mapping[str, Any], prefix: str = "") -> dict[str, list[int] | None]:
    """Keys of `stats.json` as `io.npz` begins them, with the shapes that it states; it does not go into lists."""
    found: dict[str, list[int] | None] = {}
    for name, value in values.items():
        key = prefix + name
        if name.startswith("_"):
            continue
        if isinstance(value, dict) and "shape" not in value:
            found |= _leaves(value, f"{key}/")
        else:
            found[key] = value["shape"] if isinstance(value, dict) else None
    return found
