"""Trains every exit at once: the shared head on random exits, one auxiliary head an exit; resumes when interrupted."""

from __future__ import annotations

import copy
import json
import logging
import math
import os
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from deer_policies.deer.action_head import HeadState
from deer_policies.deer.backbone import DeerModel
from deer_policies.deer.tokenizer import Tokenizer
from deer_policies.errors import CheckpointError
from deer_policies.training.augmentation import jitter_clips, shift_clips
from deer_policies.training.episodes import EpisodeStreams, Windows
from deer_policies.training.exit_sampling import gather_exits, segment_exits, uniform_exits
from deer_policies.training.losses import action_loss
from deer_policies.training.recipe import Optimisation, Phase

logger = logging.getLogger(__name__)

SAVE_EVERY_S = 120.0
LOG_EVERY_STEPS = 50
SAMPLERS = {"uniform": uniform_exits, "segments": segment_exits}


class Trainer:
    """Owns the model, its averaged copy, the optimiser and the recurrent states of the streams."""

    def __init__(
        self,
        model: DeerModel,
        tokenizer: Tokenizer,
        settings: Optimisation,
        folder: Path,
        seed: int,
        device: str = "cpu",
    ) -> None:
        """Args:
        model: trained in place.
        tokenizer: turns instructions into ids.
        settings: see `Optimisation`.
        folder: for `trainer.pt` (to resume from) and `log.jsonl`.
        seed: of sampling and augmentation.
        device: where to train.
        """
        self.model = model.to(device)
        # Convolutions run faster with channels last.
        for parameter in self.model.vision.parameters():
            if parameter.ndim == 4:
                parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
        self.average = copy.deepcopy(model).eval()
        self.steps_done = 0
        self._tokenizer = tokenizer
        self._settings = settings
        self._folder = folder
        self._device = device
        self._seed = seed
        self._phase = ""
        self._phase_step = 0
        self._optimiser_state: dict[str, Any] | None = None
        self._finished: list[str] = []
        self._states: dict[str, HeadState] = {}
        self._rng = np.random.default_rng(seed)
        self._generator = torch.Generator().manual_seed(seed)
        folder.mkdir(parents=True, exist_ok=True)
        if (folder / "trainer.pt").exists():
            self._restore(folder / "trainer.pt")

    def run(self, phase: Phase, streams: EpisodeStreams, name: str) -> None:
        """Trains until the phase's steps are done; goes on where a run was interrupted, and skips what is finished."""
        if name in self._finished:
            return
        optimiser = self._make_optimiser(phase)
        if self._phase == name and self._optimiser_state is not None:
            optimiser.load_state_dict(self._optimiser_state)
        else:
            # A phase begins where the one before is best, at its averaged weights.
            self._phase, self._phase_step = name, 0
            self.model.load_state_dict(self.average.state_dict())
        self._optimiser_state = None
        self._states = {}
        self.model.train()
        saved_at = logged_at = time.monotonic()
        losses: list[float] = []
        logged_step = self._phase_step
        while self._phase_step < phase.steps:
            for group in optimiser.param_groups:
                group["lr"] = phase.learning_rate * self._schedule(phase)
            losses.append(self._update(streams.next(), optimiser, phase.heads_only))
            self._phase_step += 1
            self.steps_done += 1
            now = time.monotonic()
            if self._phase_step % LOG_EVERY_STEPS == 0 or self._phase_step == phase.steps:
                rate = (self._phase_step - logged_step) / max(now - logged_at, 1e-9)
                self._log(name, phase, float(np.mean(losses)), rate)
                losses, logged_at, logged_step = [], now, self._phase_step
            if now - saved_at > SAVE_EVERY_S:
                self._save(optimiser)
                saved_at = now
        self._finished.append(name)
        self._save(optimiser)

    def _make_optimiser(self, phase: Phase) -> torch.optim.Optimizer:
        head_names = ("head.", "auxiliary_heads.")
        decayed: list[torch.nn.Parameter] = []
        plain: list[torch.nn.Parameter] = []
        for name, parameter in self.model.named_parameters():
            parameter.requires_grad_(not phase.heads_only or name.startswith(head_names))
            if parameter.requires_grad:
                (decayed if parameter.ndim >= 2 else plain).append(parameter)
        groups = [
            {"params": decayed, "weight_decay": self._settings.weight_decay},
            {"params": plain, "weight_decay": 0.0},
        ]
        return torch.optim.AdamW(groups, lr=phase.learning_rate, betas=(0.9, 0.999))

    def _schedule(self, phase: Phase) -> float:
        warm = min(1.0, (self._phase_step + 1) / max(phase.warmup_steps, 1))
        progress = self._phase_step / phase.steps
        return warm * (0.55 + 0.45 * math.cos(math.pi * progress))

    def _update(self, windows: Windows, optimiser: torch.optim.Optimizer, heads_only: bool) -> float:
        # The fused attention's backward pass is the slowest part of training a small model on a CPU.
        with sdpa_kernel(SDPBackend.MATH) if self._device == "cpu" else nullcontext():
            with torch.autocast(self._device, torch.bfloat16):
                loss = self._loss(windows, heads_only)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
        trained = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        torch.nn.utils.clip_grad_norm_(trained, self._settings.clip_norm)
        optimiser.step()
        self._average_weights()
        return float(loss.detach())

    def _loss(self, windows: Windows, heads_only: bool) -> torch.Tensor:
        settings = self._settings
        images = torch.from_numpy(windows.images)
        images = shift_clips(images, settings.shift_px, self._generator, self.model.config.official)
        images = jitter_clips(images, settings.brightness, self._generator)
        ids, mask = self._tokenizer.encode_batch([self._drop_words(text) for text in windows.instructions])
        proprioception = torch.from_numpy(windows.proprioception).to(self._device)
        target = torch.from_numpy(windows.labels).to(self._device)
        weight = torch.from_numpy(windows.weight).to(self._device)
        keep = torch.from_numpy(~windows.starts).to(self._device)
        with torch.set_grad_enabled(not heads_only):
            features = self.model.features(images.to(self._device), ids.to(self._device), mask.to(self._device))
        exit_features = features[1:]
        exits, batch, window = exit_features.shape[:3]
        total = torch.zeros((), device=self._device)
        for sampling in settings.samplings:
            drawn = SAMPLERS[sampling](batch, window, exits, self._generator)
            total = total + self._head_loss(
                sampling, self.model.head, gather_exits(exit_features, drawn), proprioception, target, weight, keep
            )
        if settings.auxiliary_weight > 0.0:
            for index, head in enumerate(self.model.auxiliary_heads):
                total = total + settings.auxiliary_weight * self._head_loss(
                    f"auxiliary_{index}", head, exit_features[index], proprioception, target, weight, keep
                )
        return total

    def _head_loss(
        self,
        stream: str,
        head: torch.nn.Module,
        features: torch.Tensor,
        proprioception: torch.Tensor,
        target: torch.Tensor,
        weight: torch.Tensor,
        keep: torch.Tensor,
    ) -> torch.Tensor:
        state = self._states.get(stream)
        if state is not None:
            state = state.kept(keep)
        pose, gripper_logit, state = head(features, proprioception, state)
        self._states[stream] = state.detached()
        return action_loss(pose, gripper_logit, target, weight, self._settings.gripper_weight)

    def _drop_words(self, text: str) -> str:
        words = text.split()
        kept = [word for word in words if self._rng.random() >= self._settings.word_dropout]
        return " ".join(kept or words)

    @torch.no_grad()
    def _average_weights(self) -> None:
        # A young average follows quickly, so that the first, random weights are soon forgotten.
        decay = min(self._settings.ema_decay, (1 + self.steps_done) / (10 + self.steps_done))
        for averaged, current in zip(self.average.parameters(), self.model.parameters(), strict=True):
            averaged.lerp_(current, 1.0 - decay)

    def _log(self, name: str, phase: Phase, loss: float, rate: float) -> None:
        left_s = (phase.steps - self._phase_step) / max(rate, 1e-9)
        logger.info(
            "%s: step %d/%d, loss %.4f, %.2f steps/s, %.0f s left",
            name,
            self._phase_step,
            phase.steps,
            loss,
            rate,
            left_s,
        )
        record = {
            "phase": name,
            "step": self._phase_step,
            "total_steps": self.steps_done,
            "loss": loss,
            "time_s": time.time(),
        }
        with open(self._folder / "log.jsonl", "a") as file:
            file.write(json.dumps(record) + "\n")

    def _save(self, optimiser: torch.optim.Optimizer) -> None:
        content = {
            "phase": self._phase,
            "phase_step": self._phase_step,
            "finished": self._finished,
            "steps_done": self.steps_done,
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "optimiser": optimiser.state_dict(),
        }
        path = self._folder / "trainer.pt"
        partial = path.with_name(f".{path.name}.{os.getpid()}")
        torch.save(content, partial)
        os.replace(partial, path)

    def _restore(self, path: Path) -> None:
        """Takes up an interrupted run; its random draws go on from a seed of their own."""
        try:
            content = torch.load(path, map_location=self._device, weights_only=True)
            self.model.load_state_dict(content["model"])
            self.average.load_state_dict(content["average"])
        except Exception as error:
            raise CheckpointError(f"{path} can't be taken up ({error}); delete it to train from the start") from error
        self._phase = content["phase"]
        self._phase_step = content["phase_step"]
        self._finished = list(content["finished"])
        self._optimiser_state = content["optimiser"]
        self.steps_done = content["steps_done"]
        self._rng = np.random.default_rng([self._seed, self.steps_done])
        self._generator.manual_seed(self._seed + self.steps_done)
