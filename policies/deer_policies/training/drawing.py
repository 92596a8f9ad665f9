"""Everything that is drawn at random for an update: image shifts, brightness, words left out, exits."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from deer_policies.deer.tokenizer import Tokenizer
from deer_policies.training.augmentation import jitter_clips, shift_clips
from deer_policies.training.episodes import Windows
from deer_policies.training.exit_sampling import draw_exits, exit_shares
from deer_policies.training.objective import Batch
from deer_policies.training.recipe import Optimisation


class BatchDrawer:
    """Turns windows of episodes into batches."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        settings: Optimisation,
        exits: int,
        seed: Sequence[int],
        official: bool = False,
    ) -> None:
        """Args:
        tokenizer: turns instructions into ids.
        settings: see `Optimisation`.
        exits: of the model.
        seed: of all draws.
        official: draw shifts and segments as the released code does; see `shift_clips` and `segment_exits`.

        Raises:
            ConfigError: if the settings have shares for another number of exits.
        """
        self._tokenizer = tokenizer
        self._settings = settings
        self._shares = exit_shares(settings, exits)
        self._official = official
        self._rng = np.random.default_rng(seed)
        self._generator = torch.Generator().manual_seed(torch_seed(seed))

    def draw(self, windows: Windows) -> Batch:
        """The batch of an update, on the CPU."""
        settings, generator = self._settings, self._generator
        images = shift_clips(torch.from_numpy(windows.images), settings.shift_px, generator, self._official)
        images = jitter_clips(images, settings.brightness, settings.tint, generator)
        batch, window = windows.weight.shape[:2]
        ids, mask = self._tokenizer.encode_batch([self._drop_words(text) for text in windows.instructions])
        return Batch(
            images=images,
            token_ids=ids,
            token_mask=mask,
            proprioception=torch.from_numpy(windows.proprioception),
            target=torch.from_numpy(windows.labels),
            weight=torch.from_numpy(windows.weight),
            scene=torch.from_numpy(windows.scene),
            landmarks=torch.from_numpy(windows.landmarks),
            focus=torch.from_numpy(windows.focus),
            starts=torch.from_numpy(windows.starts),
            exits=draw_exits(settings.samplings, batch, window, self._shares, generator, self._official),
        )

    def _drop_words(self, text: str) -> str:
        words = text.split()
        kept = [word for word in words if self._rng.random() >= self._settings.word_dropout]
        return " ".join(kept or words)

    def state(self) -> dict[str, Any]:
        """Plain values and tensors from which another one goes on with the same draws."""
        return {"numpy": json.dumps(self._rng.bit_generator.state), "torch": self._generator.get_state()}

    def go_on_from(self, state: dict[str, Any]) -> None:
        """Takes up what `state` gave."""
        self._rng.bit_generator.state = json.loads(state["numpy"])
        self._generator.set_state(state["torch"])


def torch_seed(parts: Sequence[int]) -> int:
    """One seed for PyTorch from several numbers."""
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0] >> 1)
