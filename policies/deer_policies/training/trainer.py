"""Trains every exit at once, in one process or several; what was stopped goes on as if it had not been."""

from __future__ import annotations

import copy
import logging
import os
import time
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch.optim.swa_utils import get_ema_multi_avg_fn

from deer_policies.deer.action_head import HeadState
from deer_policies.deer.backbone import DeerModel
from deer_policies.deer.tokenizer import Tokenizer
from deer_policies.errors import CheckpointError
from deer_policies.training.arithmetic import cpu_attention
from deer_policies.training.drawing import BatchDrawer, torch_seed
from deer_policies.training.episodes import Episode, EpisodeStreams
from deer_policies.training.interruption import noted_interruption
from deer_policies.training.log import TrainingLog
from deer_policies.training.objective import Batch, head_losses, total_loss
from deer_policies.training.optimiser import make_optimiser, scheduled_rate, set_rates
from deer_policies.training.parallel import Processes
from deer_policies.training.read_ahead import ReadAhead
from deer_policies.training.readouts import Readouts
from deer_policies.training.recipe import Optimisation, Phase, Validation
from deer_policies.training.validation import held_out_loss

logger = logging.getLogger(__name__)

LOG_EVERY_STEPS = 50


class Trainer:
    """Owns the model, its averaged copy, and all that an update depends on."""

    def __init__(
        self,
        model: DeerModel,
        tokenizer: Tokenizer,
        settings: Optimisation,
        folder: Path,
        seed: int,
        processes: Processes | None = None,
        validation: Validation | None = None,
        held_out: Sequence[Episode] = (),
        readouts: Readouts | None = None,
        save_every_s: float = 120.0,
    ) -> None:
        """Args:
        model: trained in place.
        tokenizer: turns instructions into ids.
        settings: see `Optimisation`.
        folder: for `trainer.pt` (to resume from), `log.jsonl` and `tensorboard/`.
        seed: of sampling, augmentation and dropout.
        processes: of this run; None for this one alone, on the CPU.
        validation: when to stop early; None never does.
        held_out: episodes for it.
        readouts: trained beside the model, see `head_losses`; None leaves them out.
        save_every_s: how often the state is saved; it is saved at the end of a phase and after Ctrl-C as well.

        Raises:
            CheckpointError: if the folder holds a state that can't be taken up.
        """
        self._processes = processes or Processes()
        self.model = model.to(self._processes.device)
        # Convolutions run faster with channels last.
        for parameter in self.model.vision.parameters():
            if parameter.ndim == 4:
                parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
        self._readouts = None if readouts is None else readouts.to(self._processes.device)
        for module in (self.model, self._readouts):
            if module is not None:
                self._processes.copy_from_first(module)
        self.average = copy.deepcopy(model).eval()
        self.steps_done = 0
        self._tokenizer = tokenizer
        self._settings = settings
        self._folder = folder
        self._seed = seed
        self._validation = validation
        self._held_out = held_out
        self._save_every_s = save_every_s
        self._read_in_phase = self._readouts
        self._phase = ""
        self._phase_step = 0
        self._finished: list[str] = []
        self._states: dict[str, HeadState] = {}
        self._recent: list[dict[str, float]] = []
        self._best: dict[str, Any] = {}
        self._saved: dict[str, Any] | None = None
        seeds = (seed, self._processes.rank)
        self._drawer = BatchDrawer(tokenizer, settings, len(model.exit_layers), seeds, model.config.official)
        folder.mkdir(parents=True, exist_ok=True)
        if (folder / "trainer.pt").exists():
            self._restore(folder / "trainer.pt")

    def run(self, phase: Phase, streams: EpisodeStreams | ReadAhead, name: str) -> None:
        """Trains until the phase's steps are done or the validation ends it; skips a phase that is finished.

        A phase that was interrupted goes on with every number as if it had not been. Ctrl-C ends it after the update in
        progress, with the state saved.

        Raises:
            KeyboardInterrupt: after Ctrl-C or a polite kill.
        """
        if name in self._finished:
            return
        first = self._processes.first
        # Where all but the heads stands still there is nothing for the readouts to teach.
        self._read_in_phase = None if phase.heads_only else self._readouts
        optimiser = make_optimiser(self.model, phase, self._settings, self._read_in_phase)
        self._begin(name, optimiser, streams)
        self.model.train()
        with (
            TrainingLog(self._folder, self.steps_done, name) if first else nullcontext() as log,
            noted_interruption() as interrupted,
        ):
            saved_at = logged_at = time.monotonic()
            logged_step = self._phase_step
            while self._goes_on(phase):
                set_rates(optimiser, phase, self._phase_step)
                self._recent.append(self.update(self._drawer.draw(streams.next()), optimiser))
                self._phase_step += 1
                self.steps_done += 1
                self._measure(phase, log)
                if self._phase_step % LOG_EVERY_STEPS == 0 or not self._goes_on(phase):
                    now = time.monotonic()
                    self._log(phase, log, (self._phase_step - logged_step) / max(now - logged_at, 1e-9))
                    logged_at, logged_step = now, self._phase_step
                due = first and time.monotonic() - saved_at > self._save_every_s
                stop, save = self._processes.sums([interrupted(), due])
                if stop or save:
                    self._save(optimiser, streams)
                    saved_at = time.monotonic()
                if stop:
                    logger.info("%s: stopped; the state after update %d is saved", name, self._phase_step)
                    raise KeyboardInterrupt
            if "weights" in self._best:
                self.average.load_state_dict(self._best["weights"])
            self._finished.append(name)
            self._save(optimiser, streams)

    def update(self, batch: Batch, optimiser: torch.optim.Optimizer) -> dict[str, float]:
        """One step of the optimiser; the batches of all processes count as one.

        Args:
            batch: of this process.
            optimiser: with its rates set.

        Returns:
            'loss', the loss of each head, and 'gradient_norm' before clipping, each times this process's share of the
            steps with weight: the sum over the processes is the mean over all of these steps.
        """
        steps = float(batch.weight.sum())
        share = steps / max(self._processes.sums([steps])[0], 1.0)
        trained = [parameter for group in optimiser.param_groups for parameter in group["params"]]
        with cpu_attention(self._processes.device):
            losses, self._states = head_losses(
                self.model, batch.to(self._processes.device), self._states, self._settings, self._read_in_phase
            )
            total = total_loss(losses, self._settings)
            optimiser.zero_grad(set_to_none=True)
            (share * total).backward()
        self._processes.sum_gradients(trained)
        norm = torch.nn.utils.clip_grad_norm_(trained, self._settings.clip_norm)
        optimiser.step()
        self._average_weights()
        found = {"loss": total, **losses, "gradient_norm": norm}
        values = torch.stack([value.detach() for value in found.values()]).tolist()
        return {name: share * value for name, value in zip(found, values, strict=True)}

    def _begin(self, name: str, optimiser: torch.optim.Optimizer, streams: EpisodeStreams | ReadAhead) -> None:
        if self._phase == name and self._saved is not None:
            self._take_up(self._saved, optimiser, streams)
        else:
            # A phase begins where the one before is best, at its averaged weights.
            self._phase, self._phase_step = name, 0
            self._states, self._recent, self._best = {}, [], {}
            self.model.load_state_dict(self.average.state_dict())
            # Dropout draws from PyTorch's own generator, which others may have used since.
            torch.manual_seed(torch_seed((self._seed, self._processes.rank, self.steps_done)))
        self._saved = None

    def _goes_on(self, phase: Phase) -> bool:
        patient = self._validation is None or self._best.get("worse", 0) < self._validation.patience
        return patient and self._phase_step < phase.steps

    @torch.no_grad()
    def _average_weights(self) -> None:
        # A young average follows quickly, so that the first, random weights are soon forgotten.
        decay = min(self._settings.ema_decay, (1 + self.steps_done) / (10 + self.steps_done))
        get_ema_multi_avg_fn(decay)(list(self.average.parameters()), list(self.model.parameters()), self.steps_done)

    def _measure(self, phase: Phase, log: TrainingLog | None) -> None:
        """Takes the loss on the held-out episodes where it is due, and keeps the averaged weights if they are best."""
        validation = self._validation
        if validation is None or (self._phase_step % validation.every and self._phase_step < phase.steps):
            return
        loss = held_out_loss(self.average, self._tokenizer, self._held_out, self._settings, self._seed, self._processes)
        if loss < self._best.get("loss", float("inf")):
            weights = {name: tensor.clone() for name, tensor in self.average.state_dict().items()}
            self._best = {"loss": loss, "worse": 0, "weights": weights}
        else:
            self._best["worse"] = self._best.get("worse", 0) + 1
        if log is not None:
            logger.info("%s: update %d, held-out loss %.4f", self._phase, self._phase_step, loss)
            log.write(self._record(validation_loss=loss))

    def _log(self, phase: Phase, log: TrainingLog | None, rate: float) -> None:
        names = list(self._recent[0])
        sums = self._processes.sums(sum(entry[name] for entry in self._recent) for name in names)
        means = {name: total / len(self._recent) for name, total in zip(names, sums, strict=True)}
        self._recent = []
        if log is None:
            return
        logger.info(
            "%s: update %d/%d, loss %.4f, %.2f updates/s, %.0f s left",
            self._phase,
            self._phase_step,
            phase.steps,
            means["loss"],
            rate,
            (phase.steps - self._phase_step) / max(rate, 1e-9),
        )
        loss, norm = means.pop("loss"), means.pop("gradient_norm")
        learning_rate = scheduled_rate(phase, self._phase_step - 1)
        log.write(
            self._record(loss=loss, losses=means, learning_rate=learning_rate, gradient_norm=norm, updates_per_s=rate)
        )

    def _record(self, **values: Any) -> dict[str, Any]:
        place = {"phase": self._phase, "step": self._phase_step, "total_steps": self.steps_done}
        return place | values | {"time_s": time.time()}

    def _save(self, optimiser: torch.optim.Optimizer, streams: EpisodeStreams | ReadAhead) -> None:
        device = self._processes.device
        own = self._processes.gather(
            {
                "streams": streams.state(),
                "drawer": self._drawer.state(),
                "dropout": (torch.cuda if device.type == "cuda" else torch).get_rng_state(),
                "states": {name: (state.hidden.cpu(), state.cell.cpu()) for name, state in self._states.items()},
                "recent": self._recent,
            }
        )
        if not self._processes.first:
            return
        content = {
            "phase": self._phase,
            "phase_step": self._phase_step,
            "finished": self._finished,
            "steps_done": self.steps_done,
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "readouts": None if self._readouts is None else self._readouts.state_dict(),
            "best": self._best,
            "optimiser": optimiser.state_dict(),
            "processes": own,
        }
        path = self._folder / "trainer.pt"
        partial = path.with_name(f".{path.name}.{os.getpid()}")
        torch.save(content, partial)
        os.replace(partial, path)

    def _restore(self, path: Path) -> None:
        """Reads the state of an interrupted run; what belongs to its phase is taken up when the phase goes on."""
        try:
            content = torch.load(path, map_location="cpu", weights_only=True)
            count = len(content["processes"])
            if count != self._processes.count:
                raise CheckpointError(f"it was written by a run of {count} processes; start as many")
            own = content["processes"][self._processes.rank]
            self.model.load_state_dict(content["model"])
            self.average.load_state_dict(content["average"])
            if self._readouts is not None:
                self._readouts.load_state_dict(content["readouts"])
            self._phase, self._phase_step = content["phase"], content["phase_step"]
            self._finished = list(content["finished"])
            self.steps_done = content["steps_done"]
            self._drawer.go_on_from(own["drawer"])
            self._saved = {"optimiser": content["optimiser"], "best": content["best"], **own}
        except Exception as error:
            raise CheckpointError(f"{path} can't be taken up ({error}); delete it to train from the start") from error

    def _take_up(
        self, saved: dict[str, Any], optimiser: torch.optim.Optimizer, streams: EpisodeStreams | ReadAhead
    ) -> None:
        device = self._processes.device
        optimiser.load_state_dict(saved["optimiser"])
        streams.go_on_from(saved["streams"])
        (torch.cuda if device.type == "cuda" else torch).set_rng_state(saved["dropout"])
        self._states = {
            name: HeadState(hidden.to(device), cell.to(device)) for name, (hidden, cell) in saved["states"].items()
        }
        self._recent, self._best = list(saved["recent"]), dict(saved["best"])
